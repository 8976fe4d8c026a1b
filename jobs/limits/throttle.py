"""How many jobs may run at once just now: the machine's cap and free memory, and what each account's limits leave."""

import random
from collections.abc import Callable, Iterator, Mapping

from jobs.limits.account_limits import AccountLimits, Pause, UsageLimit
from jobs.ports import Clock

LOOK_SECONDS = 0.25
"""How old a reading of free memory may be."""

POKE_SECONDS = 0.05
"""How often to look whether memory is free again."""

LONGEST_LOOK_SECONDS = 1.0
"""How often to look whether a pause is over."""

_MOST_IDLE = 64
"""Accounts of which nothing is known and which are remembered all the same."""


class Throttle:
    """What holds for the machine, and the limits of each account.

    An account is named by the digest that `jobs.claude.account_key` makes, or by an empty text where none is known.

    Args:
        max_running: The machine's cap.
        max_starting: Most jobs whose process has been launched and has not yet said anything.
        free_memory: Returns the bytes of memory that are available.
        memory_floor: Below so many bytes nothing is launched, unless nothing runs.
        clock: Time.
        jitter: Returns a number from 0 to 1.
        uses_extra: Tells whether jobs use what is paid for beyond a usage limit, now.
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
    ) -> None:
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
        self._machine = self._new_limits()

    @property
    def pause(self) -> Pause | None:
        """Why nothing is launched on the whole machine, and until when; None where things go on."""
        return self._machine.pause

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
        return self.pause or (limits.pause if limits else None)

    def pauses(self) -> Mapping[str, Pause]:
        """Return the pause of each account that has one."""
        return {name: pause for name, limits in self._accounts.items() if (pause := limits.pause) is not None}

    def usage_limits(self) -> Iterator[tuple[str, UsageLimit]]:
        """Yield each account with each usage limit of it that holds."""
        for name, limits in self._accounts.items():
            for limit in limits.limits:
                yield name, limit

    def observe(self, observer: Callable[[], None]) -> None:
        """Call something whenever a usage limit was noted or lifted; it must not wait."""
        self._observers.append(observer)

    def admits(self, running: int) -> bool:
        """Tell whether the machine has room for one more launch while so many jobs run."""
        return (
            running < self._max_running
            and self.pause is None
            and len(self._starting) < self._max_starting
            and (running == 0 or self._memory_suffices())
        )

    def admits_of(self, account: str, running: int) -> bool:
        """Tell whether one more job of an account may be launched while so many of that account run."""
        limits = self._accounts.get(account)
        return limits is None or limits.admits(running)

    def look_again_in(self) -> float:
        """Return the seconds after which the gate may have opened by itself."""
        if self.pause is None and (not self._memory_suffices() or len(self._starting) >= self._max_starting):
            return POKE_SECONDS
        ends = [pause.until - self._clock.now() for pause in (self.pause, *self.pauses().values()) if pause is not None]
        return max(POKE_SECONDS, min([LONGEST_LOOK_SECONDS, *ends]))

    def launching(self, job_id: str) -> None:
        """Note that a job's process is being launched."""
        self._starting.add(job_id)

    def started(self, job_id: str) -> None:
        """Note that a job's process has spoken or is over."""
        self._starting.discard(job_id)

    def refused(self, because: str) -> None:
        """The system starts no process now: launch nothing for a moment, longer each time."""
        self._machine.back_off(because)

    def launched(self) -> None:
        """Note that a process was started and did its work."""
        self._machine.succeeded()

    def _new_limits(self) -> AccountLimits:
        return AccountLimits(self._max_running, self._clock, self._jitter, self._tell, self._uses_extra)

    def _tell(self) -> None:
        for observer in self._observers:
            observer()

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
