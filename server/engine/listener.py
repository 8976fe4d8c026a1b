"""Accepts connections for as long as the engine lives, also while no file descriptor is free for one more."""

import errno
import logging
import resource
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

import anyio
from anyio.abc import SocketStream

logger = logging.getLogger(__name__)

FILES = 8192
"""Files that the engine may have open, where the system allows it: one per connection; the usual limit is 1,024."""

RETRY_SECONDS = 0.1
"""Seconds until the next try after no descriptor was free; clients that connect meanwhile wait."""

_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener(Protocol):
    """A socket that clients connect to."""

    async def accept(self) -> SocketStream:
        """Return the next connection."""
        ...


def allow_many_files() -> int:
    """Raise this process's limit of open files as far as needed and allowed, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # macOS refuses more than its kernel's limit, even below the hard limit.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def accept_all(
    listener: Listener,
    handle: Callable[[SocketStream], Coroutine[Any, Any, None]],
    start: Callable[..., None],
) -> None:
    """Serve every connection in its own asyncio task, for ever.

    Args:
        listener: Where they come from.
        handle: Serves one connection.
        start: Starts a task; an error in it must not end this loop.

    Raises:
        OSError: The listener is broken.
    """
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _SCARCE:
                raise
            # Not caught, it would end the engine, and with it every other client's connection.
            logger.warning("a client has to wait: %s", error)
            await anyio.sleep(RETRY_SECONDS)
            continue
        start(handle, stream)
