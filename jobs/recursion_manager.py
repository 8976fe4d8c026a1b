"""The one authority on what may be spawned and what may run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from jobs.model import Job
from jobs.ports import Admission, AdmissionFacts, Store, Submission
from jobs.scheduler import Scheduler
from orchestration.limits import TreeLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class RecursionStatistics:
    """The limits, and how much of them is in use.

    Args:
        limits: The totals and slots of a tree.
        live_by_depth: Depth to the number of jobs that are queued or running there, all trees together.
        live_by_root: Tree to the number of its jobs that are queued or running.
        running: Jobs that hold a slot of the machine.
        waiting: Jobs that stand in line for one.
    """

    limits: TreeLimits
    live_by_depth: dict[int, int]
    live_by_root: dict[str, int]
    running: int
    waiting: int


class RecursionManager:
    """Admits spawns by the totals of a tree and lets jobs run by its slots.

    Totals are counted in the store, inside the transaction that writes the new jobs, so that no two spawns can pass one
    limit together and none is forgotten when the engine restarts.

    Args:
        limits: The rules.
        store: Where trees are kept.
        scheduler: The line in front of the slots.
    """

    def __init__(self, limits: TreeLimits, store: Store, scheduler: Scheduler) -> None:
        self.limits = limits
        self._store = store
        self._scheduler = scheduler

    async def admit(self, submission: Submission) -> Admission:
        """Write the jobs of a submission, or refuse all of them.

        Raises:
            RecursionLimitError: A total of the tree would be exceeded; nothing was written.
            NotFoundError: Unknown parent.
            TreeClosedError: The parent is over or being cancelled.
        """
        return await self._store.admit(submission, self._check)

    @asynccontextmanager
    async def slot(self, job: Job) -> AsyncIterator[bool]:
        """Hold a slot of the job's depth and of the machine; False where it was withdrawn from the line."""
        async with self._scheduler.slot(job) as granted:
            yield granted

    @asynccontextmanager
    async def parked(self, job_id: str) -> AsyncIterator[None]:
        """Give a job's machine slot to others while it waits for its own descendants."""
        async with self._scheduler.parked(job_id):
            yield

    def _check(self, facts: AdmissionFacts) -> None:
        self.limits.check(facts.spawn)

    def withdraw(self, job_id: str) -> None:
        """Take a job out of the line."""
        self._scheduler.withdraw(job_id)

    async def statistics(self) -> RecursionStatistics:
        """Return the limits and how much of them is in use."""
        by_depth: dict[int, int] = {}
        by_root: dict[str, int] = {}
        for job in await self._store.unfinished():
            by_depth[job.depth] = by_depth.get(job.depth, 0) + 1
            by_root[job.root_id] = by_root.get(job.root_id, 0) + 1
        return RecursionStatistics(
            limits=self.limits,
            live_by_depth=by_depth,
            live_by_root=by_root,
            running=self._scheduler.running(),
            waiting=self._scheduler.waiting(),
        )
