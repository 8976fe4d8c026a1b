"""Waits for what another process does and nothing announces: bounded, asked again in short steps."""

import time
from collections.abc import Awaitable, Callable

import anyio

_STEP = 0.01


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: It did not within the seconds.
    """
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 - it is about another process, which sets no event
            await anyio.sleep(_STEP)


def until_now(condition: Callable[[], bool], seconds: float = 10.0, what: str = "the condition") -> None:
    """Return once the condition holds; for tests without an event loop.

    Raises:
        TimeoutError: It did not within the seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {seconds} s")
        time.sleep(_STEP)
