"""Time as the system tells it."""

import time

import anyio


class SystemClock:
    """The clock of a running engine."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()


async def beat(seconds: float) -> None:
    """Sleep until the event loop's clock shows a multiple of so many seconds.

    What beats in step wakes the process once: an idle engine is woken a few times a second by nothing else.

    Args:
        seconds: From one beat to the next.
    """
    await anyio.sleep_until((anyio.current_time() // seconds + 1) * seconds)
