"""Budgets of a tree: reserved when a job is spawned, settled by what was used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobs.errors import JobsError
from jobs.live_trees import LiveTrees, Reservation
from jobs.model import Job, Tree, Usage
from jobs.ports import AdmissionFacts
from jobs.spending import Spending

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
        owner: Whose it is, in words.
        asked: US dollars, jobs or seconds that were asked for; 0 dollars where the children name no budget.
        remaining: US dollars, jobs or seconds that are left.
        limit: The whole budget; for time the deadline in seconds since the epoch.
    """

    def __init__(self, *, kind: BudgetKind, owner: str, asked: float, left: float, limit: float) -> None:
        self.kind = kind
        self.owner = owner
        self.asked = asked
        self.remaining = left
        self.limit = limit
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        match self.kind:
            case BudgetKind.TIME if self.remaining:
                return (
                    f"subtreeSeconds: {self.asked:.0f} s is more than is left: {self.remaining:.0f} s of "
                    f"{self.owner}. "
                    "Leave subtreeSeconds out: what is left then holds for the new job too."
                )
            case BudgetKind.TIME:
                return f"The time of {self.owner} is over. Finish with what you have."
            case BudgetKind.JOBS if self.remaining:
                return (
                    f"{self.owner} may have {self.limit:.0f} jobs below it, {self.remaining:.0f} more; this asks for "
                    f"{self.asked:.0f}. Spawn at most {self.remaining:.0f}, or do the work in the current job."
                )
            case BudgetKind.JOBS:
                return (
                    f"{self.owner} may have {self.limit:.0f} jobs below it, and has that many. "
                    "Do the work in the current job."
                )
            case BudgetKind.USD if self.remaining:
                return (
                    f"maxBudgetUsd: {_usd(self.asked)} in all is more than is left: {_usd(self.remaining)} of "
                    f"{_usd(self.limit)} of {self.owner}. Ask for at most that together, or leave maxBudgetUsd out: "
                    "the jobs then share what is left."
                )
            case _:
                return (
                    f"Nothing is left of the {_usd(self.limit)} of {self.owner}. Finish with what you have, without "
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
    owners = []
    if tree is not None:
        owners = [
            BudgetOwner(
                path=tree.id,
                name=f"tree {tree.id}",
                usd=tree.max_budget_usd,
                jobs=tree.max_jobs,
                deadline=tree.deadline,
            )
        ]
    return owners + [
        BudgetOwner(
            path=job.path,
            name=f"job {job.id}",
            usd=job.spec.max_budget_usd,
            jobs=job.spec.max_jobs,
            deadline=job.spec.deadline,
        )
        for job in line
    ]


def check(facts: AdmissionFacts, trees: LiveTrees) -> Reservation:
    """Refuse a spawn for which a budget above it has no room, and return what it takes of these budgets otherwise.

    The nearest budget must have room for what is asked besides all that it has promised; those further up have
    reserved that budget as a whole, so they only must not be used up, nor get more jobs than they may have.

    Raises:
        BudgetError: Naming what is asked, what is left and what to do.
    """
    submission, owners = facts.submission, budget_owners(facts.tree, facts.ancestors)
    specs = [new.spec for new in submission.jobs]
    usd = sum(spec.max_budget_usd or 0.0 for spec in specs)
    rooms = sum(1 + (spec.max_jobs or 0) for spec in specs)
    deadlines = [spec.deadline for spec in specs if spec.deadline is not None]
    _check_time(owners, max(deadlines, default=submission.at), submission.at)
    _check_usd(owners, trees, usd)
    _check_jobs(owners, trees, rooms)
    return Reservation(
        path=owners[-1].path,
        usd_owner=next((owner.path for owner in reversed(owners) if owner.usd is not None), None),
        usd=usd,
        jobs_owner=next((owner.path for owner in reversed(owners) if owner.jobs is not None), None),
        rooms=rooms,
        count=len(specs),
    )


def remaining_for(owners: Sequence[BudgetOwner], trees: LiveTrees) -> float | None:
    """Return the US dollars that a job may still spend, 0 where nothing is left, or None without a budget.

    Args:
        owners: The owners of its budgets, itself included, the nearest last.
        trees: The live trees.
    """
    bounds = [left for _, left in _lefts(owners, trees)]
    return max(0.0, min(bounds)) if bounds else None


def deadline_of(owners: Sequence[BudgetOwner]) -> float | None:
    """Return the seconds since the epoch after which a job must not run, or None."""
    deadlines = [owner.deadline for owner in owners if owner.deadline is not None]
    return min(deadlines, default=None)


def _lefts(owners: Sequence[BudgetOwner], trees: LiveTrees) -> list[tuple[BudgetOwner, float]]:
    """Return the US dollars that each owner has left; of the nearest one, without what it has promised."""
    bounding = [owner for owner in owners if owner.usd is not None]
    used = [trees.spent(owner.path) for owner in bounding[:-1]] + [trees.charged(owner.path) for owner in bounding[-1:]]
    return [(owner, (owner.usd or 0.0) - spent) for owner, spent in zip(bounding, used, strict=True)]


def _check_usd(owners: Sequence[BudgetOwner], trees: LiveTrees, asked: float) -> None:
    lefts = _lefts(owners, trees)
    for owner, remaining in lefts:
        left = remaining if remaining > CENT_FRACTION else 0.0
        if not left or (owner is lefts[-1][0] and asked > left + CENT_FRACTION):
            raise BudgetError(kind=BudgetKind.USD, owner=owner.name, asked=asked, left=left, limit=owner.usd or 0.0)


def _check_jobs(owners: Sequence[BudgetOwner], trees: LiveTrees, asked: int) -> None:
    bounding = [(owner, owner.jobs) for owner in owners if owner.jobs is not None]
    for owner, limit in bounding:
        # Those further up have reserved what the nearest may have. But a job that is over reserves nothing: tried
        # again, it finds its share with its siblings.
        used = trees.jobs(owner.path) if owner is bounding[-1][0] else trees.present(owner.path)
        left = max(0, limit - used)
        if asked > left:
            raise BudgetError(kind=BudgetKind.JOBS, owner=owner.name, asked=asked, left=left, limit=limit)


def _check_time(owners: Sequence[BudgetOwner], latest: float, now: float) -> None:
    for owner, deadline in [(owner, owner.deadline) for owner in owners if owner.deadline is not None]:
        if now >= deadline or latest > deadline:
            left = max(0.0, deadline - now)
            raise BudgetError(kind=BudgetKind.TIME, owner=owner.name, asked=latest - now, left=left, limit=deadline)


def _usd(amount: float) -> str:
    # Rounded down: a caller who asks for what is named must get it.
    return f"{math.floor(amount * 10_000 + CENT_FRACTION) / 10_000:.4f} USD"


class Ledger:
    """Ledger of what has been spent, settled or not.

    The CLI's own total would not do: it is checked after a call, and what a killed process spent is missing in it (both
    measured on 2.1.330).

    Args:
        trees: The live trees, with what each subtree has cost; None for a ledger that knows of none.
        spending: What each account spends; None where nobody asks.
    """

    def __init__(self, trees: LiveTrees | None = None, spending: Spending | None = None) -> None:
        self._trees = trees or LiveTrees()
        self._spending = spending or Spending()

    def note(self, job: Job, attempt: int, usage: Usage, account: str = "") -> bool:
        """Record what a running attempt has consumed so far, and tell whether that changed.

        Args:
            job: The job.
            attempt: The attempt's number.
            usage: What it has consumed.
            account: The account that pays.
        """
        changed = self._trees.note_usage(job.id, attempt, usage)
        if changed:
            self._spending.note(account, job.id, usage.cost_usd)
        return changed

    def reserve(self, facts: AdmissionFacts) -> None:
        """Refuse a spawn for which a budget above has no room, or hold what it takes until it is written or released.

        Called on the store's thread, inside the transaction that writes the new jobs, and again where that transaction
        has to start again. A reservation of an earlier call is dropped first.

        Raises:
            BudgetError: Naming what is asked, what is left and what to do.
        """
        batch_id = facts.submission.batch_id
        with self._trees.lock:
            self._trees.reserve(batch_id, None)
            reservation = check(facts, self._trees)
            if facts.ancestors:
                self._trees.reserve(batch_id, reservation)

    def release(self, batch_id: str) -> None:
        """Release the reservation of a spawn that was not written; do nothing for any other."""
        with self._trees.lock:
            self._trees.reserve(batch_id, None)

    def owners(self, job: Job) -> Sequence[BudgetOwner]:
        """Return the owners of the budgets of a job, the tree first and the job itself last."""
        return budget_owners(self._trees.tree(job.root_id), self._trees.ancestry(job))

    def remaining(self, job: Job) -> float | None:
        """Return the US dollars that a job may still spend, 0 at least, or None without a budget."""
        return remaining_for(self.owners(job), self._trees)

    def deadline(self, job: Job) -> float | None:
        """Return the seconds since the epoch after which a job must not run, or None."""
        return deadline_of(self.owners(job))

    def spent(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, running attempts included; 0 where it is not in memory."""
        return self._trees.spent(path)

    def budget_exhausted(self, owners: Sequence[BudgetOwner]) -> BudgetOwner | None:
        """Return the first of these whose budget of US dollars is used up, or None."""
        for owner in owners:
            if owner.usd is not None and self._trees.spent(owner.path) >= owner.usd - CENT_FRACTION:
                return owner
        return None
