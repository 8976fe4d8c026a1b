"""The boundary of a connection: whatever goes wrong with it ends there."""

import logging

import anyio
from anyio.abc import SocketStream

from jobs.errors import JobsError
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
    # Groups: reading and writing are tasks of their own. What escapes here would end the engine and every connection.
    except* _GONE:
        logger.debug("a client went away")
    except* StrangerError:
        logger.warning("closed a connection", exc_info=True)
    except* (JobsError, OSError, ValueError):
        logger.exception("a connection failed")
    finally:
        presence.go()
