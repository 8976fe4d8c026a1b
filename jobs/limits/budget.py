"""What is left of the budgets of a tree: dollars and jobs, reserved when a job is spawned, settled by what was used."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from jobs.errors import JobsError
from jobs.model import LIVE, Job, JobStatus, Tree
from jobs.ports import AdmissionFacts

CENT_FRACTION = 1e-9
"""Dollars below which a difference is one of floating point."""

LiveCosts = Mapping[tuple[str, int], float]
"""Job and number of its attempt to the US dollars that this attempt is known to have cost while it runs."""


class BudgetKind(StrEnum):
    """What a budget is of."""

    USD = "usd"
    JOBS = "jobs"
    TIME = "time"


class BudgetError(JobsError):
    """A budget has no room for a spawn; nothing was spawned.

    Args:
        kind: What the budget is of.
        holder: Whose it is, in words.
        asked: US dollars, jobs or seconds that were asked for; 0 dollars where the children name no budget.
        left: US dollars, jobs or seconds that are left.
        limit: The whole budget; for time the deadline in seconds since the epoch.
    """

    def __init__(self, *, kind: BudgetKind, holder: str, asked: float, left: float, limit: float) -> None:
        self.kind = kind
        self.holder = holder
        self.asked = asked
        self.left = left
        self.limit = limit
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        match self.kind:
            case BudgetKind.TIME if self.left:
                return (
                    f"subtreeSeconds: {self.asked:.0f} s is more than is left: {self.left:.0f} s of {self.holder}. "
                    "Leave subtreeSeconds out: what is left then holds for the new job too."
                )
            case BudgetKind.TIME:
                return f"The time of {self.holder} is over. Finish with what you have."
            case BudgetKind.JOBS if self.left:
                return (
                    f"{self.holder} may have {self.limit:.0f} jobs below it, {self.left:.0f} more; this asks for "
                    f"{self.asked:.0f}. Spawn at most {self.left:.0f}, or do the work in the present job."
                )
            case BudgetKind.JOBS:
                return (
                    f"{self.holder} may have {self.limit:.0f} jobs below it, and has them. Do the work in the "
                    "present job."
                )
            case BudgetKind.USD if self.left:
                return (
                    f"maxBudgetUsd: {_usd(self.asked)} in all is more than is left: {_usd(self.left)} of "
                    f"{_usd(self.limit)} of {self.holder}. Ask for at most that together, or leave maxBudgetUsd out: "
                    "the jobs then share what is left."
                )
            case _:
                return (
                    f"Nothing is left of the {_usd(self.limit)} of {self.holder}. Finish with what you have, without "
                    "spawning."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
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


def holders_of(tree: Tree | None, line: Sequence[Job]) -> list[Holder]:
    """Return who bounds a job, the tree first and the nearest job last.

    Args:
        tree: The tree.
        line: The job and its ancestors, or only these, the root first.
    """
    heads = [] if tree is None else [_of_tree(tree.id, tree.max_budget_usd, tree.deadline)]
    return heads + [
        Holder(
            path=job.path,
            name=f"job {job.id}",
            usd=job.spec.max_budget_usd,
            jobs=job.spec.max_jobs,
            deadline=job.spec.deadline,
        )
        for job in line
    ]


class Books:
    """What the subtrees of one tree have used, and what is reserved in them.

    A live subtree whose job has a budget counts with the whole of it, since its job may still use it; a subtree that
    is over counts with what it used.

    Args:
        kin: Every job of the tree, or of the subtree that is asked about.
        live: What running attempts have cost so far; an attempt that has been settled counts by its row.
    """

    def __init__(self, kin: Sequence[Job], live: LiveCosts) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._charged: defaultdict[str, float] = defaultdict(float)
        self._below: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        self._alive: set[str] = set()
        for job in sorted(kin, key=lambda each: each.depth, reverse=True):
            self._enter(job, _cost(job, live))

    def spent(self, path: str) -> float:
        """Return the US dollars that a subtree has cost."""
        return self._spent[path]

    def charged(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, and what the budgets inside it reserve beyond that."""
        return self._charged[path]

    def jobs(self, path: str) -> int:
        """Return how many jobs there are or may come below a path."""
        return self._below[path]

    def present(self, path: str) -> int:
        """Return how many jobs there are below a path."""
        return self._present[path]

    def _enter(self, job: Job, cost: float) -> None:
        path, above = job.path, job.path.rpartition("/")[0]
        self._spent[path] += cost
        self._charged[path] += cost
        alive = job.status in LIVE or path in self._alive
        if not above:
            return
        budget, room = job.spec.max_budget_usd or 0.0, job.spec.max_jobs or 0
        self._spent[above] += self._spent[path]
        self._charged[above] += max(self._charged[path], budget if alive else 0.0)
        self._present[above] += 1 + self._present[path]
        self._below[above] += 1 + max(self._below[path], room if alive else 0)
        if alive:
            self._alive.add(above)


