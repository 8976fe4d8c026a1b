"""Retries a write to the store until it succeeds, for as long as the storage is unavailable for a while."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from jobs.errors import StoreError

T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
"""Seconds before the second try; each further one waits twice as long."""

LONGEST_PAUSE = 5.0
"""Seconds between two tries at most: a disk that has space again is noticed within them."""


async def retry_while_unavailable(ask: Callable[[], Awaitable[T]], what: str) -> T:
    """Return what `ask` returns, trying again for as long as the storage fails for now.

    Args:
        ask: Does the work from its beginning; may be called many times.
        what: The work, for the log.

    Raises:
        StoreError: The storage refuses for good.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await ask()
        except StoreError as error:
            if not error.transient:
                raise
            logger.warning("%s: %s; trying again in %g s", what, error.cause, pause)
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
