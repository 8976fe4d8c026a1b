"""Runs jobs on this machine: claims one, launches its `claude`, follows it to its end, and settles it."""

import hashlib
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from jobs.briefing import first_words, next_words
from jobs.claude.binary import find_claude
from jobs.claude.command import Command, LaunchContext, McpServer, build
from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError
from jobs.claude.events import event_of
from jobs.claude.follower import Follower
from jobs.claude.framer import Line
from jobs.claude.outcome import OutcomeReader
from jobs.claude.process import Process, attach, launch
from jobs.claude.proctable import ProcessIdentity
from jobs.claude.reaper import Reaper
from jobs.claude.survivors import Target
from jobs.errors import JobsError, StoreError
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.origin import OriginFiles
from jobs.ports import Clock, Store
from jobs.settings import Settings
from jobs.signals import JobSignals
from jobs.tokens import hash_token, new_token

logger = logging.getLogger(__name__)

TICK = 0.5
"""Seconds between two looks at what a running job has written and at its deadline."""

PIECES = 16
"""Most pieces of output that one look takes: a process that never stops writing must not keep us from its deadline."""

RESUMES = 1
"""How often a job whose attempt was lost is resumed before it fails."""


@dataclass
class _Live:
    """An attempt that runs.

    Args:
        job: The job as it was claimed.
        attempt: The attempt.
        process: What runs it.
        follower: Reads what it writes.
        deadline: On the monotonic clock.
    """

    job: Job
    attempt: Attempt
    directory: AttemptDirectory
    process: Process
    follower: Follower
    deadline: float
    reader: OutcomeReader = field(default_factory=OutcomeReader)
    ended_for: Reason | None = None


