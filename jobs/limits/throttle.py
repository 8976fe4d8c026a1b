"""Throttle: how many jobs may run at once now, in all and for each account, with its usage limits and its back-off."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from jobs.ports import Clock
from jobs.util.text import strip_terminal_codes
from jobs.waiting_for import Wait, WaitingFor

HALVING_SECONDS = 5.0
"""Limits that arrive together are one: twenty jobs that meet the same 429 must not halve twenty times."""

JITTER_SECONDS = 5.0
"""Most seconds after a usage limit ends until the first job starts again, so that engines do not all come at once."""

DEFAULT_PAUSE_SECONDS = 60.0
"""Pause where a usage limit does not say when it ends."""

LONGEST_PAUSE_SECONDS = 8 * 86_400.0
"""A usage limit that ends later is ignored: the longest known is one of a week, and a job can write any number."""

FIRST_BACK_OFF_SECONDS = 1.0
"""Pause after the first attempt that the API's trouble ended; each further one without a success between is doubled."""

LONGEST_BACK_OFF_SECONDS = 60.0
"""Longest of these pauses."""

REASON_CHARS = 200
"""Characters of a limit's name that are kept: a job can write any text."""

_MOST_LIMITS = 16
"""Usage limits of an account that are remembered at once; the API knows a handful."""

LOOK_SECONDS = 0.25
"""Seconds for which a reading of free memory is used."""

RESCHEDULE_SECONDS = 0.05
"""Seconds between two looks whether memory is free again."""

LONGEST_LOOK_SECONDS = 1.0
"""Seconds between two looks whether a pause is over."""

_MOST_IDLE = 64
"""Accounts in their initial state that are kept all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause: no job of an account, or of the machine, is launched for now.

    Args:
        until: Seconds since the epoch.
        because: What the API or the system said, for a person.
        waiting: How many jobs wait for its end.
    """

    until: float
    because: str
    waiting: int = 0

    def __str__(self) -> str:
        """Say until when, why, and how many wait."""
        wait = "1 job waits" if self.waiting == 1 else f"{self.waiting} jobs wait"
        return f"paused until {clock_time(self.until)} because {self.because}; {wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimit:
    """A usage limit that an account has reached.

    Args:
        until: Seconds since the epoch at which jobs go on.
        because: Which limit.
        is_known: Whether the API said when it ends.
        can_lift: Whether a job that completes ends the pause.
        is_extra: Whether requests go on, on usage that is paid for beyond it.
    """

    until: float
    because: str
    is_known: bool = True
    can_lift: bool = True
    is_extra: bool = False


@dataclass(slots=True)
class _Entry:
    limit: UsageLimit
    end: float
    """On the monotonic clock, which setting the time of day does not move."""
    holds: bool = True


