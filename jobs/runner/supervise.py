"""A running attempt, and its supervision up to its outcome: its output is read, its limits are enforced."""

import asyncio
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import anyio.to_thread

from jobs.activity import Activity, ActivityTracker
from jobs.claude.binary import was_taken_for_newer
from jobs.claude.ndjson import Line, OutputTail
from jobs.claude.outcome import OutcomeReader, stopped_for, was_cut_off
from jobs.claude.rate_limits import ExtraUsage, RateLimited, RateLimitSignal, UsageLimitReached, rate_limit_signal
from jobs.limits.budget import BudgetOwner, Ledger
from jobs.limits.throttle import Throttle
from jobs.limits.watchdog import Watchdog
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.paused import PausedPaths
from jobs.ports import Clock
from jobs.processes import out_of_memory
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.processes.file_events import FileEvents
from jobs.processes.kill import Reaper, Target
from jobs.processes.process import Process
from jobs.scheduler import Scheduler
from jobs.settings import Settings
from jobs.util.text import redact

TICK = 0.5
"""Seconds between two looks at the deadlines of all running jobs, and between two at the output of one that goes on
writing."""

DEAF_TICK = 0.1
"""The same where the system does not tell that a file grows: what a job with a budget above it begins between two looks
is beyond the budget."""

FIRST_GAP = 0.05
"""Seconds from the first output after a silence to the look at it: most jobs that say little end within them."""

FIRST_LOOK = 0.01
"""Seconds from the launch of a job to the first look whether it has spoken, where others wait for it to have."""

EAGER_GAP = 0.1
"""Seconds between two looks at a job with a budget above it that goes on writing; after a silence the look is at once.
At half of it the engine took a sixth more CPU for a job that streams all the time (measured)."""

PIECES = 16
"""Most pieces of output that one look takes: a process that never stops writing must not keep us from its deadline."""


@dataclass(kw_only=True)
class RunningAttempt:
    """A running attempt.

    Args:
        job: The job as it was claimed.
        attempt: The attempt.
        marker: The job marker of its processes.
        directory: Its files.
        process: Its process.
        output_tail: Reads what it writes.
        watchdog: Says when it must be ended.
        owners: Owners of the budgets that it spends, the tree first.
        account: The account that it was launched with, as `Accounts` names it.
        reader: Derives the outcome from its frames.
        adopted_at: Bytes of output that were there when this engine took the attempt over; 0 for its own launch.
        ran: A process of it was started; False for one that was adopted without a sign of any.
        oom_kills: How many processes the kernel had ended for lack of memory when this began; None where nothing tells.
        tracker: Follows what it does, from its frames.
        spoke: It has written something.
        nested_claude: Command line of a `claude` that the job started by itself, or None where none has been seen.
        stop_reason: Why it is being ended, or None.
    """

    job: Job
    attempt: Attempt
    marker: str
    directory: AttemptDirectory
    process: Process
    output_tail: OutputTail
    watchdog: Watchdog
    owners: Sequence[BudgetOwner] = ()
    account: str = ""
    reader: OutcomeReader = field(default_factory=OutcomeReader)
    adopted_at: int = 0
    ran: bool = True
    oom_kills: int | None = field(default_factory=out_of_memory.recent_kills)
    tracker: ActivityTracker = field(default_factory=ActivityTracker)
    spoke: bool = False
    nested_claude: str | None = None
    stop_reason: Reason | None = None

    @property
    def target(self) -> Target:
        """Marker and shim that identify its processes."""
        return Target(marker=self.marker, shim=self.process.identity)

    def activity(self, secrets: Collection[str], now: float) -> Activity:
        """Return what it does.

        Args:
            secrets: Values that are not to be shown.
            now: Seconds since the epoch.
        """
        wrote_at = self.output_tail.written_at()
        return Activity(
            doing=self.tracker.doing(secrets),
            # The job owns the file and may have set its time.
            last_output_at=min(now, self.attempt.started_at if wrote_at is None else wrote_at),
            usage=self.reader.usage,
            model=self.reader.model,
            cli=self.attempt.cli,
            cli_version=self.reader.version or self.attempt.cli_version,
        )


