"""Time as the system tells it."""

import time


class SystemClock:
    """The clock of a running engine."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()
