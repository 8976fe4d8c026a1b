"""RecursionManager: admits spawns by limits and budgets, and gives out slots; large batches are queued in waves."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from jobs.limits.account_budgets import AccountBudgets, AccountFigures
from jobs.limits.budget import Ledger
from jobs.limits.throttle import Pause, Throttle
from jobs.model import TERMINAL, Job, JobStatus, Outcome, Reason
from jobs.paused import PausedPath, PausedPaths
from jobs.ports import Admission, AdmissionFacts, Store, Submission
from jobs.scheduler import Scheduler
from jobs.util.keyed import KeyedLock
from jobs.waiting_for import Wait, WaitingFor
from orchestration.limits import TreeLimits

FIRST = 16
"""Jobs of the first wave; each further one has twice as many. LangGraph prepares all jobs of a wave before it starts
the first of them, 0.25 ms each, and a wave costs it 2.5 ms (measured)."""

WAVE = 250
"""Jobs of a batch that are queued together, at most. A queued job takes about 20 kB, LangGraph's share
included: with 10,000 queued the engine had 359 MB, with 10,000 in waves of 250 it had 147 MB
(`tests/benchmarks/bench_scale.py`)."""

Enter = Callable[[Sequence[Job]], Coroutine[Any, Any, None]]
"""Runs some jobs of a batch to their ends."""


@dataclass(eq=False)
class _WaveProgress:
    """The jobs of one batch that are queued for a slot, and those that wait for their wave."""

    waiting: Sequence[Job]
    queued: dict[str, Job] = field(default_factory=dict)
    moved: anyio.Event = field(default_factory=anyio.Event)


class Waves:
    """Runs batches, a large one in waves: the next wave is queued when half of the one before it has left the queue.

    A paused job waits for its wave until it is resumed, and one that was queued before the pause keeps no others from
    theirs.

    Args:
        pauses: What is paused.
        read: Returns jobs as they are now.
    """

    def __init__(self, pauses: PausedPaths, read: Callable[[Sequence[str]], Awaitable[Sequence[Job]]]) -> None:
        self._pauses = pauses
        self._read = read
        self._progress_of: dict[str, _WaveProgress] = {}
        self._running: set[_WaveProgress] = set()
        self._held_back: Counter[str] = Counter()

    @property
    def held_back(self) -> Mapping[str, int]:
        """How many jobs of each tree wait for their wave."""
        return self._held_back

    async def run_in_waves(
        self, jobs: Sequence[Job], enter: Enter, seconds_left: Callable[[], float] = lambda: math.inf
    ) -> None:
        """Run the jobs of a batch to their ends.

        A batch in which one job waits for another is queued as a whole: the other one may be anywhere in it. So
        is one whose jobs have different deadlines, which are enforced in the queue.

        Args:
            jobs: In the order in which they are queued; those that run already come first.
            enter: Runs a wave.
            seconds_left: Returns the seconds until the deadline of the jobs, which is kept in the queue: then paused
                ones enter too.
        """
        if len(jobs) <= FIRST or not _alike(jobs):
            await enter(jobs)
            return
        progress = _WaveProgress(sorted(jobs, key=lambda job: job.status is not JobStatus.RUNNING))
        root_id, size = jobs[0].root_id, FIRST
        self._held_back[root_id] += len(jobs)
        self._running.add(progress)
        try:
            async with anyio.create_task_group() as group:
                room, last = True, 0
                while progress.waiting:
                    left = seconds_left()
                    if not room or not (wave := await self._next_wave(progress, size, late=left <= 0)):
                        with anyio.move_on_after(left if left > 0 else math.inf):
                            await progress.moved.wait()
                        progress.moved = anyio.Event()
                    else:
                        self._held_back[root_id] -= len(wave)
                        progress.queued.update((job.id, job) for job in wave)
                        self._progress_of.update((job.id, progress) for job in wave)
                        group.start_soon(enter, wave)
                        last, size = len(wave), min(2 * size, WAVE)
                    room = self._unpaused(progress.queued) <= last // 2
        finally:
            self._running.discard(progress)
            self._held_back[root_id] -= len(progress.waiting)
            if not self._held_back[root_id]:
                del self._held_back[root_id]

    def recheck(self) -> None:
        """Look again which jobs may enter: something was paused or resumed, or jobs that are paused were cancelled."""
        for progress in self._running:
            progress.moved.set()

    async def _next_wave(self, progress: _WaveProgress, size: int, *, late: bool) -> Sequence[Job]:
        """Take at most so many of the waiting jobs that are not paused, in order; those that are over come too."""
        waiting = progress.waiting
        if late or self._pauses.is_empty:
            progress.waiting = waiting[size:]
            return waiting[:size]
        now = await self._read([job.id for job in waiting])
        free = [job for job in now if job.status is not JobStatus.QUEUED or not self._pauses.holds(job.path)][:size]
        taken = {job.id for job in free}
        progress.waiting = [job for job in waiting if job.id not in taken]
        return free

    def _unpaused(self, queued: Mapping[str, Job]) -> int:
        if self._pauses.is_empty:
            return len(queued)
        return sum(not self._pauses.holds(job.path) for job in queued.values())

    def left_queue(self, job_id: str) -> None:
        """Note that a job has left the queue and been launched, or that it never will be."""
        progress = self._progress_of.pop(job_id, None)
        if progress is not None:
            del progress.queued[job_id]
            progress.moved.set()


def _alike(jobs: Sequence[Job]) -> bool:
    return not any(job.spec.depends_on for job in jobs) and len({job.spec.deadline for job in jobs}) == 1


TIMER_SLACK = 0.05
"""Seconds by which the loop's timers may run ahead of the wall clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecursionStatistics:
    """The limits, and how much of them is in use.

    Args:
        limits: The totals and slots of a tree.
        live_by_depth: Depth to the number of jobs that are queued or running there, all trees together.
        live_by_root: Tree to the number of its jobs that are queued or running.
        running: Jobs that hold a slot of the machine.
        waiting: Jobs that are queued for one.
        window: How many of the most limited account may run at once by the API's limits, or None without a throttle.
        pauses: Why jobs wait that could run otherwise, until when, and how many; the one that ends first comes first.
        spending: What each account has spent, the one that spent most first.
    """

    limits: TreeLimits
    live_by_depth: dict[int, int]
    live_by_root: dict[str, int]
    running: int
    waiting: int
    window: int | None = None
    pauses: Sequence[Pause | PausedPath] = ()
    spending: Sequence[AccountFigures] = ()


