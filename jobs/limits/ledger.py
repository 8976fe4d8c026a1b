"""What is left of the budgets above a job, of what was settled and of what running attempts cost."""

from collections.abc import Sequence

from jobs.limits import budget
from jobs.limits.budget import CENT_FRACTION, Holder, deadline_of, holders_of, left_for
from jobs.live_trees import LiveTrees
from jobs.model import Job
from jobs.ports import AdmissionFacts


class Ledger:
    """Knows what has been spent, settled or not.

    The CLI's own total would not do: it is checked after a call, and what a killed process spent is missing in it (both
    measured on 2.1.330).

    Args:
        trees: The live trees, with what each subtree has cost; None for a ledger that knows of none.
    """

    def __init__(self, trees: LiveTrees | None = None) -> None:
        self._trees = trees or LiveTrees()

    def note(self, job: Job, attempt: int, cost_usd: float) -> bool:
        """Take down what a running attempt has cost so far, and tell whether that is news.

        Args:
            job: The job.
            attempt: The attempt's number.
            cost_usd: US dollars.
        """
        return self._trees.note_cost(job.id, attempt, cost_usd)

    def reserve(self, facts: AdmissionFacts) -> None:
        """Refuse a spawn for which a budget above has no room, or hold what it takes until it is written or released.

        Called on the store's thread, inside the transaction that writes the new jobs, and again where that transaction
        has to start again. A reservation of an earlier call is dropped first.

        Raises:
            BudgetError: Naming what is asked, what is left and what to do.
        """
        with self._trees.steady():
            self._trees.unreserve(facts.submission.batch_id)
            budget.check(facts, self._trees)
            if facts.tree is not None:
                self._trees.reserve(facts.submission.batch_id, budget.reservation_of(facts))

    def release(self, batch_id: str) -> None:
        """Give back what a spawn took that was not written; do nothing for any other."""
        self._trees.release(batch_id)

    def holders(self, job: Job) -> Sequence[Holder]:
        """Return who bounds a job, the tree first and the job itself last."""
        return holders_of(self._trees.tree(job.root_id), self._trees.line(job))

    def left(self, job: Job) -> float | None:
        """Return the US dollars that a job may still spend, 0 at least, or None where nothing bounds it."""
        return left_for(self.holders(job), self._trees)

    def deadline(self, job: Job) -> float | None:
        """Return the seconds since the epoch after which a job must not run, or None."""
        return deadline_of(self.holders(job))

    def overdrawn(self, holders: Sequence[Holder]) -> Holder | None:
        """Return the first of these whose budget of US dollars is used up, or None."""
        for holder in holders:
            if holder.usd is not None and self._trees.spent(holder.path) >= holder.usd - CENT_FRACTION:
                return holder
        return None
