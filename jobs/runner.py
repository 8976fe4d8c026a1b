"""Runs jobs on this machine: claims one, launches its `claude`, follows it to its end, and settles it."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import anyio.to_thread

from jobs.aftermath import Aftermath
from jobs.budget import Holder, deadline_of
from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError
from jobs.claude.events import event_of
from jobs.claude.finding import ever_ran
from jobs.claude.follower import Follower
from jobs.claude.framer import Line
from jobs.claude.limit_signs import Busy, UsedUp, sign_of
from jobs.claude.outcome import OutcomeReader
from jobs.claude.process import Process, attach, launch
from jobs.claude.proctable import ProcessIdentity
from jobs.claude.reaper import Reaper
from jobs.claude.survivors import Target
from jobs.claude.unmanaged import BEAT, Patrol
from jobs.errors import JobsError, StoreError
from jobs.ledger import Ledger
from jobs.model import Attempt, Job, JobEvent, JobStatus, Outcome, Reason
from jobs.persistence import insist
from jobs.ports import Clock, Store
from jobs.preparation import Preparation, Session
from jobs.record import Launched, note_end, note_launch
from jobs.redaction import redact
from jobs.scheduler import Scheduler
from jobs.sequel import LIMITS, TRANSIENT, Sequel
from jobs.settings import Settings
from jobs.signals import JobSignals
from jobs.throttle import Throttle
from jobs.tokens import hash_token, new_token
from jobs.tree import contains
from jobs.watchdog import Patience, Watchdog

logger = logging.getLogger(__name__)

TICK = 0.5
"""Seconds between two looks at what a running job has written and at its deadline."""

BUDGET_TICK = 0.1
"""The same for a job with a budget above it: what it begins between two looks is beyond the budget."""

FIRST_TICK = 0.005
"""Seconds until the first look at a process that has said nothing yet; each further one waits twice as long."""

PIECES = 16
"""Most pieces of output that one look takes: a process that never stops writing must not keep us from its deadline."""


@dataclass
class _Live:
    """An attempt that runs.

    Args:
        job: The job as it was claimed.
        attempt: The attempt.
        directory: Its files.
        process: What runs it.
        follower: Reads what it writes.
        watchdog: Says when it must be ended.
        holders: Whose budgets it spends, the tree's first.
        reader: Makes the outcome of its frames.
        unwritten: Events that have been read and are not stored yet.
        unmanaged: A `claude` that the job started by itself has been seen.
        ended_for: Why it is being ended, or None.
    """

    job: Job
    attempt: Attempt
    directory: AttemptDirectory
    process: Process
    follower: Follower
    watchdog: Watchdog
    holders: Sequence[Holder] = ()
    reader: OutcomeReader = field(default_factory=OutcomeReader)
    unwritten: list[JobEvent] = field(default_factory=list)
    unmanaged: bool = False
    ended_for: Reason | None = None


class LocalRunner:
    """Runs each job as a `claude` process that outlives this engine.

    Args:
        settings: The engine's settings.
        store: Where trees are kept.
        preparation: What an attempt's process needs.
        scheduler: Tells which jobs wait for their descendants.
        throttle: Hears of the API's limits.
        signals: Where changes of jobs are announced.
        clock: Time.
        start_soon: Starts a coroutine function in the engine's task group.
        ledger: Hears what running attempts cost; None takes one that nobody else reads.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        preparation: Preparation,
        scheduler: Scheduler,
        throttle: Throttle,
        signals: JobSignals,
        clock: Clock,
        start_soon: Callable[..., object],
        ledger: Ledger | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._preparation = preparation
        self._scheduler = scheduler
        self._throttle = throttle
        self._signals = signals
        self._clock = clock
        self._start_soon = start_soon
        self._ledger = ledger or Ledger(store)
        self._sequel = Sequel(store, settings.max_depth)
        self._reaper = Reaper()
        self._aftermath = Aftermath(self._reaper, self._shims)
        self._patrol = Patrol()
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
            self._ledger.close(live.job, live.attempt.number)
            self._live.pop(job_id, None)

    async def cancel(self, job_id: str) -> None:
        """End the job's process and everything that it started; `result` then returns."""
        live = self._live.get(job_id)
        if live is not None:
            live.ended_for = Reason.CANCELLED
            await self._end(live)

    async def patrol(self) -> None:
        """Look on a beat, for as long as the engine runs, for jobs that started a `claude` of their own."""
        while True:
            await anyio.sleep(BEAT)
            if self._live:
                await self._look_for_unmanaged()

    def transcript(self, job: Job) -> str:
        """Return the path of the file that holds everything the job's last attempt wrote."""
        return str(self._preparation.path(job, job.attempt) / "out")

    async def _start(self, job: Job) -> None:
        left = await self._ledger.left(job)
        if left is not None and left <= 0:
            await self._fail_unpaid(job)
            return
        session = await self._preparation.session(job)
        token = new_token()
        attempt = await self._store.claim(
            job.id,
            session_id=session.id,
            token_hash=hash_token(token),
            at=self._clock.now(),
            setting_sources=self._preparation.setting_sources(job),
        )
        if attempt is None:
            return
        running = replace(job, status=JobStatus.RUNNING, attempt=attempt.number, started_at=attempt.started_at)
        self._signals.publish(running)
        try:
            # The CLI bounds its own process: what is left now, not what was left when the job was spawned.
            bounded = replace(running, spec=replace(job.spec, max_budget_usd=left))
            await self._note_launch(running, attempt)
            await self._launch(bounded, attempt, token, session)
        except (JobsError, OSError) as error:
            # What keeps a process from being started belongs to the job, not to the engine.
            with suppress(OSError):
                AttemptDirectory(self._preparation.path(job, attempt.number)).remove_stdin()
            outcome = Outcome(reason=Reason.STARTUP, status=JobStatus.FAILED, detail=str(error))
            await self._write(running, attempt, outcome)

    async def _note_launch(self, job: Job, attempt: Attempt) -> None:
        tree = await self._store.tree(job.root_id) if job.parent_id is None else None
        launched = Launched(job=replace(job, session_id=attempt.session_id), attempt=attempt, tree=tree)
        path = self._preparation.path(job, attempt.number)
        await anyio.to_thread.run_sync(lambda: note_launch(AttemptDirectory.create(path), launched))

    async def _launch(self, job: Job, attempt: Attempt, token: str, session: Session) -> None:
        holders = await self._ledger.holders(job)
        command = await self._preparation.command(job, attempt, token, session)
        directory = AttemptDirectory.create(self._preparation.path(job, attempt.number))
        process = await launch(directory, command, job.spec.cwd)
        self._follow_from_start(job, attempt, directory, process, holders)
        if process.identity is None:
            return
        try:
            await self._store.record_launch(
                job.id, attempt.number, pid=process.identity.pid, pid_start=process.identity.start
            )
        except StoreError:
            # The process runs, and the shim noted its own id: nothing is lost.
            logger.warning("the process of job %s could not be recorded", job.id, exc_info=True)

    async def _attach(self, job: Job) -> None:
        attempt = await self._store.attempt(job.id, job.attempt)
        if attempt is None:
            return
        directory = AttemptDirectory(self._preparation.path(job, attempt.number))
        known = (
            ProcessIdentity(pid=attempt.pid, start=attempt.pid_start)
            if attempt.pid is not None and attempt.pid_start is not None
            else None
        )
        holders = await self._ledger.holders(job)
        process = attach(directory, marker=self._preparation.marker(job, attempt.number), identity=known)
        self._follow_from_start(job, attempt, directory, process, holders)

    async def _fail_unpaid(self, job: Job) -> None:
        outcome = Outcome(
            reason=Reason.BUDGET_EXHAUSTED,
            status=JobStatus.FAILED,
            detail="Nothing was left of a budget above it when its turn came.",
        )
        failed = await self._store.fail_queued(job.id, outcome, at=self._clock.now())
        if failed is not None:
            self._signals.publish(failed)

    async def _end_if_cancelled(self, job_id: str) -> None:
        # A cancel that came between the claim and the launch, or before the engine's last end, found no process.
        job = await self._store.job(job_id) if job_id in self._live else None
        if job is not None and job.cancel_requested:
            await self.cancel(job_id)

    def _follow_from_start(
        self,
        job: Job,
        attempt: Attempt,
        directory: AttemptDirectory,
        process: Process,
        holders: Sequence[Holder],
    ) -> None:
        # From byte 0 also where events up to another one are stored: the outcome is made of all frames, and the store
        # leaves out the events that it has.
        now = self._clock.monotonic()
        left = self._seconds_left(job, attempt, holders)
        patience = Patience(
            silence=self._settings.silence_seconds,
            after_answer=self._settings.linger_seconds,
            output=self._settings.max_output_bytes,
        )
        self._live[job.id] = _Live(
            job=job,
            attempt=attempt,
            directory=directory,
            process=process,
            follower=Follower(directory),
            watchdog=Watchdog(patience=patience, deadline=now + left, heard_at=now),
            holders=holders,
        )

    def _seconds_left(self, job: Job, attempt: Attempt, holders: Sequence[Holder]) -> float:
        now = self._clock.now()
        end = attempt.started_at + job.spec.timeout_seconds
        deadline = deadline_of(holders)
        return max(0.0, (end if deadline is None else min(end, deadline)) - now)

    async def _look_for_unmanaged(self) -> None:
        by_marker = {self._target(live).marker: live for live in self._live.values()}
        targets = [self._target(live) for live in by_marker.values()]
        for marker in await anyio.to_thread.run_sync(self._patrol.offenders, targets):
            by_marker[marker].unmanaged = True

    async def _watch(self, live: _Live) -> Outcome:
        try:
            return await self._conclude(live, await self._follow(live))
        except UnsafeDirectoryError as error:
            # A job that opens its own directory to others must not come to run unwatched.
            await self._end(live)
            return Outcome(
                reason=Reason.UNKNOWN_ERROR, status=JobStatus.FAILED, detail=str(error), usage=live.reader.usage
            )

    async def _follow(self, live: _Live) -> int | None:
        pause = FIRST_TICK
        tick = BUDGET_TICK if any(holder.usd is not None for holder in live.holders) else TICK
        while True:
            with anyio.move_on_after(pause):
                return await live.process.wait()
            written = live.directory.output_size()
            pause = tick if written else min(tick, 2 * pause)
            if written:
                self._throttle.started(live.job.id)
                await self._look(live)
                await self._mind_budget(live)
            if live.ended_for is None and (reason := self._verdict(live, written)):
                live.ended_for = reason
                return await self._end(live)

    async def _mind_budget(self, live: _Live) -> None:
        if not self._ledger.note(live.job, live.attempt.number, live.reader.usage.cost_usd):
            return
        try:
            overdrawn = await self._ledger.overdrawn(live.holders)
        except StoreError:
            logger.warning("the budgets above job %s cannot be read now", live.job.id, exc_info=True)
            return
        if overdrawn is not None:
            self._end_below(overdrawn)

    def _end_below(self, holder: Holder) -> None:
        for live in self._live.values():
            # One that has answered costs nothing more and is about to leave.
            if contains(holder.path, live.job.path) and live.ended_for is None and not live.reader.answered:
                logger.info("job %s is ended: the budget of %s is used up", live.job.id, holder.name)
                live.ended_for = Reason.BUDGET_EXHAUSTED
                self._start_soon(self._end, live)

    def _verdict(self, live: _Live, written: int) -> Reason | None:
        if live.unmanaged:
            return Reason.UNMANAGED_CLAUDE
        now = self._clock.monotonic()
        if self._scheduler.is_parked(live.job.id):
            live.watchdog.waited(now)
        return live.watchdog.verdict(now, written)

    async def _end(self, live: _Live) -> int | None:
        target = self._target(live)
        try:
            return await self._reaper.end(live.process, target.marker, grace=self._settings.grace_seconds)
        except UnsafeDirectoryError:
            await self._reaper.sweep(target)
            return None

    async def _look(self, live: _Live) -> None:
        for _ in range(PIECES):
            # While the storage fails nothing more is read: the file keeps it, and the deadline goes on being watched.
            if not await self._record(live) or (lines := await live.follower.read()) is None:
                return
            await self._take(live, lines)

    async def _conclude(self, live: _Live, exit_code: int | None) -> Outcome:
        while (lines := await live.follower.read()) is not None:
            await self._take(live, lines)
            await self._record_all(live)
        await self._take(live, await live.follower.finish())
        await self._record_all(live)
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
                self._heed(sign_of(line.frame))
        if lines:
            live.watchdog.heard(self._clock.monotonic(), answered=live.reader.answered)
        live.unwritten += [event for line in lines if (event := event_of(line, job_id=job_id, attempt=number, at=now))]

    async def _record(self, live: _Live) -> bool:
        try:
            await self._record_events(live)
        except StoreError as error:
            if not error.passing:
                raise
            logger.warning("what job %s reports cannot be stored now: %s", live.job.id, error.cause)
            live.watchdog.heard(self._clock.monotonic(), answered=live.reader.answered)
        return not live.unwritten

    async def _record_all(self, live: _Live) -> None:
        await insist(partial(self._record_events, live), f"storing what job {live.job.id} reported")

    async def _record_events(self, live: _Live) -> None:
        if live.unwritten:
            await self._store.record_events(live.job.id, live.attempt.number, live.unwritten, live.follower.offset)
            live.unwritten.clear()

    def _heed(self, sign: Busy | UsedUp | None) -> None:
        match sign:
            case Busy():
                self._throttle.limited()
            case UsedUp(resets_at, because):
                self._throttle.used_up(resets_at, because)
            case None:
                pass

    async def _settle(self, live: _Live, outcome: Outcome) -> Job:
        follow = partial(self._sequel.of, live.job, live.attempt, outcome, ever_ran=ever_ran(live.directory))
        outcome = await insist(follow, f"deciding what follows job {live.job.id}")
        # Before the end is written: with its last job a tree's environment is forgotten.
        config = self._preparation.config_directory(live.job)
        settled = await self._write(live.job, live.attempt, outcome)
        if outcome.status is JobStatus.COMPLETED:
            self._throttle.succeeded()
        elif outcome.reason in (LIMITS | TRANSIENT) - {Reason.USAGE_LIMIT}:
            self._throttle.back_off(f"the API answered: {outcome.reason}")
        live.directory.remove_stdin()
        live.process.reap()
        self._start_soon(self._aftermath.of, self._target(live), live.directory, config)
        return settled

    async def _write(self, job: Job, attempt: Attempt, outcome: Outcome) -> Job:
        outcome = replace(outcome, detail=redact(outcome.detail))
        # What ended the attempt is known here alone, so this is where a full disk is waited for. An engine that ends
        # meanwhile loses nothing else: the attempt's files stay, and the next one settles it from them.
        settle = partial(self._store.settle, job.id, attempt.number, outcome, at=self._clock.now())
        settled = await insist(settle, f"settling job {job.id}")
        directory = AttemptDirectory(self._preparation.path(job, attempt.number))
        with suppress(OSError, UnsafeDirectoryError):
            # Only a rescue of the database needs it, and a rescue does without.
            await anyio.to_thread.run_sync(note_end, directory, settled)
        self._signals.publish(settled)
        return settled

    def _shims(self) -> list[ProcessIdentity]:
        return [live.process.identity for live in self._live.values() if live.process.identity is not None]

    def _target(self, live: _Live) -> Target:
        return Target(marker=self._preparation.marker(live.job, live.attempt.number), shim=live.process.identity)
