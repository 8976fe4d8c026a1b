"""Serves one accepted socket: the handshake, then a control request or MCP, in a task that ends with the connection."""

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from jobs.errors import JobsError
from server.client.wire import MAX_LINE, Hello, ProtocolError, Role, Welcome, decode_line, encode_line
from server.engine.lifecycle import ConnectionCounter
from server.engine.peer import Peer, peer_of, peer_uid
from server.engine.sdk import Sdk
from server.mcp.connection_state import Connection

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
"""How long a client may take to send its hello."""


class PeerUidError(Exception):
    """The other end runs under another user id."""


async def _nothing(_: Hello) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionHandlers:
    """What the engine does with a connection.

    Args:
        admit: Turns a hello and the process that connected, or None where that is not known, into the state of an MCP
            connection, or raises with a sentence for the client. It is called for every role.
        control: Answers a control request.
        leave: Called once an answer with `leaving` has been sent: the engine's end closes every connection.
        idle: Tells whether nothing would be lost if the engine stopped.
        sdk: Serves MCP.
        pid: The engine's process id.
        note: Returns one line for the person at a client, or None.
    """

    admit: Callable[[Hello, Peer | None], Awaitable[Connection]]
    control: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
    leave: Callable[[], None]
    idle: Callable[[], Awaitable[bool]]
    sdk: Sdk
    pid: int
    note: Callable[[Hello], Awaitable[str | None]] = _nothing


async def receive(stream: SocketStream, handlers: ConnectionHandlers) -> None:
    """Serve one connection until either end closes it.

    Args:
        stream: The accepted socket.
        handlers: What to do with it.

    Raises:
        PeerUidError: The other end belongs to another user; a socket of mode 0600 in a directory of mode 0700 should
            have refused it already.
    """
    connection: socket.socket = stream.extra_attributes[SocketAttribute.raw_socket]()
    if peer_uid(connection) not in (None, os.geteuid()):
        raise PeerUidError(f"user {peer_uid(connection)} connected")
    lines = BufferedByteReceiveStream(stream)
    with peer_of(connection) as peer, anyio.move_on_after(HELLO_SECONDS) as hello_limit:
        try:
            hello = Hello.decode(await lines.receive_until(b"\n", MAX_LINE))
            state = await handlers.admit(hello, peer)
        except anyio.DelimiterNotFound:
            return await _refuse(stream, "The hello line is too long.")
        except (ProtocolError, JobsError) as error:
            return await _refuse(stream, str(error))
        welcome = Welcome(pid=handlers.pid, idle=await handlers.idle(), note=await handlers.note(hello))
        await stream.send(welcome.encode())
    if hello_limit.cancelled_caught:
        logger.warning("a client said nothing for %s s", HELLO_SECONDS)
    elif hello.role == Role.CONTROL:
        await _control(stream, lines, handlers)
    else:
        await handlers.sdk.serve(stream, lines, state)
    return None


async def _refuse(stream: SocketStream, reason: str) -> None:
    logger.info("refused a client: %s", reason)
    await stream.send(Welcome(ok=False, error=reason).encode())


async def _control(stream: SocketStream, lines: BufferedByteReceiveStream, handlers: ConnectionHandlers) -> None:
    # Bounded: a client that stays connected and sends no request would keep an idle engine from exiting.
    with anyio.move_on_after(HELLO_SECONDS) as asking:
        line = await _request_line(lines)
    if asking.cancelled_caught:
        logger.warning("a client asked nothing for %s s", HELLO_SECONDS)
        return
    answer = await _answer(line, handlers)
    await stream.send(encode_line(answer, "answer"))
    if answer.get("leaving"):
        handlers.leave()


async def _request_line(lines: BufferedByteReceiveStream) -> bytes | None:
    try:
        return await lines.receive_until(b"\n", MAX_LINE)
    except anyio.DelimiterNotFound:
        return None


async def _answer(line: bytes | None, handlers: ConnectionHandlers) -> dict[str, Any]:
    if line is None:
        return {"ok": False, "error": f"The request line is too long: it may have {MAX_LINE} bytes."}
    try:
        return await handlers.control(decode_line(line, "request"))
    except (ProtocolError, JobsError) as error:
        return {"ok": False, "error": str(error)}


_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead)
"""What a stream raises when the client has disconnected, at any moment."""


async def serve_connection(
    handlers: ConnectionHandlers, connection_counter: ConnectionCounter, stream: SocketStream
) -> None:
    """Serve one connection until either end closes it.

    Args:
        handlers: What to do with it.
        connection_counter: Counts the connection.
        stream: The accepted socket.
    """
    connection_counter.come()
    try:
        async with stream:
            await receive(stream, handlers)
    # Groups: reading and writing are separate tasks. Unforeseen errors are logged where this task was started.
    except* _GONE:
        logger.debug("a client went away")
    except* PeerUidError:
        logger.warning("closed a connection", exc_info=True)
    finally:
        connection_counter.go()
