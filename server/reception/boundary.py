"""Serves one connection as a task of its own, which ends with it and with nothing else."""

import logging

import anyio
from anyio.abc import SocketStream

from server.reception.connection import Reception, StrangerError, receive
from server.reception.presence import Presence

logger = logging.getLogger(__name__)

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead)
"""How a stream says that the client left, at whatever moment it did."""


async def serve_connection(reception: Reception, presence: Presence, stream: SocketStream) -> None:
    """Serve one connection until either end closes it.

    Args:
        reception: What to do with it.
        presence: Counts it.
        stream: The accepted socket.
    """
    presence.come()
    try:
        async with stream:
            await receive(stream, reception)
    # Groups: reading and writing are tasks of their own. What is unforeseen is logged where this task was started.
    except* _GONE:
        logger.debug("a client went away")
    except* StrangerError:
        logger.warning("closed a connection", exc_info=True)
    finally:
        presence.go()
