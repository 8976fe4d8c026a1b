"""Serves an accepted socket: the handshake, then control requests or MCP, in an asyncio task of the connection.

The MCP SDK is loaded in a thread after the engine can be reached.
"""

import gc
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from jobs.errors import JobsError
from jobs.event_bus import JobEventBus
from server.client.wire import MAX_LINE, MAX_MESSAGE, Hello, ProtocolError, Role, Welcome, decode_line, encode_line
from server.engine.lifecycle import ConnectionCounter
from server.engine.peer import Peer, peer_of, peer_uid
from server.feed.scope import FeedScope
from server.feed.watch import FeedWatch, JobFeed
from server.mcp.connection_state import Caller, Connection
from server.mcp.initialize import opening_of
from server.web.service import PageService

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
"""How long a client may take to send its hello."""


HEAD_START = 0.2
"""Seconds that the client which started the engine has for its handshake; the import would slow that down."""


class PeerUidError(Exception):
    """The other end runs under another user id."""


async def _nothing(_: Hello) -> None:
    """Say nothing."""


class LazyMcpServer:
    """The MCP server of an engine, which is built once it is needed.

    Args:
        event_bus: Where changes of jobs are announced.
        start_soon: Starts a coroutine function in the engine's task group.
    """

    def __init__(self, event_bus: JobEventBus, start_soon: Callable[..., object]) -> None:
        self._event_bus = event_bus
        self._start_soon = start_soon
        self._loading = anyio.Lock()
        self._loaded: tuple[Any, Any] | None = None

    async def load(self) -> tuple[Any, Any]:
        """Load the MCP server if it is not loaded yet; return the class that serves a connection, and the server."""
        async with self._loading:
            if self._loaded is None:
                self._loaded = await anyio.to_thread.run_sync(_import, self._event_bus, self._start_soon)
            return self._loaded

    async def load_soon(self) -> None:
        """Load the MCP server after `HEAD_START`, so that a later client does not wait for it."""
        await anyio.sleep(HEAD_START)
        await self.load()

    async def serve(self, stream: SocketStream, lines: BufferedByteReceiveStream, state: Connection) -> None:
        """Serve MCP until either end closes the connection; until the SDK is loaded, `initialize` alone is answered.

        Args:
            stream: The socket, after the handshake.
            lines: What is read from it.
            state: What handlers find as their lifespan's state.
        """
        opening = None
        if self._loaded is None:
            try:
                opening = opening_of(await lines.receive_until(b"\n", MAX_MESSAGE))
            except (anyio.IncompleteRead, anyio.DelimiterNotFound):
                # What was read of it is still in `lines`, to be answered as any other line.
                if not lines.buffer:
                    return
            else:
                if opening.reply is not None:
                    await stream.send(opening.reply)
        connection_class, server = self._loaded or await self.load()
        await connection_class(stream, lines, state.flow, opening).serve(server, state)


def _import(event_bus: JobEventBus, start_soon: Callable[..., object]) -> tuple[Any, Any]:
    # Imported here: this is what takes so long.
    from server.engine.mcp_connection import McpConnection
    from server.mcp.server import build_server
    from server.mcp.subscriptions import Subscriptions

    server = build_server(Subscriptions(event_bus, start_soon))
    # What was imported is never garbage; each full collection would walk through it.
    gc.freeze()
    return McpConnection, server


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionHandlers:
    """What the engine does with a connection.

    Args:
        admit: Turns a hello and the process that connected, or None where that is not known, into the state of an MCP
            connection, or raises with a sentence for the client. It is called for every role.
        control: Answers a control request.
        feed: Answers the control request `feed`.
        page: Answers the control request `web`.
        stop_engine: Called once an answer with `leaving` has been sent: the engine's end closes every connection.
        idle: Tells whether nothing would be lost if the engine stopped.
        mcp_server: Serves MCP.
        pid: The engine's process id.
        note: Returns one line for the person at a client, or None.
    """

    admit: Callable[[Hello, Peer | None], Awaitable[Connection]]
    control: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
    feed: JobFeed
    page: PageService
    stop_engine: Callable[[], None]
    idle: Callable[[], Awaitable[bool]]
    mcp_server: LazyMcpServer
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
        await _control(stream, lines, handlers, state.caller)
    else:
        await handlers.mcp_server.serve(stream, lines, state)
    return None


async def _refuse(stream: SocketStream, reason: str) -> None:
    logger.info("refused a client: %s", reason)
    await stream.send(Welcome(ok=False, error=reason).encode())


async def _control(
    stream: SocketStream, lines: BufferedByteReceiveStream, handlers: ConnectionHandlers, caller: Caller
) -> None:
    """Answer one request after the other, until the client closes the connection or asks nothing for some seconds."""
    with handlers.feed.watch() as watcher:
        while True:
            # Bounded: a client that stays connected and sends no request would keep an idle engine from exiting.
            with anyio.move_on_after(HELLO_SECONDS) as asking:
                line = await _request_line(lines)
            if asking.cancelled_caught:
                logger.warning("a client asked nothing for %s s", HELLO_SECONDS)
                return
            answer = await _answer(line, handlers, watcher, caller)
            await stream.send(_encoded(answer))
            if answer.get("leaving"):
                handlers.stop_engine()
            if line is None or answer.get("leaving"):
                return


async def _request_line(lines: BufferedByteReceiveStream) -> bytes | None:
    try:
        return await lines.receive_until(b"\n", MAX_LINE)
    except anyio.DelimiterNotFound:
        return None


async def _answer(
    line: bytes | None, handlers: ConnectionHandlers, watcher: FeedWatch, caller: Caller
) -> dict[str, Any]:
    if line is None:
        return {"ok": False, "error": f"The request line is too long: it may have {MAX_LINE} bytes."}
    try:
        request = decode_line(line, "request")
        if request.get("do") == "feed":
            return await watcher.page(_word(request, "cursor"), FeedScope(root_id=_word(request, "tree")))
        if request.get("do") == "web":
            return await handlers.page.answer(request, caller)
        return await handlers.control(request)
    except (ProtocolError, JobsError) as error:
        return {"ok": False, "error": str(error)}


def _word(request: Mapping[str, Any], name: str) -> str | None:
    value = request.get(name)
    return value if isinstance(value, str) else None


def _encoded(answer: Mapping[str, Any]) -> bytes:
    try:
        return encode_line(answer, "answer")
    except ProtocolError as error:
        return encode_line({"ok": False, "error": str(error)}, "answer")


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
        logger.debug("a client disconnected")
    except* PeerUidError:
        logger.warning("closed a connection", exc_info=True)
    finally:
        connection_counter.go()
