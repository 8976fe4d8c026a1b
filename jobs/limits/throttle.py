"""How many jobs may run at once just now: the machine's cap, less what the API's limits and free memory leave of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from jobs.ports import Clock

HALVING_SECONDS = 5.0
"""Limits that arrive together are one: twenty jobs that meet the same 429 must not halve twenty times."""

JITTER_SECONDS = 5.0
"""Most seconds after a usage limit ends until the first job starts again, so that engines do not all come at once."""

DEFAULT_PAUSE_SECONDS = 60.0
"""Pause where a usage limit does not say when it ends."""

LONGEST_PAUSE_SECONDS = 8 * 86_400.0
"""A usage limit that ends later says nothing: the longest known is one of a week, and a job can write any number."""

FIRST_BACK_OFF_SECONDS = 1.0
"""Pause after the first attempt that the API's trouble ended; each further one without a success between is doubled."""

LONGEST_BACK_OFF_SECONDS = 60.0
"""Longest of these pauses."""

LOOK_SECONDS = 0.25
"""How old a reading of free memory may be."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is launched for now.

    Args:
        until: Seconds since the epoch, for people.
        because: What the API said, for a person.
    """

    until: float
    because: str


class Throttle:
    """One limiter for the whole machine: additive increase, multiplicative decrease, pauses, a floor of free memory.

    Args:
        max_running: The machine's cap.
        max_starting: Most jobs whose process has been launched and has not yet said anything.
        free_memory: Returns the bytes of memory that are available.
        memory_floor: Below so many bytes nothing is launched, unless nothing runs.
        clock: Time.
        jitter: Returns a number from 0 to 1.
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
    ) -> None:
        self._max_running = max_running
        self._max_starting = max_starting
        self._free_memory = free_memory
        self._memory_floor = memory_floor
        self._clock = clock
        self._jitter = jitter
        self._window = float(max_running)
        self._starting: set[str] = set()
        self._quiet_until = 0.0
        self._back_off = FIRST_BACK_OFF_SECONDS
        self._pause: tuple[float, Pause] | None = None
        self._memory_seen: tuple[float, bool] = (-LOOK_SECONDS, True)

    @property
    def window(self) -> int:
        """How many jobs may run at once by the API's limits: at least 1, at most the machine's cap."""
        return max(1, int(self._window))

    @property
    def pause(self) -> Pause | None:
        """Why nothing is launched, and until when; None where things go on."""
        if self._pause is not None and self._clock.monotonic() >= self._pause[0]:
            self._pause = None
        return self._pause[1] if self._pause else None

    def admits(self, running: int) -> bool:
        """Tell whether one more job may be launched while so many run."""
        return (
            running < self.window
            and self.pause is None
            and len(self._starting) < self._max_starting
            and (running == 0 or self._memory_suffices())
        )

    def launching(self, job_id: str) -> None:
        """Note that a job's process is being launched."""
        self._starting.add(job_id)

    def started(self, job_id: str) -> None:
        """Note that a job's process has spoken or is over."""
        self._starting.discard(job_id)

    def limited(self) -> None:
        """The API refused or delayed a request: halve the window, once for all that come together."""
        now = self._clock.monotonic()
        if now >= self._quiet_until:
            self._window = max(1.0, self._window / 2)
            self._quiet_until = now + HALVING_SECONDS

    def succeeded(self) -> None:
        """A job ended without meeting a limit: widen the window by one for each window of such jobs."""
        self._back_off = FIRST_BACK_OFF_SECONDS
        self._window = min(float(self._max_running), self._window + 1 / self._window)

    def used_up(self, resets_at: float | None, because: str) -> None:
        """A usage limit was reached: launch nothing until it ends and a little longer.

        Args:
            resets_at: Seconds since the epoch at which it ends, or None where it does not say.
            because: What the API said.
        """
        left = DEFAULT_PAUSE_SECONDS if resets_at is None else max(0.0, resets_at - self._clock.now())
        if left > LONGEST_PAUSE_SECONDS:
            left = DEFAULT_PAUSE_SECONDS
        self._launch_nothing_for(left + JITTER_SECONDS * self._jitter(), because)

    def back_off(self, because: str) -> None:
        """An attempt was ended by trouble of the API that passes: launch nothing for a moment, longer each time.

        Attempts that end while nothing is launched anyway met the same trouble: they lengthen nothing.

        Args:
            because: What the API said.
        """
        if self.pause is None:
            self._launch_nothing_for(self._back_off * (1 + self._jitter()) / 2, because)
            self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF_SECONDS)

    def _launch_nothing_for(self, seconds: float, because: str) -> None:
        end = self._clock.monotonic() + seconds
        if self._pause is None or end > self._pause[0]:
            self._pause = (end, Pause(until=self._clock.now() + seconds, because=because))

    def _memory_suffices(self) -> bool:
        seen_at, suffices = self._memory_seen
        now = self._clock.monotonic()
        if now - seen_at >= LOOK_SECONDS:
            suffices = self._free_memory() >= self._memory_floor
            self._memory_seen = (now, suffices)
        return suffices
