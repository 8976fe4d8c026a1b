"""Waits for jobs to end, and reports each end once."""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum

import anyio

from jobs.errors import BadInputError
from jobs.event_bus import JobEventBus, Subscription
from jobs.limits.throttle import Pause
from jobs.live_trees import BatchJobs
from jobs.model import TERMINAL, Job, JobStatus
from jobs.paused import PausedPath
from jobs.permissions.visibility import JobSelection
from jobs.waiting_for import FOR_JOBS, Wait

PROGRESS_SECONDS = 5.0
"""Between two progress reports; clients of the MCP SDKs give up on a call that is silent for 60 seconds."""

_HALF_WAY_SECONDS = 60.0
"""Seconds after which a wait in which no job ended shows half a job of progress."""

_CURSOR = re.compile(r"[0-9a-f]+", re.ASCII)

MOST_QUEUED = 5
"""Most queued jobs that a report or a progress names: all of them may be thousands."""

LEAST_PROGRESS_SECONDS = 1.0
"""Least time between two reports: a batch of hundreds must not flood its caller with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Progress of a wait.

    Args:
        over: Number of jobs that are over.
        running: Number of jobs that run.
        for_jobs: Number of queued jobs that wait for other jobs.
        total: Number of all jobs.
        seconds: Since the wait began.
        pauses: Why some of them wait.
        only: The job, where it is one.
        live: Jobs that run, and the first `MOST_QUEUED` of those that are queued.
    """

    over: int
    running: int
    total: int
    seconds: float
    for_jobs: int = 0
    pauses: Sequence[Pause | PausedPath] = ()
    only: Job | None = None
    live: Sequence[Job] = ()

    @property
    def value(self) -> float:
        """Return a number that grows with time and with every end, and is below the total while the wait lasts."""
        return self.over + self.seconds / (self.seconds + _HALF_WAY_SECONDS)


OnProgress = Callable[[Progress], Awaitable[None]]
"""Called at once and at least every `PROGRESS_SECONDS`."""

PausesOf = Callable[[Collection[str]], Sequence[Pause | PausedPath]]
"""Returns why jobs of some trees wait; the pause that ends first comes first."""


Aside = Callable[[], AbstractAsyncContextManager[None]]
"""Makes the context in which a waiter waits."""