class AccountLimits:
    """Limits of one account: additive increase, multiplicative decrease, pauses; for the machine, the back-off only.

    Args:
        max_running: Widest window.
        clock: Time.
        jitter: Returns a number from 0 to 1.
        on_change: Called after a usage limit was noted or lifted.
        uses_extra: Tells whether jobs use what is paid for beyond a limit; the setting may change during a pause.
    """

    def __init__(
        self,
        max_running: int,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[], None] = lambda: None,
        uses_extra: Callable[[], bool] = lambda: False,
    ) -> None:
        self._max_running = max_running
        self._clock = clock
        self._jitter = jitter
        self._on_change = on_change
        self._uses_extra = uses_extra
        self._window = float(max_running)
        self._quiet_until = 0.0
        self._back_off = FIRST_BACK_OFF_SECONDS
        self._backing_off: tuple[float, Pause] | None = None
        self._limits: dict[tuple[str, bool], _Entry] = {}

    @property
    def window(self) -> int:
        """How many jobs may run at once by the API's limits: at least 1."""
        return max(1, int(self._window))

    @property
    def pause(self) -> Pause | None:
        """Why nothing of the account is launched, and until when; None where things go on."""
        ends = [(entry.end, entry.limit) for entry in self._holding()]
        last = max(ends, key=lambda one: one[0], default=None)
        if self._backing_off is not None and (last is None or self._backing_off[0] > last[0]):
            return self._backing_off[1]
        return None if last is None else Pause(until=last[1].until, because=last[1].because)

    @property
    def limits(self) -> tuple[UsageLimit, ...]:
        """The usage limits that hold."""
        return tuple(entry.limit for entry in self._holding())

    def wait(self, running: int) -> Wait | None:
        """Return what the next job of the account waits for while this number of them runs, or None."""
        if limits := self.limits:
            last = max(limits, key=lambda limit: limit.until)
            return Wait(what=WaitingFor.LIMIT, until=last.until, because=last.because)
        if self.window <= running < self._max_running:
            because = f"{self.window} jobs of its account may run at once after the API refused some"
            return Wait(what=WaitingFor.LIMIT, because=because)
        if (pause := self.pause) is not None:
            return Wait(what=WaitingFor.BACK_OFF, until=pause.until, because=pause.because)
        return None

    @property
    def is_idle(self) -> bool:
        """Whether its state is that of a new account."""
        untouched = self._window >= self._max_running and self._back_off == FIRST_BACK_OFF_SECONDS
        return untouched and self.pause is None and not self._limits

    def admits(self, running: int) -> bool:
        """Tell whether one more job of the account may be launched while this number of them runs."""
        return running < self.window and self.pause is None

    def on_rate_limited(self) -> None:
        """The API refused or delayed a request: halve the window, once for all that come together."""
        now = self._clock.monotonic()
        if now >= self._quiet_until:
            self._window = max(1.0, self._window / 2)
            self._quiet_until = now + HALVING_SECONDS

    def on_success(self) -> None:
        """A job completed: widen the window by one for each window of such jobs, and lift each limit once.

        A job that began before a limit may complete after it, so where the limit is met again, it holds to its end.
        """
        self._back_off = FIRST_BACK_OFF_SECONDS
        self._window = min(float(self._max_running), self._window + 1 / self._window)
        lifted = [entry for entry in self._limits.values() if entry.holds and entry.limit.can_lift]
        for entry in lifted:
            entry.holds = False
        if lifted:
            self._on_change()

    def on_usage_limit(self, resets_at: float | None, because: str, *, is_extra: bool = False) -> None:
        """A usage limit was reached: launch nothing until it ends and a little longer.

        Args:
            resets_at: Seconds since the epoch at which it ends, or None where it does not say; one that is long
                over, or that no limit can have, is ignored.
            because: What the API said, without secrets.
            is_extra: Requests go on, on usage that is paid for beyond it: a job that completes says nothing of its end.
        """
        left = 0.0 if resets_at is None else resets_at - self._clock.now()
        # A frame may be read late. Where this machine's clock is ahead, every end is long over, and each job would use
        # up its attempts within a minute.
        is_known = resets_at is not None and -DEFAULT_PAUSE_SECONDS < left <= LONGEST_PAUSE_SECONDS
        seconds = (max(0.0, left) if is_known else DEFAULT_PAUSE_SECONDS) + JITTER_SECONDS * self._jitter()
        until = self._clock.now() + seconds
        name = _shown(because)
        self._note(UsageLimit(until=until, because=name, is_known=is_known, can_lift=not is_extra, is_extra=is_extra))

    def restore(self, limit: UsageLimit) -> None:
        """Take over a usage limit that an earlier engine noted; one that is over, or is not plausible, is ignored."""
        if 0 < limit.until - self._clock.now() <= LONGEST_PAUSE_SECONDS + JITTER_SECONDS:
            self._note(limit)

    def back_off(self, because: str) -> None:
        """A transient error ended an attempt: launch nothing for a moment, longer each time.

        Attempts that end during the pause met the same error: they do not lengthen it.

        Args:
            because: What the API or the system said.
        """
        if self.pause is None:
            seconds = self._back_off * (1 + self._jitter()) / 2
            pause = Pause(until=self._clock.now() + seconds, because=_shown(because))
            self._backing_off = (self._clock.monotonic() + seconds, pause)
            self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF_SECONDS)

    def _note(self, limit: UsageLimit) -> None:
        self._forget_ended()
        key = (limit.because, limit.is_extra)
        known = self._limits.get(key)
        end = self._clock.monotonic() + limit.until - self._clock.now()
        if known is not None and (end <= known.end + JITTER_SECONDS or not limit.is_known):
            if known.holds:
                return
            # Lifted, and met again.
            limit = replace(limit, can_lift=False)
        self._limits[key] = _Entry(limit, end)
        if len(self._limits) > _MOST_LIMITS:
            del self._limits[min(self._limits, key=lambda name: self._limits[name].end)]
        self._on_change()

    def _holding(self) -> list[_Entry]:
        self._forget_ended()
        extra = self._uses_extra()
        return [entry for entry in self._limits.values() if entry.holds and not (extra and entry.limit.is_extra)]

    def _forget_ended(self) -> None:
        now = self._clock.monotonic()
        if self._backing_off is not None and now >= self._backing_off[0]:
            self._backing_off = None
        time_of_day = self._clock.now()
        # By either clock: setting the time of day back prolongs no pause, and the other clock stops in a sleep.
        over = [name for name, one in self._limits.items() if now >= one.end or time_of_day >= one.limit.until]
        for name in over:
            del self._limits[name]


