"""Pauses and resumes jobs, trees, or everything, on the order of a person or of a job above them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import anyio
from anyio.lowlevel import checkpoint

from jobs.errors import BadInputError
from jobs.event_bus import JobEventBus, PauseChange
from jobs.model import LIVE, Job, JobStatus
from jobs.paused import EVERYTHING, PausedPath
from jobs.ports import Clock, Runner
from jobs.recursion_manager import RecursionManager
from jobs.store.live import LiveStore

_AT_ONCE = 100
"""Jobs that are announced before others of the engine have their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseResult:
    """Result of a pause.

    Args:
        since: Seconds since the epoch at which it began: earlier than now where it was paused already.
        queued: Number of jobs that wait there.
        running: Number of jobs that run there: they go on to their ends, or are being ended and queued again.
        ends_running: They are being ended.
        was_paused: It was paused already, by itself or with something above it, and nothing changed.
    """

    since: float
    queued: int
    running: int
    ends_running: bool
    was_paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeResult:
    """Result of a resume.

    Args:
        lifted: The pauses that ended.
        queued: Number of queued jobs there that may start now.
        root_ids: Their trees.
        still: The outermost pause that holds for what was named, or None.
        persons: Whether a person's pause below was left to a person: a job asked.
    """

    lifted: Sequence[PausedPath]
    queued: int
    root_ids: Collection[str]
    still: PausedPath | None
    persons: bool


class PauseService:
    """Pauses and resumes parts of the trees.

    Args:
        store: Where trees and pauses are kept.
        recursion: Knows the queue.
        runner: Ends what runs.
        event_bus: Where pauses are announced.
        clock: Time.
    """

    def __init__(
        self,
        *,
        store: LiveStore,
        recursion: RecursionManager,
        runner: Runner,
        event_bus: JobEventBus,
        clock: Clock,
    ) -> None:
        self._store = store
        self._recursion = recursion
        self._runner = runner
        self._event_bus = event_bus
        self._clock = clock
        self._turn = anyio.Lock()

    async def pause(self, paths: Sequence[str], *, now: bool = False, by_job: str | None = None) -> PauseResult:
        """Let no job at or below some paths start before they are resumed; durable once this returns.

        Args:
            paths: Paths of jobs or trees, or `EVERYTHING` alone.
            now: End what runs there, and queue it again with its session.
            by_job: The job that asks, or None for a person or a program.

        Raises:
            BadInputError: All of it is over.
            StoreError: It cannot be written down; nothing changed.
        """
        async with self._turn:
            # A request that is cancelled half-way must not leave a pause on disk that the queue does not know.
            with anyio.CancelScope(shield=True):
                result = await self._pause(paths, now=now, by_job=by_job)
        return result

    async def resume(self, paths: Sequence[str], *, by_job: str | None = None) -> ResumeResult:
        """End the pauses of some paths and of everything below them; jobs go on in the order in which they came.

        Args:
            paths: As for a pause.
            by_job: The job that asks, which ends no pause of a person's; None for a person or a program.

        Raises:
            StoreError: It cannot be written down; nothing changed.
        """
        async with self._turn:
            with anyio.CancelScope(shield=True):
                result = await self._resume(paths, by_job=by_job)
        return result

    async def _pause(self, paths: Sequence[str], *, now: bool, by_job: str | None) -> PauseResult:
        if paths != [EVERYTHING] and not any(map(self._store.trees.lives, paths)):
            name = paths[0].rpartition("/")[2]
            remedy = f"Call claude_status with jobId {name!r} for its end."
            raise BadInputError("jobId", "it is over, so there is nothing to pause", remedy)
        index, at = self._store.paused_paths, self._clock.now()
        # A path below a paused one gets a pause of its own only where that is stricter.
        new = [path for path in paths if not self._is_paused(path, now=now, by_job=by_job)]
        rows = [PausedPath(path=path, since=at, by_job=by_job, ends_running=now) for path in new]
        written = await self._store.pause(rows) if rows else ()
        jobs = await self._jobs(paths)
        if written:
            self._sort(written)
            self._event_bus.announce_pause(PauseChange(began=True, pauses=tuple(written)))
        running = [job for job in jobs if job.status is JobStatus.RUNNING]
        if now:
            self._runner.end_paused()
        queued = [job for job in jobs if job.status is JobStatus.QUEUED]
        if written:
            await self._publish(queued)
        holding = [row for path in paths for row in index.covering(path)]
        return PauseResult(
            since=min(row.since for row in holding),
            queued=len(queued),
            running=len(running),
            ends_running=now,
            was_paused=not written,
        )

    def _is_paused(self, path: str, *, now: bool, by_job: str | None) -> bool:
        rows = [row for row in self._store.paused_paths.covering(path) if by_job is not None or row.by_job is None]
        return bool(rows) and (not now or any(row.ends_running for row in rows))

    async def _resume(self, paths: Sequence[str], *, by_job: str | None) -> ResumeResult:
        index = self._store.paused_paths
        found = {row.path: row for path in paths for row in index.under(path)}
        lifted = [row for row in found.values() if by_job is None or row.by_job is not None]
        if lifted:
            await self._store.unpause([row.path for row in lifted], at=self._clock.now())
            self._sort(lifted)
            self._event_bus.announce_pause(PauseChange(began=False, pauses=tuple(lifted)))
        queued = [
            job for job in await self._jobs(paths) if job.status is JobStatus.QUEUED and not index.holds(job.path)
        ]
        if lifted:
            await self._publish(queued)
        return ResumeResult(
            lifted=lifted,
            queued=len(queued),
            root_ids={job.root_id for job in queued},
            still=next((row for path in paths if (row := index.outermost(path))), None),
            persons=len(lifted) < len(found),
        )

    def _sort(self, changed: Collection[PausedPath]) -> None:
        roots = {row.path.partition("/")[0] for row in changed}
        self._recursion.scheduler.sort_paused(None if EVERYTHING in roots else roots)
        self._recursion.waves.recheck()

    async def _jobs(self, paths: Sequence[str]) -> Sequence[Job]:
        """Return the live jobs at and below some paths, each once."""
        if paths == [EVERYTHING]:
            return await self._store.unfinished()
        found = {job.id: job for path in paths for job in await self._store.jobs_under(path)}
        return [job for job in found.values() if job.status in LIVE]

    async def _publish(self, jobs: Sequence[Job]) -> None:
        # They are as they were, but what they wait for is not.
        for number, job in enumerate(jobs):
            self._event_bus.publish(job)
            if not (number + 1) % _AT_ONCE:
                await checkpoint()