class WaitMode(StrEnum):
    """Condition that ends a wait."""

    ALL = "all"
    """When every job is over."""
    ANY = "any"
    """When at least one job is over that the cursor has not seen."""
    FIRST_SUCCESS = "first_success"
    """When at least one job has completed that the cursor has not seen, or every job is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitReport:
    """Report of a wait.

    Args:
        done: Jobs that are over and that the cursor had not seen, in the order of the selection.
        pending: Number of jobs that are not over.
        total: Number of all jobs in the selection.
        cursor: Give it to the next wait on the same jobs.
        positions: Where in the selection each of `done` is.
        left: Number of jobs that are over and are in neither `done` nor the cursor.
        pauses: Why pending jobs wait for a time; the pause that ends first comes first.
        held: Why no pending job goes on, until a time or until a person does something; None where one may.
        live: Pending jobs that run, and the first `MOST_QUEUED` of those that are queued.
    """

    done: tuple[Job, ...]
    pending: int
    total: int
    cursor: str
    positions: tuple[int, ...] = ()
    left: int = 0
    pauses: Sequence[Pause | PausedPath] = ()
    held: Wait | None = None
    live: Sequence[Job] = ()

    @classmethod
    def of_all(cls, jobs: Sequence[Job]) -> "WaitReport":
        """Return the report of jobs of which each is over."""
        count = len(jobs)
        return cls(
            done=tuple(jobs), pending=0, total=count, cursor=f"{(1 << count) - 1:x}", positions=tuple(range(count))
        )

    def first(self, count: int) -> "WaitReport":
        """Return the report of the first jobs alone, whose cursor leaves the others to the next wait."""
        bits = int(self.cursor, 16)
        for position in self.positions[count:]:
            bits &= ~(1 << position)
        left = self.left + max(0, len(self.done) - count)
        return replace(self, done=self.done[:count], positions=self.positions[:count], cursor=f"{bits:x}", left=left)


class _Seen:
    """Which jobs of a selection have been reported: one bit a job in the selection's order, so nothing else is kept.

    A job that is found live has none, even if it was reported before: it is being retried and will end again.
    """

    def __init__(self, cursor: str | None) -> None:
        # `int` alone would take "-1" too, which says that every job has been reported.
        if cursor and not _CURSOR.fullmatch(cursor):
            raise BadInputError(
                "cursor", f"{cursor[:40]!r} is not a cursor", "Pass the cursor of the last reply, or leave it out."
            )
        self.bits = int(cursor, 16) if cursor else 0

    def has(self, position: int) -> bool:
        return bool(self.bits >> position & 1)

    def cursor(self, *, reported: Iterable[int], live: Iterable[int]) -> str:
        bits = self.bits
        for position in reported:
            bits |= 1 << position
        for position in live:
            bits &= ~(1 << position)
        return f"{bits:x}"


class Waiting:
    """Waits on selections of jobs.

    Args:
        event_bus: Where changes are announced.
        pauses_of: Tells why jobs wait.
        hold_of: Tells why neither a job nor anything below it goes on; None where it may.
    """

    def __init__(
        self,
        event_bus: JobEventBus,
        pauses_of: PausesOf = lambda _: (),
        hold_of: Callable[[Job], Wait | None] = lambda _: None,
    ) -> None:
        self._event_bus = event_bus
        self._pauses_of = pauses_of
        self._hold_of = hold_of

    async def wait(
        self,
        read: Callable[[], Awaitable[JobSelection]],
        *,
        mode: WaitMode,
        seconds: float,
        cursor: str | None = None,
        on_progress: OnProgress | None = None,
        while_waiting: Aside = nullcontext,
    ) -> WaitReport:
        """Wait until the mode is met or the seconds are over, and report the jobs that ended since the cursor.

        Args:
            read: Reads the selection from the store; called again once changes are being collected.
            mode: When the wait is over.
            seconds: Longest wait; at its end the report says what there is.
            cursor: From the last report on the same selection, or None to get every job that is over.
            on_progress: Told where the wait is, or None.
            while_waiting: Entered only where there is something to wait for: a waiting job gives its slot away, and a
                wait that is met already must not cost it the slot.

        Raises:
            BadInputError: The cursor is not one of ours.
        """
        seen = _Seen(cursor)
        selection = await read()
        live = _live(selection.jobs) if selection.batch is None else frozenset()
        with self._event_bus.subscribe(selection.root_ids, selection.membership()) as subscription:
            watch = _watch(await read(), seen, mode, live)
            if seconds > 0 and not watch.met():
                async with while_waiting():
                    with anyio.move_on_after(seconds):
                        await self._until_met(watch, selection.root_ids, subscription, on_progress)
        if selection.path is not None:
            # The changes of a growing subtree may come in another order than its rows, by which the cursor counts.
            watch = _Watch(await read(), seen, mode, watch.live)
        return replace(
            watch.report(),
            pauses=self._pauses(watch, selection.root_ids),
            held=self._held(watch.pending()),
            live=_live_ones(watch.pending()),
        )

    async def _until_met(
        self,
        watch: "_Watch | _BatchWatch",
        root_ids: Collection[str],
        subscription: Subscription,
        on_progress: OnProgress | None,
    ) -> None:
        began, due, told = anyio.current_time(), 0.0, -1
        while not watch.met():
            now = anyio.current_time()
            if on_progress is not None and now >= due:
                told = watch.over()
                await on_progress(self._progress(watch, root_ids, now - began))
                due = now + LEAST_PROGRESS_SECONDS
            untold = on_progress is not None and watch.over() != told
            pause = max(0.0, due - now) if untold else PROGRESS_SECONDS
            with anyio.move_on_after(pause):
                watch.note(await subscription.changes())

    def _progress(self, watch: "_Watch | _BatchWatch", root_ids: Collection[str], seconds: float) -> Progress:
        jobs = watch.jobs()
        return Progress(
            over=watch.over(),
            running=sum(job.status is JobStatus.RUNNING for job in jobs),
            for_jobs=sum(job.waiting_for in FOR_JOBS for job in jobs),
            total=len(jobs),
            seconds=seconds,
            pauses=self._pauses(watch, root_ids),
            live=_live_ones(watch.pending()),
            only=next(iter(jobs)) if len(jobs) == 1 else None,
        )

    def _pauses(self, watch: "_Watch | _BatchWatch", root_ids: Collection[str]) -> Sequence[Pause | PausedPath]:
        # Asked first: only a wait in a pause has to look at every pending job.
        if not self._pauses_of(root_ids):
            return ()
        paused: set[str] = set()
        for job in watch.pending():
            # A running job may wait for others that are all held.
            if job.root_id not in paused and (job.status is JobStatus.QUEUED or self._hold_of(job) is not None):
                paused.add(job.root_id)
        return self._pauses_of(paused)

    def _held(self, pending: Iterable[Job]) -> Wait | None:
        """Return the hold that ends first where each of some jobs is held; None where one may go on."""
        first: Wait | None = None
        for job in pending:
            # Mostly the first job answers this.
            if (hold := self._hold_of(job)) is None:
                return None
            first = hold if first is None else first.earlier(hold)
        return first


def _live_ones(pending: Iterable[Job]) -> Sequence[Job]:
    running: list[Job] = []
    queued: list[Job] = []
    for job in pending:
        if job.status is JobStatus.RUNNING:
            running.append(job)
        elif len(queued) < MOST_QUEUED:
            queued.append(job)
    return running + queued


def _watch(selection: JobSelection, seen: _Seen, mode: WaitMode, live: frozenset[str]) -> "_Watch | _BatchWatch":
    return _Watch(selection, seen, mode, live) if selection.batch is None else _BatchWatch(selection.batch, seen, mode)


class _BatchWatch:
    """The jobs of a live batch as the waiter knows them: bits, so that nothing grows with the batch but these.

    Args:
        jobs: The batch.
        seen: What has been reported.
        mode: When the wait is over.
    """

    live: frozenset[str] = frozenset()

    def __init__(self, jobs: BatchJobs, seen: _Seen, mode: WaitMode) -> None:
        self._jobs = jobs
        self._seen = seen.bits
        self._mode = mode
        self._live = jobs.open

    def note(self, news: Iterable[Job]) -> None:
        self._live |= self._jobs.open
        for job in news:
            # One that was tried again may be over again by now.
            if job.status not in TERMINAL:
                self._live |= self._jobs.bit(job.id)

    def over(self) -> int:
        return self._jobs.over.bit_count()

    def jobs(self) -> Collection[Job]:
        return self._jobs

    def met(self) -> bool:
        created = self._fresh()
        if not self._jobs.open:
            return True
        match self._mode:
            case WaitMode.ALL:
                return False
            case WaitMode.ANY:
                return bool(created)
            case WaitMode.FIRST_SUCCESS:
                return any(self._jobs[place].status is JobStatus.COMPLETED for place in _positions(created))

    def pending(self) -> Iterator[Job]:
        return (self._jobs[place] for place in _positions(self._jobs.open))

    def report(self) -> WaitReport:
        created, still_open = self._fresh(), self._jobs.open
        positions = tuple(_positions(created))
        return WaitReport(
            done=tuple(self._jobs[place] for place in positions),
            pending=still_open.bit_count(),
            total=len(self._jobs),
            positions=positions,
            cursor=f"{(self._seen | created) & ~still_open:x}",
        )

    def _fresh(self) -> int:
        return self._jobs.over & (self._live | ~self._seen)


def _positions(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


class _Watch:
    """The jobs of one selection as the waiter knows them.

    Args:
        selection: The jobs.
        seen: What has been reported.
        mode: When the wait is over.
        live: Ids of jobs that have been found live since this wait began.
    """

    def __init__(self, selection: JobSelection, seen: _Seen, mode: WaitMode, live: frozenset[str]) -> None:
        self._jobs = {job.id: job for job in selection.jobs}
        self._open = set(_live(selection.jobs))
        self.live = live | self._open
        self._seen = seen
        self._mode = mode

    def note(self, news: Iterable[Job]) -> None:
        known = len(self._jobs)
        for job in news:
            if not _outdated(job, self._jobs.get(job.id)):
                self._jobs[job.id] = job
                (self._open.discard if job.status in TERMINAL else self._open.add)(job.id)
        self.live |= self._open
        if len(self._jobs) > known:
            # Only a subtree grows, and the cursor counts its jobs in the order of their admission.
            self._jobs = {job.id: job for job in sorted(self._jobs.values(), key=lambda job: job.seq)}

    def over(self) -> int:
        return len(self._jobs) - len(self._open)

    def jobs(self) -> Collection[Job]:
        return self._jobs.values()

    def met(self) -> bool:
        if not self._open:
            return True
        match self._mode:
            case WaitMode.ALL:
                return False
            case WaitMode.ANY:
                return bool(self._fresh())
            case WaitMode.FIRST_SUCCESS:
                return any(job.status is JobStatus.COMPLETED for _, job in self._fresh())

    def pending(self) -> Iterator[Job]:
        return (self._jobs[job_id] for job_id in self._open)

    def report(self) -> WaitReport:
        created = self._fresh()
        return WaitReport(
            done=tuple(job for _, job in created),
            pending=len(self._open),
            total=len(self._jobs),
            positions=tuple(position for position, _ in created),
            cursor=self._seen.cursor(
                reported=(position for position, _ in created),
                live=(position for position, job_id in enumerate(self._jobs) if job_id in self._open),
            ),
        )

    def _fresh(self) -> list[tuple[int, Job]]:
        return [
            (position, job)
            for position, job in enumerate(self._jobs.values())
            if job.status in TERMINAL and (job.id in self.live or not self._seen.has(position))
        ]


def _live(jobs: Iterable[Job]) -> frozenset[str]:
    return frozenset(job.id for job in jobs if job.status not in TERMINAL)


def _outdated(news: Job, known: Job | None) -> bool:
    # A cancel announces what it found running, and the job may be over by then; the wait would never end.
    return (
        known is not None
        and known.status in TERMINAL
        and news.status is JobStatus.RUNNING
        and news.attempt <= known.attempt
    )


async def plain_wait(wait: Callable[[], Awaitable[WaitReport]], _: Callable[[], Awaitable[JobSelection]]) -> WaitReport:
    """Wait, and do nothing else meanwhile."""
    return await wait()
