"""Follows a running attempt to its outcome: reads what it writes, minds its limits, and ends it where it must."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import anyio
import anyio.to_thread

from jobs.attempts.live_attempt import LiveAttempt
from jobs.claude import out_of_memory
from jobs.claude.directory import UnsafeDirectoryError
from jobs.claude.file_events import FileEvents
from jobs.claude.framer import Line
from jobs.claude.limit_signs import Busy, UsedUp, sign_of
from jobs.claude.outcome import stopped_for
from jobs.claude.reaper import Reaper
from jobs.errors import StoreError
from jobs.limits.budget import Holder
from jobs.limits.ledger import Ledger
from jobs.limits.throttle import Throttle
from jobs.model import JobStatus, Outcome, Reason
from jobs.ports import Clock
from jobs.scheduler import Scheduler

logger = logging.getLogger(__name__)

TICK = 0.5
"""Seconds between two looks at what a running job has written and at its deadline."""

BUDGET_TICK = 0.1
"""The same for a job with a budget above it, where the system does not tell that a file grows: what it begins between
two looks is beyond the budget."""

EAGER_GAP = 0.1
"""Seconds between two looks at a job with a budget above it that goes on writing; after a silence the look is at once.
At half of it the engine took a sixth more CPU for a job that streams all the time (measured)."""

FIRST_TICK = 0.005
"""Seconds until the first look at a process that has said nothing yet; each further one waits twice as long."""

PIECES = 16
"""Most pieces of output that one look takes: a process that never stops writing must not keep us from its deadline."""


class WriteAlarm:
    """Ends a pause early where an attempt has written what cannot wait: too much, or news for a budget above it.

    Args:
        live: The attempt.
        eager: Whatever it writes cannot wait.
    """

    def __init__(self, live: LiveAttempt, *, eager: bool) -> None:
        self._live = live
        self._eager = eager
        self._looked = -math.inf
        self._due = math.inf
        self._scope = anyio.CancelScope()

    @contextmanager
    def pause(self, seconds: float) -> Iterator[None]:
        """Cancel what is done in it after so many seconds, or when the attempt has written what cannot wait."""
        now = anyio.current_time()
        with anyio.CancelScope(deadline=min(now + seconds, self._due)) as self._scope:
            yield
        self._looked, self._due = anyio.current_time(), math.inf

    def on_write(self) -> None:
        """Note that the attempt has written something."""
        if self._live.ended_for is not None:
            return
        if self.too_much():
            # At once: each step from here to its end is one in which it would write on.
            self._live.process.freeze()
            self._due = -math.inf
        elif self._eager:
            self._due = min(self._due, self._looked + EAGER_GAP)
        self._scope.deadline = min(self._scope.deadline, self._due)

    def too_much(self) -> bool:
        """Tell whether the attempt has written more than it may."""
        return self._live.follower.size_of_all() > self._live.watchdog.patience.output


class Supervisor:
    """Watches attempts.

    Args:
        scheduler: Tells which jobs wait for their descendants.
        throttle: Hears of the API's limits.
        ledger: Hears what running attempts cost.
        reaper: What ends processes.
        clock: Time.
        grace: Seconds between the request to end and the end by force.
        on_overdrawn: Called with the holder of a budget that is used up.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        throttle: Throttle,
        ledger: Ledger,
        reaper: Reaper,
        clock: Clock,
        grace: float,
        on_overdrawn: Callable[[Holder], None],
    ) -> None:
        self._scheduler = scheduler
        self._throttle = throttle
        self._ledger = ledger
        self._reaper = reaper
        self._clock = clock
        self._grace = grace
        self._on_overdrawn = on_overdrawn
        self._events = FileEvents()

    async def watch(self, live: LiveAttempt) -> Outcome:
        """Follow an attempt until its process is gone, and return how it ended."""
        try:
            return await self._conclude(live, await self._follow(live))
        except UnsafeDirectoryError as error:
            # A job whose files are not its own any more must not come to run unwatched.
            await self.end(live)
            # What was open before it happened is still the job's.
            with suppress(UnsafeDirectoryError):
                await self._read_rest(live)
            outcome = live.reader.conclude(
                exit_code=None, asked_schema=live.job.spec.json_schema is not None, ended_for=live.ended_for
            )
            if outcome.status is not JobStatus.COMPLETED:
                outcome = replace(outcome, reason=Reason.UNKNOWN_ERROR, status=JobStatus.FAILED)
            return replace(outcome, detail=str(error))

    async def end(self, live: LiveAttempt) -> int | None:
        """End an attempt's process and everything that it started; return its exit status where that is known."""
        grace = self._grace
        if live.ended_for is Reason.OUTPUT_LIMIT:
            # Asked to end, it would go on writing for as long as that takes.
            live.process.freeze()
            grace = 0.0
        if live.ended_for is not None:
            await anyio.to_thread.run_sync(live.directory.note_stop, live.ended_for.value)
        try:
            return await self._reaper.end(live.process, live.marker, grace=grace)
        except UnsafeDirectoryError:
            await self._reaper.sweep(live.target)
            return None

    async def _follow(self, live: LiveAttempt) -> int | None:
        live.follower.hold()
        pause, budgeted = FIRST_TICK, any(holder.usd is not None for holder in live.holders)
        alarm = WriteAlarm(live, eager=budgeted)
        with self._events.watching(live.follower.descriptors, alarm.on_write) as heard:
            tick = BUDGET_TICK if budgeted and not heard else TICK
            while True:
                with alarm.pause(pause):
                    return await live.process.wait()
                written = live.follower.size()
                pause = tick if written else min(tick, 2 * pause)
                # What writes fast is ended before it is read.
                if written and not alarm.too_much():
                    self._throttle.started(live.job.id)
                    await self._look(live)
                if live.ended_for is None and (reason := self._verdict(live, live.follower.size_of_all())):
                    live.ended_for = reason
                    return await self.end(live)

    async def _mind_budget(self, live: LiveAttempt) -> None:
        if not self._ledger.note(live.job, live.attempt.number, live.reader.usage.cost_usd):
            return
        try:
            overdrawn = await self._ledger.overdrawn(live.holders)
        except StoreError:
            logger.warning("the budgets above job %s cannot be read now", live.job.id, exc_info=True)
            return
        if overdrawn is not None:
            self._on_overdrawn(overdrawn)

    def _verdict(self, live: LiveAttempt, written: int) -> Reason | None:
        if live.unmanaged:
            return Reason.UNMANAGED_CLAUDE
        now = self._clock.monotonic()
        if self._scheduler.is_parked(live.job.id):
            live.watchdog.waited(now)
        return live.watchdog.verdict(now, written)

    async def _look(self, live: LiveAttempt) -> None:
        for _ in range(PIECES):
            if (lines := await live.follower.read()) is None:
                return
            self._take(live, lines)
            await self._mind_budget(live)

    async def _read_rest(self, live: LiveAttempt) -> None:
        while (lines := await live.follower.read()) is not None:
            self._take(live, lines)
        self._take(live, await live.follower.finish())

    async def _conclude(self, live: LiveAttempt, exit_code: int | None) -> Outcome:
        await self._read_rest(live)
        outcome = live.reader.conclude(
            exit_code=exit_code,
            stderr=live.directory.error_tail(),
            asked_schema=live.job.spec.json_schema is not None,
            ended_for=live.ended_for or stopped_for(live.directory.stop_note(), exit_code),
        )
        notes = [outcome.detail, live.directory.note]
        if outcome.reason is Reason.LOST and exit_code in {None, out_of_memory.SIGKILL_EXIT}:
            notes.append(out_of_memory.explanation(live.marker, live.oom_kills))
        return replace(outcome, detail=" ".join(filter(None, notes)))

    def _take(self, live: LiveAttempt, lines: list[Line]) -> None:
        for line in lines:
            if line.frame is not None:
                live.reader.feed(line.frame)
                self._heed(sign_of(line.frame), new=line.offset >= live.adopted_at)
        if lines:
            live.watchdog.heard(self._clock.monotonic(), answered=live.reader.answered)

    def _heed(self, sign: Busy | UsedUp | None, *, new: bool) -> None:
        # An earlier engine heeded what it read. Of that only a usage limit that has not ended yet still holds.
        match sign:
            case Busy() if new:
                self._throttle.limited()
            case UsedUp(resets_at, because) if new or (resets_at or 0.0) > self._clock.now():
                self._throttle.used_up(resets_at, because)
            case _:
                pass