class LookTimer:
    """Says when an attempt needs its next look, and ends the wait for its process then.

    Args:
        live: The attempt.
    """

    def __init__(self, live: RunningAttempt) -> None:
        self.live = live
        self._looked = -math.inf
        self._due = math.inf
        self._scope = anyio.CancelScope()

    @property
    def eager(self) -> bool:
        """Whether everything that it writes is read at once: it spends a budget, maybe given while it runs."""
        return any(owner.usd is not None for owner in self.live.owners)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Cancel what is done in it when the attempt needs a look."""
        with anyio.CancelScope(deadline=self._due) as self._scope:
            yield
        self._looked, self._due = anyio.current_time(), math.inf

    def schedule(self, at: float = -math.inf) -> None:
        """Have the attempt looked at.

        Args:
            at: When, on the event loop's clock; it may be over.
        """
        self._due = min(self._due, at)
        self._scope.deadline = min(self._scope.deadline, self._due)

    def on_write(self) -> None:
        """Note that the attempt has written something."""
        if self.live.stop_reason is not None:
            return
        if self.too_much():
            # At once: each step from here to its end is one in which it would write on.
            self.live.process.freeze()
            self.schedule()
        elif self.eager:
            self.schedule(self._looked + EAGER_GAP)
        else:
            self.schedule(max(self._looked + TICK, _loop_time() + FIRST_GAP))

    def too_much(self) -> bool:
        """Tell whether the attempt has written more than it may."""
        return self.live.output_tail.size_of_all() > self.live.watchdog.limits.output


class Supervisor:
    """Supervises running attempts.

    Args:
        settings: The engine's settings.
        scheduler: Tells which jobs wait for their descendants.
        throttle: Is told of the API's limits.
        ledger: Is told what running attempts cost.
        reaper: Ends processes.
        clock: Time.
        secrets_of: Returns the secrets in a job's environment.
        on_budget_exhausted: Called with the owner of a budget that is used up.
        on_activity: Called with a job that has written something.
        pauses: What is paused.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        scheduler: Scheduler,
        throttle: Throttle,
        ledger: Ledger,
        reaper: Reaper,
        clock: Clock,
        secrets_of: Callable[[Job], Collection[str]],
        on_budget_exhausted: Callable[[BudgetOwner], None],
        on_activity: Callable[[Job], None],
        pauses: PausedPaths,
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._throttle = throttle
        self._ledger = ledger
        self._reaper = reaper
        self._clock = clock
        self._secrets_of = secrets_of
        self._on_budget_exhausted = on_budget_exhausted
        self._on_activity = on_activity
        self._pauses = pauses
        self._events = FileEvents()
        self._timers: dict[LookTimer, bool] = {}
        self._tick: asyncio.TimerHandle | None = None

    async def watch(self, live: RunningAttempt) -> Outcome:
        """Follow an attempt until its process is gone, and return how it ended."""
        try:
            return await self._conclude(live, await self._follow(live))
        except UnsafeDirectoryError as error:
            # A job whose files are not its own any more must not run unwatched.
            await self.end(live)
            # What was open before it happened is still the job's.
            with suppress(UnsafeDirectoryError):
                await self._read_rest(live)
            outcome = live.reader.conclude(
                exit_code=None, asked_schema=live.job.spec.json_schema is not None, stop_reason=live.stop_reason
            )
            if outcome.status is not JobStatus.COMPLETED:
                outcome = replace(outcome, reason=Reason.UNKNOWN_ERROR, status=JobStatus.FAILED)
            return replace(outcome, detail=str(error))

    async def end(self, live: RunningAttempt) -> int | None:
        """End an attempt's process and everything that it started; return its exit status where that is known."""
        grace = self._settings.grace_seconds
        if live.stop_reason is Reason.OUTPUT_LIMIT:
            # Asked to end, it would go on writing for as long as that takes.
            live.process.freeze()
            grace = 0.0
        if live.stop_reason is not None:
            await anyio.to_thread.run_sync(live.directory.note_stop, live.stop_reason.value)
        try:
            return await self._reaper.end(live.process, live.marker, grace=grace)
        except UnsafeDirectoryError:
            await self._reaper.sweep(live.target)
            return None

    async def _follow(self, live: RunningAttempt) -> int | None:
        live.output_tail.hold()
        timer = LookTimer(live)
        with self._followed(timer):
            while True:
                with timer.wait():
                    return await live.process.wait()
                # What writes fast is ended before it is read.
                if live.output_tail.size() and not timer.too_much():
                    self._spoke(live)
                    if await self._look(live):
                        timer.schedule(anyio.current_time())
                if live.stop_reason is None and (reason := self._verdict(live)):
                    live.stop_reason = reason
                    return await self.end(live)

    @contextmanager
    def _followed(self, timer: LookTimer) -> Iterator[None]:
        """Watch what an attempt writes, and look at its deadlines at each tick, while the block lasts."""
        self._timers[timer] = True
        if self._tick is None:
            self._schedule_tick()
        with ExitStack() as listening:
            listen = partial(self._listen, timer, listening)
            if timer.eager:
                listen()
            else:
                # Most jobs that write little end before there is anything to read.
                listening.callback(asyncio.get_running_loop().call_later(FIRST_GAP, listen).cancel)
                listening.callback(
                    asyncio.get_running_loop().call_later(FIRST_LOOK, self._first_look, timer.live).cancel
                )
            try:
                yield
            finally:
                del self._timers[timer]

    def _first_look(self, live: RunningAttempt) -> None:
        if self._scheduler.has_queue() and live.output_tail.size_of_all():
            self._spoke(live)

    def _spoke(self, live: RunningAttempt) -> None:
        if live.spoke:
            return
        live.spoke = True
        self._throttle.started(live.job.id)
        # The number of jobs that may start at once is limited: the next one need not wait for a tick.
        self._scheduler.reschedule()

    def _listen(self, timer: LookTimer, listening: ExitStack) -> None:
        output_tail = timer.live.output_tail
        # Where the system does not tell, each tick looks.
        self._timers[timer] = listening.enter_context(self._events.watching(output_tail.descriptors, timer.on_write))
        if output_tail.size_of_all():
            # Written before this listened.
            timer.schedule(_loop_time())

    def _schedule_tick(self) -> None:
        seconds = TICK if all(self._timers.values()) else DEAF_TICK
        self._tick = asyncio.get_running_loop().call_later(seconds, self._on_tick) if self._timers else None

    def _on_tick(self) -> None:
        # One timer for all: a silent job wakes nothing.
        self._schedule_tick()
        for timer, heard in list(self._timers.items()):
            if timer.live.stop_reason is None and (not heard or self._verdict(timer.live)):
                timer.schedule()

    def _mind_budget(self, live: RunningAttempt) -> None:
        if not self._ledger.note(live.job, live.attempt.number, live.reader.usage, live.account):
            return
        owner = self._ledger.budget_exhausted(live.owners)
        if owner is not None:
            self._on_budget_exhausted(owner)

    def _verdict(self, live: RunningAttempt) -> Reason | None:
        if live.nested_claude is not None:
            return Reason.UNMANAGED_CLAUDE
        if was_taken_for_newer(live.reader.version, live.attempt.cli_version) and not live.reader.answered:
            # It works without its MCP servers.
            return Reason.STARTUP
        now = self._clock.monotonic()
        parked = self._scheduler.is_parked(live.job.id)
        if parked:
            live.watchdog.note_waiting(now)
        held = parked and (self._throttle.pause_of(live.account) is not None or self._pauses.holds_back(live.job.path))
        live.watchdog.held(now, back=held)
        return live.watchdog.check(now, live.output_tail.size_of_all())

    async def _look(self, live: RunningAttempt) -> bool:
        """Read what an attempt has written, and tell whether more is left to read than one look takes."""
        for _ in range(PIECES):
            if (lines := await live.output_tail.read()) is None:
                return False
            self._take(live, lines)
            self._mind_budget(live)
        return True

    async def _read_rest(self, live: RunningAttempt) -> None:
        most = live.watchdog.limits.output
        if live.stop_reason is None and live.output_tail.size() > most:
            # It was over before it could be ended for that.
            live.stop_reason = Reason.OUTPUT_LIMIT
        async for lines in live.output_tail.rest(most):
            self._take(live, lines)

    async def _conclude(self, live: RunningAttempt, exit_code: int | None) -> Outcome:
        await self._read_rest(live)
        live.stop_reason = live.stop_reason or self._stopped_for(live, exit_code)
        outcome = live.reader.conclude(
            exit_code=exit_code,
            stderr=live.output_tail.error_tail(),
            asked_schema=live.job.spec.json_schema is not None,
            stop_reason=live.stop_reason,
        )
        notes = [outcome.detail, live.directory.note]
        if live.stop_reason is Reason.UNMANAGED_CLAUDE and live.nested_claude:
            notes.append(f"The claude that it started, which was ended with it: {live.nested_claude}")
        if outcome.reason is Reason.LOST and exit_code in {None, out_of_memory.SIGKILL_EXIT}:
            notes.append(out_of_memory.explanation(live.marker, live.oom_kills))
        return replace(outcome, detail=" ".join(filter(None, notes)))

    @staticmethod
    def _stopped_for(live: RunningAttempt, exit_code: int | None) -> Reason | None:
        return stopped_for(live.directory.stop_note(), exit_code) if was_cut_off(exit_code) else None

    def _take(self, live: RunningAttempt, lines: list[Line]) -> None:
        for line in lines:
            live.reader.take(line)
            if line.frame is not None:
                live.tracker.take(line.frame)
                self._apply_rate_limit(live, rate_limit_signal(line.frame), new=line.offset >= live.adopted_at)
        if lines:
            live.watchdog.note_output(self._clock.monotonic(), answered=live.reader.answered)
            self._on_activity(live.job)

    def _apply_rate_limit(self, live: RunningAttempt, sign: RateLimitSignal | None, *, new: bool) -> None:
        match sign:
            case RateLimited() if new:
                self._throttle.of(live.account).on_rate_limited()
            case UsageLimitReached(resets_at, because) if new or self._still_holds(resets_at):
                self._note_limit(live, resets_at, because)
            case ExtraUsage(resets_at, because) if self._settings.extra_usage == "wait":
                if new or self._still_holds(resets_at):
                    self._note_limit(live, resets_at, because, is_extra=True)
            case _:
                pass

    def _note_limit(
        self, live: RunningAttempt, resets_at: float | None, because: str, *, is_extra: bool = False
    ) -> None:
        # It is kept and told to others, and the job wrote it.
        said = redact(because, self._secrets_of(live.job))
        self._throttle.of(live.account).on_usage_limit(resets_at, said, is_extra=is_extra)

    def _still_holds(self, resets_at: float | None) -> bool:
        # An earlier engine applied what it read. Of that only a usage limit that has not ended yet still holds.
        return (resets_at or 0.0) > self._clock.now()


def _loop_time() -> float:
    # Called by the event loop itself, where anyio knows no loop that was not started through it.
    return asyncio.get_running_loop().time()