def check(facts: AdmissionFacts, live: LiveCosts) -> None:
    """Refuse a spawn for which a budget above it has no room.

    The nearest budget must hold what is asked besides all that it has promised already; those further up have
    reserved that budget as a whole, so they only must not be used up, nor come to hold more jobs than they may.

    Raises:
        BudgetError: Naming what is asked, what is left and what to do.
    """
    submission = facts.submission
    if facts.tree is None:
        root = _of_tree(facts.spawn.tree_id or "", submission.max_budget_usd, submission.deadline)
        holders = [root]
    else:
        holders = holders_of(facts.tree, facts.above)
    books = Books(facts.kin, live)
    specs = [new.spec for new in submission.jobs]
    _check_time(holders, [spec.deadline for spec in specs if spec.deadline is not None], submission.at)
    _check_usd(holders, books, sum(spec.max_budget_usd or 0.0 for spec in specs))
    _check_jobs(holders, books, sum(1 + (spec.max_jobs or 0) for spec in specs))


def left_for(holders: Sequence[Holder], books: Books) -> float | None:
    """Return the US dollars that a job may still spend, 0 where nothing is left, or None where nobody bounds it.

    Args:
        holders: Who bounds it, itself included, the nearest last.
        books: Their tree's.
    """
    bounds = [left for _, left in _lefts(holders, books)]
    return max(0.0, min(bounds)) if bounds else None


def deadline_of(holders: Sequence[Holder]) -> float | None:
    """Return the seconds since the epoch after which a job must not run, or None."""
    deadlines = [holder.deadline for holder in holders if holder.deadline is not None]
    return min(deadlines, default=None)


def _lefts(holders: Sequence[Holder], books: Books) -> Iterator[tuple[Holder, float]]:
    bounding = [holder for holder in holders if holder.usd is not None]
    for holder in bounding:
        used = books.charged(holder.path) if holder is bounding[-1] else books.spent(holder.path)
        yield holder, (holder.usd or 0.0) - used


def _check_usd(holders: Sequence[Holder], books: Books, asked: float) -> None:
    for holder, left in _lefts(holders, books):
        if left <= CENT_FRACTION:
            raise BudgetError(kind=BudgetKind.USD, holder=holder.name, asked=asked, left=0.0, limit=holder.usd or 0.0)
    for holder, left in list(_lefts(holders, books))[-1:]:
        if asked > left + CENT_FRACTION:
            raise BudgetError(kind=BudgetKind.USD, holder=holder.name, asked=asked, left=left, limit=holder.usd or 0.0)


def _check_jobs(holders: Sequence[Holder], books: Books, asked: int) -> None:
    bounding = [(holder, holder.jobs) for holder in holders if holder.jobs is not None]
    for holder, limit in bounding:
        # Those further up have reserved what the nearest may have. But a job that is over reserves nothing: tried
        # again, it finds its share with its siblings.
        used = books.jobs(holder.path) if holder is bounding[-1][0] else books.present(holder.path)
        left = max(0, limit - used)
        if asked > left:
            raise BudgetError(kind=BudgetKind.JOBS, holder=holder.name, asked=asked, left=left, limit=limit)


def _check_time(holders: Sequence[Holder], asked: Sequence[float], now: float) -> None:
    latest = max(asked, default=now)
    for holder, deadline in [(holder, holder.deadline) for holder in holders if holder.deadline is not None]:
        if now >= deadline or latest > deadline:
            left = max(0.0, deadline - now)
            raise BudgetError(kind=BudgetKind.TIME, holder=holder.name, asked=latest - now, left=left, limit=deadline)


def _usd(amount: float) -> str:
    # Rounded down: a caller who asks for what is named must get it.
    return f"{math.floor(amount * 10_000 + CENT_FRACTION) / 10_000:.4f} USD"


def _of_tree(root_id: str, usd: float | None, deadline: float | None) -> Holder:
    return Holder(path=root_id, name=f"tree {root_id}", usd=usd, deadline=deadline)


def _cost(job: Job, live: LiveCosts) -> float:
    running = live.get((job.id, job.attempt), 0.0) if job.status is JobStatus.RUNNING else 0.0
    return math.fsum((job.usage.cost_usd, running))