class RecursionManager:
    """Admits spawns by the totals and the budgets of a tree and lets jobs run by its slots.

    They are counted in the store, inside the transaction that writes the new jobs, so that no two spawns can pass one
    limit together and none is forgotten when the engine restarts.

    Args:
        limits: The rules.
        store: Where trees are kept.
        scheduler: The queue for slots.
        ledger: The ledger of the budgets; None takes an empty one.
        throttle: Knows whether launches are paused; None where they never are.
        look_up: Looks up which account a tree uses; None where accounts do not matter.
        pauses: What a person or a job has paused; None where nothing ever is.
        account_budgets: Refuses spawns of accounts that have used up a budget; None where there are none.

    Attributes:
        turns: Lets one spawn of a job at a time through. A job that sends a thousand spawns at once then has one of
            them in work, and a request for a status comes between two of them, not after all.
        waves: Runs large batches in parts.
        account_budgets: As it was given.
    """

    def __init__(
        self,
        limits: TreeLimits,
        store: Store,
        scheduler: Scheduler,
        *,
        ledger: Ledger | None = None,
        throttle: Throttle | None = None,
        look_up: Callable[[str], Awaitable[None]] | None = None,
        pauses: PausedPaths | None = None,
        account_budgets: AccountBudgets | None = None,
    ) -> None:
        self.account_budgets = account_budgets
        self.limits = limits
        self._store = store
        self.scheduler = scheduler
        self.ledger = ledger or Ledger()
        self._throttle = throttle
        self._look_up = look_up
        self.turns = KeyedLock()
        self.paused_paths = pauses or PausedPaths()
        self.waves = Waves(self.paused_paths, store.jobs)

    def spending(self) -> Sequence[AccountFigures]:
        """Return what each account has spent today and this month, the one that spent most first."""
        return () if self.account_budgets is None else self.account_budgets.figures()

    def pauses(self, root_ids: Collection[str] | None = None) -> Sequence[Pause]:
        """Return the pause of the machine, or of each account that has one; the one that ends first comes first.

        Args:
            root_ids: Only of accounts for which jobs of these trees are queued; None for all.
        """
        if self._throttle is None:
            return ()
        if (pause := self._throttle.machine.pause) is not None:
            return (replace(pause, waiting=self._waiting()),)
        found = self._throttle.pauses()
        if root_ids is not None and found:
            queued_accounts = {self.scheduler.queued_account(root_id) for root_id in root_ids}
            found = {account: pause for account, pause in found.items() if account in queued_accounts}
        counted = [replace(pause, waiting=self._waiting(account)) for account, pause in found.items()]
        return sorted(counted, key=lambda pause: pause.until)

    def all_pauses(self, root_ids: Collection[str] | None = None) -> Sequence[Pause | PausedPath]:
        """Return what `pauses` does, and after it what a person or a job has paused in these trees: for a reader."""
        return (*self.pauses(root_ids), *self.paused_paths.live(root_ids))

    def wait_of(self, job: Job) -> Wait | None:
        """Return what a live job waits for, or None where it works or is over. Every reader asks here."""
        if job.status in TERMINAL:
            return None
        if job.status is JobStatus.QUEUED and (pause := self.paused_paths.outermost(job.path)) is not None:
            return Wait(what=WaitingFor.PAUSE, because=pause.words_for(job.path))
        if job.waiting_for is not None:
            return Wait(what=job.waiting_for)
        if job.status is JobStatus.RUNNING:
            return Wait(what=WaitingFor.CHILDREN) if self.scheduler.is_parked(job.id) else None
        if self._throttle is None:
            return Wait(what=WaitingFor.SLOT)
        account = self.scheduler.account_of_tree(job.root_id)
        running = self.scheduler.running()
        return self._throttle.held_back_by(account, running=running, of_account=self.scheduler.running(account))

    async def pause_ahead(self, jobs: Sequence[Job]) -> Pause | PausedPath | None:
        """Return the pause for which the first of these jobs waits, or None; how many wait it does not say.

        Args:
            jobs: Jobs of one tree that have just been queued.
        """
        if not jobs or jobs[0].status is not JobStatus.QUEUED:
            return None
        if self.paused_paths.holds(jobs[0].path):
            return self.paused_paths.outermost(jobs[0].path)
        if self._throttle is None or self._look_up is None:
            return None
        # Only in a pause: nothing else waits for the account to be looked up.
        if self._throttle.machine.pause is None and not self._throttle.pauses():
            return None
        root_id = jobs[0].root_id
        await self._look_up(root_id)
        return self._throttle.pause_of(self.scheduler.account_of_tree(root_id))

    def _waiting(self, account: str | None = None) -> int:
        """Return how many jobs are queued or wait for their wave; of an account, or of all."""
        held_back = self.waves.held_back.items()
        others = (jobs for root_id, jobs in held_back if account in {None, self.scheduler.queued_account(root_id)})
        return self.scheduler.waiting(account) + sum(others)

    async def admit(self, submission: Submission) -> Admission:
        """Write the jobs of a submission, or refuse all of them.

        Raises:
            RecursionLimitError: A total of the tree would be exceeded; nothing was written.
            BudgetError: A budget above has no room; nothing was written.
            AccountBudgetError: The account has used up its budget of today or of this month; nothing was written.
            NotFoundError: Unknown parent.
            TreeClosedError: The parent is over or being cancelled.
        """
        budgets = self.account_budgets
        account = None if budgets is None or not budgets.are_set else await self._account_of(submission)

        def check(facts: AdmissionFacts) -> None:
            # On the store's thread, inside the transaction.
            self.limits.check(facts.spawn)
            if budgets is not None and account is not None:
                budgets.check(account)
            self.ledger.reserve(facts)

        try:
            return await self._store.admit(submission, check)
        finally:
            self.ledger.release(submission.batch_id)

    async def _account_of(self, submission: Submission) -> str:
        parent = None if submission.parent_id is None else await self._store.job(submission.parent_id)
        root_id = submission.new_tree.id if parent is None else parent.root_id
        if self._look_up is not None:
            await self._look_up(root_id)
        return self.scheduler.account_of_tree(root_id)

    async def run_batch(self, jobs: Sequence[Job], enter: Enter, now: Callable[[], float] = lambda: 0.0) -> None:
        """Run the jobs of a batch to their ends, as `Waves.run_in_waves` does.

        Args:
            jobs: The jobs.
            enter: Runs a wave.
            now: Returns the seconds since the epoch.
        """
        if self._look_up is not None:
            # Before any of them is queued: a wait between two of them would change their order.
            await self._look_up(jobs[0].root_id)
        deadline = self.ledger.deadline(jobs[0])
        await self.waves.run_in_waves(jobs, enter, lambda: math.inf if deadline is None else deadline - now())

    @asynccontextmanager
    async def slot(self, job: Job, *, deadline: float | None = None, now: float = 0.0) -> AsyncIterator[bool]:
        """Hold a slot of the job's depth and of the machine; False where the job was withdrawn from the queue.

        Args:
            job: The job.
            deadline: Seconds since the epoch until which it may be queued, or None for ever.
            now: Seconds since the epoch.
        """
        if deadline is None or job.status is JobStatus.RUNNING:
            async with self.scheduler.slot(job) as granted:
                yield granted
        elif now >= deadline:
            yield False
        else:
            timer = asyncio.get_running_loop().call_later(deadline - now, self.scheduler.withdraw, job.id)
            try:
                async with self.scheduler.slot(job) as granted:
                    yield granted
            finally:
                timer.cancel()

    async def expire(self, job: Job, deadline: float | None, *, at: float) -> Job | None:
        """Fail a job that still waits and whose deadline has passed; None where it is otherwise.

        Args:
            job: The job.
            deadline: Seconds since the epoch, or None.
            at: Seconds since the epoch.
        """
        # A timer and the wall clock may differ by the time of one tick.
        if deadline is None or at < deadline - TIMER_SLACK:
            return None
        said = "The time of its tree, or of a job above it, was over before it could start."
        outcome = Outcome(reason=Reason.DEADLINE, status=JobStatus.FAILED, detail=said)
        return await self._store.fail_queued(job.id, outcome, at=at)

    async def has_work(self) -> bool:
        """Tell whether a live job can go on without somebody who resumes it first."""
        return any(
            job.status is JobStatus.RUNNING or not self.paused_paths.holds(job.path)
            for job in await self._store.unfinished()
        )

    async def has_ends(self) -> bool:
        """Tell whether a job still runs that was cancelled, or that a pause ends."""
        return any(
            job.status is JobStatus.RUNNING and (job.cancel_requested or self.paused_paths.ends(job.path))
            for job in await self._store.unfinished()
        )

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
            running=self.scheduler.running(),
            waiting=self._waiting(),
            window=self._throttle.window if self._throttle else None,
            pauses=self.all_pauses(),
            spending=self.spending(),
        )