_LAST_SECONDS = datetime(9999, 1, 1, tzinfo=UTC).timestamp() - 1


def clock_time(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as clocks here show it, with its offset from UTC.

    One later than the year 9998 is shown as its end: a deadline may be as far away as somebody likes.
    """
    return datetime.fromtimestamp(min(seconds, _LAST_SECONDS), UTC).astimezone().isoformat(timespec="seconds")


def _shown(because: str) -> str:
    words = " ".join(strip_terminal_codes(because).split())
    return words if len(words) <= REASON_CHARS else words[: REASON_CHARS - 1] + "…"


class BudgetGate(Protocol):
    """Tells which accounts have used up a budget."""

    def pause_of(self, account: str) -> Pause | None:
        """Return until when nothing of an account starts, or None."""
        ...

    def pauses(self) -> Mapping[str, Pause]:
        """Return the pause of each account that has one."""
        ...


class _NoBudgets(BudgetGate):
    def pause_of(self, account: str) -> Pause | None:
        return None

    def pauses(self) -> Mapping[str, Pause]:
        return {}


def _later(one: Pause | None, other: Pause | None) -> Pause | None:
    return max((one, other), key=lambda pause: 0.0 if pause is None else pause.until)


class Throttle:
    """The limits of the machine, and those of each account.

    An account is named by the digest that `jobs.claude.account` makes, or by an empty text where none is known.

    Args:
        max_running: The machine's cap.
        max_starting: Most jobs whose process has been launched and has not yet said anything.
        free_memory: Returns the bytes of memory that are available.
        memory_floor: Bytes of free memory below which nothing is launched, unless nothing runs.
        clock: Time.
        jitter: Returns a number from 0 to 1.
        uses_extra: Tells whether jobs use what is paid for beyond a usage limit, now.
        budgets: Tells which accounts have used up a budget; None where there are no budgets.

    Attributes:
        machine: What holds for the machine as a whole: its pause is one of all accounts.
    """

    def __init__(
        self,
        *,
        max_running: int,
        max_starting: int,
        free_memory: Callable[[], int],
        memory_floor: int,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        uses_extra: Callable[[], bool] = lambda: False,
        budgets: BudgetGate | None = None,
    ) -> None:
        self._budgets = budgets or _NoBudgets()
        self._used_up: set[str] = set()
        self._max_running = max_running
        self._max_starting = max_starting
        self._free_memory = free_memory
        self._memory_floor = memory_floor
        self._clock = clock
        self._jitter = jitter
        self._uses_extra = uses_extra
        self._starting: set[str] = set()
        self._memory_seen: tuple[float, bool] = (-LOOK_SECONDS, True)
        self._observers: list[Callable[[], None]] = []
        self._accounts: dict[str, AccountLimits] = {}
        self.machine = self._new_limits()

    @property
    def window(self) -> int:
        """How many jobs of the account with the narrowest window may run at once."""
        return min((limits.window for limits in self._accounts.values()), default=self._max_running)

    def of(self, account: str) -> AccountLimits:
        """Return the limits of an account."""
        if account not in self._accounts:
            self._drop_idle()
            self._accounts[account] = self._new_limits()
        return self._accounts[account]

    def pause_of(self, account: str) -> Pause | None:
        """Return why nothing of an account is launched, and until when; None where things go on."""
        limits = self._accounts.get(account)
        return self.machine.pause or _later(limits.pause if limits else None, self._budgets.pause_of(account))

    def pauses(self) -> Mapping[str, Pause]:
        """Return the pause of each account that has one."""
        found = {name: pause for name, limits in self._accounts.items() if (pause := limits.pause) is not None}
        for name, pause in self._budgets.pauses().items():
            found[name] = _later(found.get(name), pause) or pause
        return found

    def usage_limits(self) -> Iterator[tuple[str, UsageLimit]]:
        """Yield each account with each usage limit of it that holds."""
        for name, limits in self._accounts.items():
            for limit in limits.limits:
                yield name, limit

    def observe(self, observer: Callable[[], None]) -> None:
        """Call something whenever a usage limit was noted or lifted, or a budget holds jobs back; it must not wait."""
        self._observers.append(observer)

    def admits(self, running: int) -> bool:
        """Tell whether the machine has room for one more launch while this number of jobs runs."""
        return (
            running < self._max_running
            and self.machine.pause is None
            and len(self._starting) < self._max_starting
            and (running == 0 or self._memory_suffices())
        )

    def admits_of(self, account: str, running: int) -> bool:
        """Tell whether one more job of an account may be launched while this number of them runs."""
        limits = self._accounts.get(account)
        return self._may_spend(account) and (limits is None or limits.admits(running))

    def held_back_by(self, account: str, *, running: int, of_account: int) -> Wait:
        """Return what a queued job of an account waits for: a slot, where nothing else delays it.

        Args:
            account: The account.
            running: How many jobs run.
            of_account: How many of them are of the account.
        """
        limits = self._accounts.get(account)
        if (back_off := self.machine.pause) is not None:
            return Wait(what=WaitingFor.BACK_OFF, until=back_off.until, because=back_off.because)
        wait = None if limits is None else limits.wait(of_account)
        budget = self._budgets.pause_of(account)
        if budget is not None and (wait is None or budget.until > (wait.until or 0.0)):
            return Wait(what=WaitingFor.LIMIT, until=budget.until, because=budget.because)
        if wait is not None:
            return wait
        if running == 0 or self._memory_suffices():
            return Wait(what=WaitingFor.SLOT)
        return Wait(what=WaitingFor.MEMORY, because=f"less than {self._memory_floor // 2**20} MiB are free")

    def look_again_in(self) -> float:
        """Return the seconds after which the gate may have opened by itself."""
        if self.machine.pause is None and (not self._memory_suffices() or len(self._starting) >= self._max_starting):
            return RESCHEDULE_SECONDS
        ends = [
            pause.until - self._clock.now()
            for pause in (self.machine.pause, *self.pauses().values())
            if pause is not None
        ]
        return max(RESCHEDULE_SECONDS, min([LONGEST_LOOK_SECONDS, *ends]))

    def launching(self, job_id: str) -> None:
        """Note that a job's process is being launched."""
        self._starting.add(job_id)

    def started(self, job_id: str) -> None:
        """Note that a job's process has spoken or is over."""
        self._starting.discard(job_id)

    def refused(self, because: str) -> None:
        """The system refused to start a process: launch nothing for a moment, longer each time."""
        self.machine.back_off(because)

    def launched(self) -> None:
        """Note that a process was started and did its work."""
        self.machine.on_success()

    def _new_limits(self) -> AccountLimits:
        return AccountLimits(self._max_running, self._clock, self._jitter, self._tell, self._uses_extra)

    def _tell(self) -> None:
        for observer in self._observers:
            observer()

    def _may_spend(self, account: str) -> bool:
        # Asked where a job of the account could be launched, so this is where its pause begins for others.
        used_up = self._budgets.pause_of(account) is not None
        if used_up != (account in self._used_up):
            self._used_up ^= {account}
            self._tell()
        return not used_up

    def _drop_idle(self) -> None:
        if len(self._accounts) >= _MOST_IDLE:
            for name in [name for name, limits in self._accounts.items() if limits.is_idle]:
                del self._accounts[name]

    def _memory_suffices(self) -> bool:
        seen_at, suffices = self._memory_seen
        now = self._clock.monotonic()
        if now - seen_at >= LOOK_SECONDS:
            suffices = self._free_memory() >= self._memory_floor
            self._memory_seen = (now, suffices)
        return suffices
