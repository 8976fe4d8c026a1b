"""The beat of an idle engine."""

import anyio


async def beat(seconds: float) -> None:
    """Sleep until the event loop's clock shows a multiple of so many seconds.

    What beats in step wakes the process once: an idle engine is woken a few times a second by nothing else.

    Args:
        seconds: From one beat to the next.
    """
    await anyio.sleep_until((anyio.current_time() // seconds + 1) * seconds)
