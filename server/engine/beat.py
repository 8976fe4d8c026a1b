"""The timer that the engine's periodic tasks share."""

import anyio


async def beat(seconds: float) -> None:
    """Sleep until the event loop's clock shows a multiple of `seconds`.

    Tasks that wake together wake the process once: nothing else wakes an idle engine a few times a second.

    Args:
        seconds: From one beat to the next.
    """
    await anyio.sleep_until((anyio.current_time() // seconds + 1) * seconds)
