"""Budgets of a tree: reserved when a job is spawned, settled by what was used."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from jobs.errors import JobsError
from jobs.live_trees import LiveTrees, Reservation
from jobs.model import Job, Tree
from jobs.ports import AdmissionFacts
from jobs.spec import JobSpec

CENT_FRACTION = 1e-9
"""Dollars below which a difference is one of floating point."""


class BudgetKind(StrEnum):
    """Kind of budget: US dollars, jobs or time."""

    USD = "usd"
    JOBS = "jobs"
    TIME = "time"


class BudgetError(JobsError):
    """A budget has no room for a spawn; nothing was spawned.

    Args:
        kind: What the budget is of.
        holder: Whose it is, in words.
        asked: US dollars, jobs or seconds that were asked for; 0 dollars where the children name no budget.
        remaining: US dollars, jobs or seconds that are left.
        limit: The whole budget; for time the deadline in seconds since the epoch.
    """

    def __init__(self, *, kind: BudgetKind, holder: str, asked: float, left: float, limit: float) -> None:
        self.kind = kind
        self.holder = holder
        self.asked = asked
        self.remaining = left
        self.limit = limit
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        match self.kind:
            case BudgetKind.TIME if self.remaining:
                return (
                    f"subtreeSeconds: {self.asked:.0f} s is more than is left: {self.remaining:.0f} s of "
                    f"{self.holder}. "
                    "Leave subtreeSeconds out: what is left then holds for the new job too."
                )
            case BudgetKind.TIME:
                return f"The time of {self.holder} is over. Finish with what you have."
            case BudgetKind.JOBS if self.remaining:
                return (
                    f"{self.holder} may have {self.limit:.0f} jobs below it, {self.remaining:.0f} more; this asks for "
                    f"{self.asked:.0f}. Spawn at most {self.remaining:.0f}, or do the work in the present job."
                )
            case BudgetKind.JOBS:
                return (
                    f"{self.holder} may have {self.limit:.0f} jobs below it, and has them. Do the work in the "
                    "present job."
                )
            case BudgetKind.USD if self.remaining:
                return (
                    f"maxBudgetUsd: {_usd(self.asked)} in all is more than is left: {_usd(self.remaining)} of "
                    f"{_usd(self.limit)} of {self.holder}. Ask for at most that together, or leave maxBudgetUsd out: "
                    "the jobs then share what is left."
                )
            case _:
                return (
                    f"Nothing is left of the {_usd(self.limit)} of {self.holder}. Finish with what you have, without "
                    "spawning."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOwner:
    """A job or a tree whose subtree has a budget.

    Args:
        path: Where the subtree lies.
        name: For a sentence.
        usd: US dollars, or None.
        jobs: Jobs below it, or None.
        deadline: Seconds since the epoch, or None.
    """

    path: str
    name: str
    usd: float | None = None
    jobs: int | None = None
    deadline: float | None = None


def budget_owners(tree: Tree | None, line: Sequence[Job]) -> list[BudgetOwner]:
    """Return the owners of the budgets of a job, the tree first and the nearest job last.

    Args:
        tree: The tree.
        line: The job and its ancestors, or only these, the root first.
    """
    heads = [] if tree is None else [_of_tree(tree.id, tree.max_budget_usd, tree.deadline)]
    return heads + [
        BudgetOwner(
            path=job.path,
            name=f"job {job.id}",
            usd=job.spec.max_budget_usd,
            jobs=job.spec.max_jobs,
            deadline=job.spec.deadline,
        )
        for job in line
    ]


class TreeUsage(Protocol):
    """Usage and reservations of the subtrees of one tree.

    A live subtree whose job has a budget counts with the whole of it, since its job may still use it; a subtree that
    is over counts with what it used.
    """

    def spent(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, running attempts included."""
        ...

    def charged(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, and what the budgets inside it reserve beyond that."""
        ...

    def jobs(self, path: str) -> int:
        """Return how many jobs there are or may come below a path."""
        ...

    def present(self, path: str) -> int:
        """Return how many jobs there are below a path."""
        ...


def check(facts: AdmissionFacts, books: TreeUsage) -> None:
    """Refuse a spawn for which a budget above it has no room.

    The nearest budget must have room for what is asked besides all that it has promised; those further up have
    reserved that budget as a whole, so they only must not be used up, nor get more jobs than they may have.

    Raises:
        BudgetError: Naming what is asked, what is left and what to do.
    """
    submission = facts.submission
    holders = budget_owners(facts.tree, facts.ancestors)
    specs = [new.spec for new in submission.jobs]
    _check_time(holders, [spec.deadline for spec in specs if spec.deadline is not None], submission.at)
    _check_usd(holders, books, _usd_asked(specs))
    _check_jobs(holders, books, _rooms_asked(specs))


def reservation_of(facts: AdmissionFacts) -> Reservation:
    """Return what a spawn takes of the budgets above it."""
    holders, specs = budget_owners(facts.tree, facts.ancestors), [new.spec for new in facts.submission.jobs]
    return Reservation(
        path=facts.ancestors[-1].path,
        usd_holder=next((holder.path for holder in reversed(holders) if holder.usd is not None), None),
        usd=_usd_asked(specs),
        jobs_holder=next((holder.path for holder in reversed(holders) if holder.jobs is not None), None),
        rooms=_rooms_asked(specs),
        count=len(specs),
    )


def remaining_for(holders: Sequence[BudgetOwner], books: TreeUsage) -> float | None:
    """Return the US dollars that a job may still spend, 0 where nothing is left, or None without a budget.

    Args:
        holders: The owners of its budgets, itself included, the nearest last.
        books: Their tree's.
    """
    bounds = [left for _, left in _lefts(holders, books)]
    return max(0.0, min(bounds)) if bounds else None


def deadline_of(holders: Sequence[BudgetOwner]) -> float | None:
    """Return the seconds since the epoch after which a job must not run, or None."""
    deadlines = [holder.deadline for holder in holders if holder.deadline is not None]
    return min(deadlines, default=None)


def _lefts(holders: Sequence[BudgetOwner], books: TreeUsage) -> Iterator[tuple[BudgetOwner, float]]:
    bounding = [holder for holder in holders if holder.usd is not None]
    for holder in bounding:
        used = books.charged(holder.path) if holder is bounding[-1] else books.spent(holder.path)
        yield holder, (holder.usd or 0.0) - used


def _check_usd(holders: Sequence[BudgetOwner], books: TreeUsage, asked: float) -> None:
    for holder, left in _lefts(holders, books):
        if left <= CENT_FRACTION:
            raise BudgetError(kind=BudgetKind.USD, holder=holder.name, asked=asked, left=0.0, limit=holder.usd or 0.0)
    for holder, left in list(_lefts(holders, books))[-1:]:
        if asked > left + CENT_FRACTION:
            raise BudgetError(kind=BudgetKind.USD, holder=holder.name, asked=asked, left=left, limit=holder.usd or 0.0)


def _check_jobs(holders: Sequence[BudgetOwner], books: TreeUsage, asked: int) -> None:
    bounding = [(holder, holder.jobs) for holder in holders if holder.jobs is not None]
    for holder, limit in bounding:
        # Those further up have reserved what the nearest may have. But a job that is over reserves nothing: tried
        # again, it finds its share with its siblings.
        used = books.jobs(holder.path) if holder is bounding[-1][0] else books.present(holder.path)
        left = max(0, limit - used)
        if asked > left:
            raise BudgetError(kind=BudgetKind.JOBS, holder=holder.name, asked=asked, left=left, limit=limit)


def _check_time(holders: Sequence[BudgetOwner], asked: Sequence[float], now: float) -> None:
    latest = max(asked, default=now)
    for holder, deadline in [(holder, holder.deadline) for holder in holders if holder.deadline is not None]:
        if now >= deadline or latest > deadline:
            left = max(0.0, deadline - now)
            raise BudgetError(kind=BudgetKind.TIME, holder=holder.name, asked=latest - now, left=left, limit=deadline)


def _usd(amount: float) -> str:
    # Rounded down: a caller who asks for what is named must get it.
    return f"{math.floor(amount * 10_000 + CENT_FRACTION) / 10_000:.4f} USD"


def _of_tree(root_id: str, usd: float | None, deadline: float | None) -> BudgetOwner:
    return BudgetOwner(path=root_id, name=f"tree {root_id}", usd=usd, deadline=deadline)


def _usd_asked(specs: Sequence[JobSpec]) -> float:
    return sum(spec.max_budget_usd or 0.0 for spec in specs)


def _rooms_asked(specs: Sequence[JobSpec]) -> int:
    return sum(1 + (spec.max_jobs or 0) for spec in specs)


class Ledger:
    """Ledger of what has been spent, settled or not.

    The CLI's own total would not do: it is checked after a call, and what a killed process spent is missing in it (both
    measured on 2.1.330).

    Args:
        trees: The live trees, with what each subtree has cost; None for a ledger that knows of none.
    """

    def __init__(self, trees: LiveTrees | None = None) -> None:
        self._trees = trees or LiveTrees()

    def note(self, job: Job, attempt: int, cost_usd: float) -> bool:
        """Record what a running attempt has cost so far, and tell whether the sum changed.

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
            check(facts, self._trees)
            if facts.ancestors:
                self._trees.reserve(facts.submission.batch_id, reservation_of(facts))

    def release(self, batch_id: str) -> None:
        """Release the reservation of a spawn that was not written; do nothing for any other."""
        self._trees.release(batch_id)

    def holders(self, job: Job) -> Sequence[BudgetOwner]:
        """Return the owners of the budgets of a job, the tree first and the job itself last."""
        return budget_owners(self._trees.tree(job.root_id), self._trees.line(job))

    def remaining(self, job: Job) -> float | None:
        """Return the US dollars that a job may still spend, 0 at least, or None without a budget."""
        return remaining_for(self.holders(job), self._trees)

    def deadline(self, job: Job) -> float | None:
        """Return the seconds since the epoch after which a job must not run, or None."""
        return deadline_of(self.holders(job))

    def budget_exhausted(self, holders: Sequence[BudgetOwner]) -> BudgetOwner | None:
        """Return the first of these whose budget of US dollars is used up, or None."""
        for holder in holders:
            if holder.usd is not None and self._trees.spent(holder.path) >= holder.usd - CENT_FRACTION:
                return holder
        return None
