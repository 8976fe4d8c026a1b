"""Watchdog of a running attempt: tells when to end it, by its time, its silence, its output, or its failure to exit."""

import math
from dataclasses import dataclass

from jobs.model import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogLimits:
    """Limits of one attempt's silence and output.

    Args:
        silence: Seconds without a new line, unless the job waits for its descendants.
        after_answer: Seconds from its answer to its end.
        output: Bytes of output.
    """

    silence: float
    after_answer: float
    output: int


@dataclass(slots=True, kw_only=True)
class Watchdog:
    """Watches one attempt.

    Args:
        limits: The limits.
        deadline: On the monotonic clock; it moves while the job's own jobs are held back.
        heard_at: When it last said something, on the monotonic clock.
        latest: The end of its tree's time, which never moves, on the monotonic clock.
    """

    limits: WatchdogLimits
    deadline: float
    heard_at: float
    latest: float = math.inf
    answered: bool = False
    held_at: float | None = None

    def note_output(self, now: float, *, answered: bool) -> None:
        """Note new output.

        Args:
            now: On the monotonic clock.
            answered: The answer is complete and nothing says that work goes on.
        """
        self.heard_at = now
        self.answered = answered

    def note_waiting(self, now: float) -> None:
        """Note that the job waits for its descendants, and so may be silent."""
        self.heard_at = now

    def held(self, now: float, *, back: bool) -> None:
        """Note at each look whether the job waits for descendants that a limit holds back: its time stops meanwhile.

        Args:
            now: On the monotonic clock.
            back: Whether it does.
        """
        if back and self.held_at is not None:
            self.deadline += now - self.held_at
        self.held_at = now if back else None

    def check(self, now: float, written: int) -> Reason | None:
        """Return why the attempt must be ended, or None.

        Args:
            now: On the monotonic clock.
            written: Bytes of its output.
        """
        silent_for = now - self.heard_at
        if now >= min(self.deadline, self.latest):
            return Reason.DEADLINE
        if written > self.limits.output:
            return Reason.OUTPUT_LIMIT
        if silent_for >= (self.limits.after_answer if self.answered else self.limits.silence):
            return Reason.STALLED
        return None
