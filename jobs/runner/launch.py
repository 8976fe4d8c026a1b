"""Starts an attempt of a job as a process, or takes over the process that an earlier engine started for it."""

import logging
import math
import os
from contextlib import suppress
from dataclasses import replace

import anyio
import anyio.to_thread

from jobs.activity import ActivityTracker
from jobs.claude.binary import Claude
from jobs.claude.command import Command
from jobs.claude.ndjson import OutputTail
from jobs.errors import JobsError, StoreError
from jobs.event_bus import JobEventBus
from jobs.ids import hash_token
from jobs.limits.budget import Ledger, deadline_of
from jobs.limits.watchdog import Watchdog, WatchdogLimits
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.paused import PausedPaths
from jobs.ports import Clock, Store
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError, is_alive
from jobs.processes.process import Process, attach, launch, refused_for_now
from jobs.processes.process_table import ProcessIdentity
from jobs.processes.spawning import Spawner
from jobs.runner.launch_plan import LaunchPlanner
from jobs.runner.manifest import LaunchManifest, launch_line, write_launch_manifest
from jobs.runner.settle import Settler
from jobs.runner.supervise import RunningAttempt
from jobs.settings import Settings

logger = logging.getLogger(__name__)


class Launcher:
    """Launches and adopts attempts.

    Args:
        settings: The engine's settings.
        store: Where trees are kept.
        launch_planner: Plans the launch of an attempt.
        settler: Writes the outcome of an attempt whose process could not be started.
        ledger: Knows what is left of the budgets above a job.
        event_bus: Where changes of jobs are announced.
        clock: Time.
        spawner: Starts processes.
        pauses: What is paused.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        launch_planner: LaunchPlanner,
        settler: Settler,
        ledger: Ledger,
        event_bus: JobEventBus,
        clock: Clock,
        spawner: Spawner,
        pauses: PausedPaths,
    ) -> None:
        self._settings = settings
        self._store = store
        self._launch_planner = launch_planner
        self._settler = settler
        self._ledger = ledger
        self._event_bus = event_bus
        self._clock = clock
        self._spawner = spawner
        self._pauses = pauses

    async def launch(self, job: Job) -> RunningAttempt | None:
        """Claim a queued job and start its process; None where it was claimed already, ended without one or is paused.

        A launch that fails is written as an outcome of the job like any other.

        Raises:
            StoreError: The storage fails; where that passes the job may be claimed and without a process.
        """
        left = self._ledger.remaining(job)
        if left is not None and left <= 0:
            await self._fail_unpaid(job)
            return None
        plan = await self._launch_planner.plan(job)
        if self._pauses.holds(job.path):
            # It had its slot before the pause, and waits for another one after it.
            return None
        claude = plan.claude if isinstance(plan.claude, Claude) else None
        attempt = await self._store.claim(
            job.id,
            session_id=plan.session.id,
            token_hash=hash_token(plan.token),
            at=self._clock.now(),
            setting_sources=plan.setting_sources,
            cli=None if claude is None else os.fsencode(claude.path).decode(errors="replace"),
            cli_version=None if claude is None else claude.version,
        )
        if attempt is None:
            return None
        running = replace(
            job,
            status=JobStatus.RUNNING,
            attempt=attempt.number,
            session_id=attempt.session_id,
            started_at=attempt.started_at,
        )
        self._event_bus.publish(running)
        manifest: LaunchManifest | None = None
        try:
            manifest = await self._manifest(running, attempt)
            command = await self._launch_planner.command(manifest.job, attempt, plan, left)
            return await self._start_process(running, manifest, command)
        except (JobsError, OSError) as error:
            if isinstance(error, StoreError) and error.transient:
                # Claimed and not launched, it is found to have never run, and is queued again.
                raise
            await self._note_unlaunched(manifest)
            # An error that keeps a process from being started is the job's, not the engine's.
            await self._settler.launch_failed(running, attempt, str(error), for_now=refused_for_now(error))
            return None

    async def adopt(self, job: Job) -> RunningAttempt | None:
        """Take over the process of a running job, or what it left behind; None where the attempt is not known."""
        attempt = await self._store.attempt(job.id, job.attempt)
        if attempt is None:
            return None
        directory = AttemptDirectory(self._launch_planner.path(job, attempt.number))
        process = attach(
            directory, marker=self._launch_planner.marker(job, attempt.number), identity=known_process(attempt)
        )
        lives = await anyio.to_thread.run_sync(is_alive, directory)
        # A job that removed its own directory is found by its recorded process alone.
        lives = lives or (directory.shim_pid() is None and process.lives())
        ran = self._launch_planner.ever_ran(job, attempt)
        live = self._running(job, attempt, process, over=not lives)
        return replace(live, ran=ran, adopted_at=directory.output_size())

    def apply_limits(self, live: RunningAttempt) -> None:
        """Take over the budgets and the deadline that hold for an attempt now."""
        live.owners = self._ledger.owners(live.job)
        left = seconds_until(deadline_of(live.owners), self._clock.now())
        live.watchdog.latest = self._clock.monotonic() + left

    async def record(self, live: RunningAttempt) -> None:
        """Write down which process runs an attempt."""
        identity = live.process.identity
        if identity is None:
            return
        try:
            await self._store.record_launch(
                live.job.id, live.attempt.number, pid=identity.pid, pid_start=identity.start
            )
        except StoreError:
            # The process runs, and the shim noted its own id: nothing is lost.
            logger.warning("the process of job %s could not be recorded", live.job.id, exc_info=True)

    async def _manifest(self, job: Job, attempt: Attempt) -> LaunchManifest:
        """Return the manifest of an attempt; its job has the whole task, of which others hold the beginning."""
        task = None if job.spec.task_chars is None else await self._store.task(job.id)
        whole = job if task is None else replace(job, spec=replace(job.spec, task=task, task_chars=None))
        tree = await self._store.tree(job.root_id) if job.parent_id is None else None
        return LaunchManifest(job=whole, attempt=attempt, tree=tree)

    async def _note_unlaunched(self, manifest: LaunchManifest | None) -> None:
        """Write down an attempt whose process could not be started: a database recovery must find it too."""
        if manifest is None:
            return
        path = self._launch_planner.path(manifest.job, manifest.attempt.number)
        # Only a database recovery needs it, and that does without where it must.
        with suppress(OSError, UnsafeDirectoryError):
            await anyio.to_thread.run_sync(lambda: write_launch_manifest(AttemptDirectory.create(path), manifest))

    async def _start_process(self, job: Job, manifest: LaunchManifest, command: Command) -> RunningAttempt | None:
        attempt = manifest.attempt
        now = await self._store.job(job.id)
        if now is not None and now.cancel_requested:
            # A cancel that came since the claim found no process to end: none may start after it.
            await self._note_unlaunched(manifest)
            await self._settler.write(job, attempt, Outcome(reason=Reason.CANCELLED, status=JobStatus.CANCELLED))
            return None
        process = await launch(
            AttemptDirectory(self._launch_planner.path(job, attempt.number)),
            command,
            job.spec.cwd,
            self._spawner,
            record=launch_line(manifest),
            keep=self._settings.keep_processes,
        )
        return self._running(job, attempt, process)

    def _running(self, job: Job, attempt: Attempt, process: Process, *, over: bool = False) -> RunningAttempt:
        owners = self._ledger.owners(job)
        # An attempt that is over already is settled or lost; it did not time out, however long ago it began.
        seconds = math.inf if over else self._seconds_left(job, attempt, process)
        now = self._clock.monotonic()
        limits = WatchdogLimits(
            silence=self._settings.silence_seconds,
            after_answer=self._settings.linger_seconds,
            output=self._settings.max_output_bytes,
        )
        return RunningAttempt(
            job=job,
            attempt=attempt,
            marker=self._launch_planner.marker(job, attempt.number),
            directory=process.directory,
            process=process,
            output_tail=OutputTail(process.directory, process.written),
            watchdog=Watchdog(
                limits=limits,
                deadline=now + seconds,
                heard_at=now,
                latest=math.inf if over else now + seconds_until(deadline_of(owners), self._clock.now()),
            ),
            owners=owners,
            tracker=ActivityTracker(job.spec.cwd),
        )

    def _seconds_left(self, job: Job, attempt: Attempt, process: Process) -> float:
        now = self._clock.now()
        age = process.age()
        # The time of day may have been set since the attempt began. It counts only where nothing else tells its age,
        # and gives no job more time than it had.
        spent = max(0.0, now - attempt.started_at if age is None else age)
        return max(0.0, job.spec.timeout_seconds - spent)

    async def _fail_unpaid(self, job: Job) -> None:
        outcome = Outcome(
            reason=Reason.BUDGET_EXHAUSTED,
            status=JobStatus.FAILED,
            detail="Nothing was left of a budget above it when it was to start.",
        )
        failed = await self._store.fail_queued(job.id, outcome, at=self._clock.now())
        if failed is not None:
            self._event_bus.publish(failed)


def seconds_until(deadline: float | None, now: float) -> float:
    """Return the seconds to a deadline; without one there is no end of them."""
    return math.inf if deadline is None else deadline - now


def known_process(attempt: Attempt) -> ProcessIdentity | None:
    """Return the shim of an attempt as it was recorded, or None where it was not."""
    if attempt.pid is None or attempt.pid_start is None:
        return None
    return ProcessIdentity(pid=attempt.pid, start=attempt.pid_start)