class LocalRunner:
    """Runs each job as a `claude` process that outlives this engine.

    Args:
        settings: The engine's settings.
        store: Where trees are kept.
        origins: Where each tree's client environment is kept.
        signals: Where changes of jobs are announced.
        clock: Time.
        trees: Directory of the job directories, one directory a tree.
        mcp_server: How a job's `claude` starts our MCP server; the job's directory is added.
        start_soon: Starts a coroutine function in the engine's task group.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        origins: OriginFiles,
        signals: JobSignals,
        clock: Clock,
        trees: Path,
        mcp_server: McpServer,
        start_soon: Callable[..., object],
    ) -> None:
        self._settings = settings
        self._limits = settings.tree_limits
        self._store = store
        self._origins = origins
        self._signals = signals
        self._clock = clock
        self._trees = trees
        self._mcp_server = mcp_server
        self._start_soon = start_soon
        self._reaper = Reaper()
        self._home_key = hashlib.sha256(str(trees).encode()).hexdigest()[:8]
        self._live: dict[str, _Live] = {}

    async def start_or_attach(self, job_id: str) -> None:
        """Claim the job and launch it, or take over the process that an earlier engine launched for it.

        A launch that fails is an outcome of the job like any other; `result` returns it.
        """
        job = await self._store.job(job_id)
        if job is None or job_id in self._live:
            return
        if job.status is JobStatus.QUEUED:
            await self._start(job)
        elif job.status is JobStatus.RUNNING:
            await self._attach(job)
        await self._end_if_cancelled(job_id)

    async def result(self, job_id: str) -> Job:
        """Follow the job's process to its end, settle the attempt, and return the job as it is then.

        Raises:
            KeyError: There is no such job.
        """
        live = self._live.get(job_id)
        if live is None:
            job = await self._store.job(job_id)
            if job is None:
                raise KeyError(job_id)
            return job
        try:
            return await self._settle(live, await self._watch(live))
        finally:
            self._live.pop(job_id, None)

    async def cancel(self, job_id: str) -> None:
        """End the job's process and everything that it started; `result` then returns."""
        live = self._live.get(job_id)
        if live is not None:
            live.ended_for = Reason.CANCELLED
            await self._end(live)

    def transcript(self, job: Job) -> str:
        """Return the path of the file that holds everything the job's last attempt wrote."""
        return str(self._path(job, job.attempt) / "out")

    async def _start(self, job: Job) -> None:
        previous = await self._store.attempt(job.id, job.attempt) if job.attempt else None
        resumed = previous if previous is not None and previous.reason is not Reason.NO_SESSION else None
        token = new_token()
        attempt = await self._store.claim(
            job.id,
            session_id=resumed.session_id if resumed else str(uuid.uuid4()),
            token_hash=hash_token(token),
            at=self._clock.now(),
        )
        if attempt is None:
            return
        running = replace(job, status=JobStatus.RUNNING, attempt=attempt.number, started_at=attempt.started_at)
        self._signals.publish(running)
        try:
            await self._launch(running, attempt, token, resumed)
        except (JobsError, OSError) as error:
            # What keeps a process from being started belongs to the job, not to the engine.
            with suppress(OSError):
                AttemptDirectory(self._path(job, attempt.number)).remove_stdin()
            outcome = Outcome(reason=Reason.STARTUP, status=JobStatus.FAILED, detail=str(error))
            await self._write(running, attempt, outcome)

    async def _launch(self, job: Job, attempt: Attempt, token: str, resumed: Attempt | None) -> None:
        directory = AttemptDirectory.create(self._path(job, attempt.number))
        command = self._command(job, attempt, token, directory, resumed)
        process = await launch(directory, command, job.spec.cwd)
        self._follow_from_start(job, attempt, directory, process)
        if process.identity is None:
            return
        try:
            await self._store.record_launch(
                job.id, attempt.number, pid=process.identity.pid, pid_start=process.identity.start
            )
        except StoreError:
            # The process runs, and the shim noted its own id: nothing is lost.
            logger.warning("the process of job %s could not be recorded", job.id, exc_info=True)

    async def _end_if_cancelled(self, job_id: str) -> None:
        # A cancel that came between the claim and the launch, or before the engine's last end, found no process.
        job = await self._store.job(job_id) if job_id in self._live else None
        if job is not None and job.cancel_requested:
            await self.cancel(job_id)

    def _command(
        self, job: Job, attempt: Attempt, token: str, directory: AttemptDirectory, resumed: Attempt | None
    ) -> Command:
        env = self._origins.load(job.root_id).env
        explicit = self._settings.cli
        server = self._mcp_server
        spec = job.spec
        if resumed is not None:
            spec = replace(spec, task=next_words(resumed.reason))
        return build(
            spec,
            LaunchContext(
                cli=str(find_claude(str(explicit) if explicit else None, env.get("PATH"))),
                session_id=attempt.session_id,
                continues=attempt.session_id if resumed else spec.resume_session,
                server=replace(server, args=(*server.args, "--job", str(directory.path))),
                token=token,
                briefing="" if resumed else first_words(job, self._limits),
                client_env=env,
                marker=self._marker(job, attempt.number),
            ),
        )

    async def _attach(self, job: Job) -> None:
        attempt = await self._store.attempt(job.id, job.attempt)
        if attempt is None:
            return
        directory = AttemptDirectory(self._path(job, attempt.number))
        known = (
            ProcessIdentity(pid=attempt.pid, start=attempt.pid_start)
            if attempt.pid is not None and attempt.pid_start is not None
            else None
        )
        process = attach(directory, marker=self._marker(job, attempt.number), identity=known)
        self._follow_from_start(job, attempt, directory, process)

    def _follow_from_start(self, job: Job, attempt: Attempt, directory: AttemptDirectory, process: Process) -> None:
        # From byte 0 also where events up to another one are stored: the outcome is made of all frames, and the store
        # leaves out the events that it has.
        ran = max(0.0, self._clock.now() - attempt.started_at)
        self._live[job.id] = _Live(
            job=job,
            attempt=attempt,
            directory=directory,
            process=process,
            follower=Follower(directory),
            deadline=self._clock.monotonic() + max(0.0, job.spec.timeout_seconds - ran),
        )

    async def _watch(self, live: _Live) -> Outcome:
        try:
            return await self._conclude(live, await self._follow(live))
        except UnsafeDirectoryError as error:
            # A job that opens its own directory to others must not come to run unwatched.
            await self._end(live)
            return Outcome(reason=Reason.UNKNOWN_ERROR, status=JobStatus.FAILED, detail=str(error))

    async def _follow(self, live: _Live) -> int | None:
        while True:
            with anyio.move_on_after(TICK):
                return await live.process.wait()
            await self._look(live)
            if live.ended_for is None and self._clock.monotonic() >= live.deadline:
                live.ended_for = Reason.DEADLINE
                return await self._end(live)

    async def _end(self, live: _Live) -> int | None:
        target = self._target(live)
        try:
            return await self._reaper.end(live.process, target.marker, grace=self._settings.grace_seconds)
        except UnsafeDirectoryError:
            await self._reaper.sweep(target)
            return None

    async def _look(self, live: _Live) -> None:
        for _ in range(PIECES):
            if (lines := await live.follower.read()) is None:
                return
            await self._take(live, lines)

    async def _conclude(self, live: _Live, exit_code: int | None) -> Outcome:
        while (lines := await live.follower.read()) is not None:
            await self._take(live, lines)
        await self._take(live, await live.follower.finish())
        return live.reader.conclude(
            exit_code=exit_code,
            stderr=live.directory.error_tail(),
            asked_schema=live.job.spec.json_schema is not None,
            ended_for=live.ended_for,
        )

    async def _take(self, live: _Live, lines: list[Line]) -> None:
        now = self._clock.now()
        job_id, number = live.job.id, live.attempt.number
        for line in lines:
            if line.frame is not None:
                live.reader.feed(line.frame)
        events = [event for line in lines if (event := event_of(line, job_id=job_id, attempt=number, at=now))]
        if events:
            await self._store.record_events(job_id, number, events, live.follower.offset)

    async def _settle(self, live: _Live, outcome: Outcome) -> Job:
        settled = await self._write(live.job, live.attempt, await self._with_next_step(live, outcome))
        live.directory.remove_stdin()
        live.process.reap()
        self._start_soon(self._reaper.sweep, self._target(live))
        return settled

    async def _with_next_step(self, live: _Live, outcome: Outcome) -> Outcome:
        if outcome.reason is Reason.NO_SESSION and await self._resumed(live):
            logger.warning("job %s was lost before it had a session and begins anew", live.job.id)
            return replace(outcome, status=JobStatus.QUEUED)
        if outcome.reason is Reason.LOST and live.attempt.number <= RESUMES:
            logger.warning("job %s was lost in attempt %d and is resumed", live.job.id, live.attempt.number)
            return replace(outcome, status=JobStatus.QUEUED)
        return outcome

    async def _resumed(self, live: _Live) -> bool:
        previous = await self._store.attempt(live.job.id, live.attempt.number - 1)
        return previous is not None and previous.session_id == live.attempt.session_id

    async def _write(self, job: Job, attempt: Attempt, outcome: Outcome) -> Job:
        settled = await self._store.settle(job.id, attempt.number, outcome, at=self._clock.now())
        self._signals.publish(settled)
        return settled

    def _path(self, job: Job, attempt: int) -> Path:
        return self._trees / job.root_id / job.id / str(attempt)

    def _target(self, live: _Live) -> Target:
        return Target(marker=self._marker(live.job, live.attempt.number), shim=live.process.identity)

    def _marker(self, job: Job, attempt: int) -> str:
        return f"{self._home_key}:{job.id}:{attempt}"
