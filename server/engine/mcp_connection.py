"""MCP over one connection: JSON lines in order, a bounded inbox, and no faster than the client reads its replies."""

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import anyio
import mcp_types
from anyio.abc import ObjectReceiveStream, ObjectSendStream, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_dual_era_loop
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.jsonrpc_dispatcher import cancelled_request_id_from_params
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from pydantic import ValidationError

from server.client.jsonrpc import BadMessageError, LineCutter, LongLine, parse
from server.client.wire import MAX_MESSAGE
from server.mcp.connection_state import FlowControl, RequestId
from server.mcp.initialize import Opening

MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one connection's queued messages; a single longer message may be queued alone."""

_OVERHEAD: Final = 256
"""Bytes that a queued message takes besides its text."""


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """One queued message.

    Args:
        line: Its text.
        request_id: The id of a request, or None for what is no request.
        size: The bytes that it takes.
    """

    line: bytes
    request_id: RequestId | None
    size: int


class Inbox:
    """The queue of one connection's messages that are not handled yet."""

    def __init__(self) -> None:
        self._queue: deque[Queued] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = anyio.Event()

    async def put(self, line: bytes, request_id: RequestId | None) -> None:
        """Add a message at the end, once there is room for it.

        Args:
            line: As in `Queued`.
            request_id: See there.
        """
        message = Queued(line, request_id, len(line) + _OVERHEAD)
        while self._queue and self._bytes + message.size > MAX_QUEUED_BYTES:
            await self._changed.wait()
        self._queue.append(message)
        self._bytes += message.size
        self._announce()

    def close(self) -> None:
        """Record that no further message will come."""
        self._closed = True
        self._announce()

    async def first(self) -> Queued | None:
        """Return the first message once there is one, and leave it queued; None where no further message will come."""
        while not self._queue:
            if self._closed:
                return None
            await self._changed.wait()
        return self._queue[0]

    def remove(self, message: Queued) -> bool:
        """Remove a message from the queue; False where it is not there any more."""
        try:
            self._queue.remove(message)
        except ValueError:
            return False
        self._bytes -= message.size
        self._announce()
        return True

    def withdraw(self, request_id: RequestId) -> bool:
        """Remove a cancelled request from the queue; False where it is not there."""
        found = next((one for one in self._queue if one.request_id == request_id), None)
        return found is not None and self.remove(found)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


Incoming = SessionMessage | Exception
"""A message, or what was wrong with a line that is none."""


class _Refusal(SessionMessage):
    """The answer to a line that is no message: it ends no request, even if it has the id of one."""


class McpConnection:
    """Serves MCP to one client.

    Three tasks: one reads lines into the inbox, one hands them to the server while there is room, one writes replies.

    Args:
        stream: The socket, after the handshake.
        lines: What is read from it.
        flow: Counts the requests that are not answered yet.
        opening: The first line, which was read already, or None.
    """

    def __init__(
        self,
        stream: SocketStream,
        lines: BufferedByteReceiveStream,
        flow: FlowControl,
        opening: Opening | None = None,
    ) -> None:
        self._stream = stream
        self._lines = lines
        self._flow = flow
        self._first = opening.line if opening else b""
        self._answered = opening.request_id if opening else None
        self._inbox = Inbox()

    async def serve(self, server: Server[Any], state: Any) -> None:
        """Serve until either end closes the connection.

        Args:
            server: The MCP server.
            state: What its handlers find as their lifespan's state.
        """
        to_server, incoming = anyio.create_memory_object_stream[Incoming](0)
        outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](0)
        # Closed here too: a task that is cancelled before it begins closes nothing.
        refusals = outgoing.clone()
        async with anyio.create_task_group() as group:
            with to_server, incoming, outgoing, refusals, from_server:
                group.start_soon(self._read, to_server, refusals)
                group.start_soon(self._hand_over, to_server)
                group.start_soon(self._write, from_server)
                await serve_dual_era_loop(
                    server,
                    incoming,
                    outgoing,
                    lifespan_state=state,
                    init_options=server.create_initialization_options(),
                )
            group.cancel_scope.cancel()

    async def _read(self, to_server: ObjectSendStream[Incoming], to_client: ObjectSendStream[SessionMessage]) -> None:
        async with to_client:
            async for line in _lines(self._lines, self._first):
                message = message_in(line)
                if isinstance(message, BadMessageError):
                    await to_client.send(_refusal(message))
                elif isinstance(line, bytes):
                    await self._sort(line, message, to_server)
        self._inbox.close()

    async def _sort(self, line: bytes, message: Incoming, to_server: ObjectSendStream[Incoming]) -> None:
        """Queue a message; what is about requests that were sent before it is not queued behind others.

        Without that a client with a long queue could neither cancel a call nor answer what one of its calls asks.
        """
        match message.message if isinstance(message, SessionMessage) else message:
            case mcp_types.JSONRPCRequest(id=request_id):
                await self._inbox.put(line, coerce_request_id(request_id))
            case mcp_types.JSONRPCNotification(method="notifications/cancelled", params=params):
                cancelled = cancelled_request_id_from_params(params)
                if cancelled is None or not self._inbox.withdraw(coerce_request_id(cancelled)):
                    await to_server.send(message)
            case mcp_types.JSONRPCNotification(method=method) if method != "notifications/progress":
                await self._inbox.put(line, None)
            case Exception():
                await self._inbox.put(line, None)
            case _:
                await to_server.send(message)

    async def _hand_over(self, to_server: ObjectSendStream[Incoming]) -> None:
        # Closed here: a client may close its side right after its requests, and they are begun all the same.
        async with to_server:
            while (queued := await self._inbox.first()) is not None:
                if queued.request_id is not None:
                    # It stays queued meanwhile, where a cancellation finds it.
                    await self._flow.begin(queued.request_id, queued.size)
                if not self._inbox.remove(queued):
                    self._end(queued.request_id)
                    continue
                try:
                    await to_server.send(self._counted(message_in(queued.line), queued.request_id))
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    return  # the client has disconnected and needs no answer

    async def _write(self, from_server: ObjectReceiveStream[SessionMessage]) -> None:
        async for message in from_server:
            content, ended, repeats = message.message, None, False
            if isinstance(content, mcp_types.JSONRPCResponse | mcp_types.JSONRPCError):
                ended = None if isinstance(message, _Refusal) else content.id
            if ended is not None and self._answered is not None:
                # The server's own answer to the `initialize` that was answered before it was loaded. An error too: the
                # server may refuse what was accepted before it was loaded.
                repeats, self._answered = ended == self._answered, None
            if not repeats:
                text = content.model_dump_json(by_alias=True, exclude_unset=True)
                await self._stream.send(text.encode() + b"\n")
            self._end(ended)

    def _counted(self, message: Incoming, request_id: RequestId | None) -> Incoming:
        """Return a request that is also counted out when it gets no answer, because its sender cancelled it."""
        if request_id is None or isinstance(message, Exception):
            return message

        async def unanswered() -> None:
            self._end(request_id)

        return SessionMessage(message.message, ServerMessageMetadata(on_request_unanswered=unanswered))

    def _end(self, request_id: RequestId | None) -> None:
        if request_id is not None:
            self._flow.end(coerce_request_id(request_id))


async def _lines(stream: BufferedByteReceiveStream, first: bytes) -> AsyncIterator[bytes | LongLine]:
    cutter = LineCutter(MAX_MESSAGE)
    arrived = cutter.feed(first + b"\n") if first else []
    while True:
        for line in arrived:
            if isinstance(line, LongLine) or line.strip():
                yield line
        try:
            arrived = cutter.feed(await stream.receive())
        except anyio.EndOfStream:
            break
    for line in cutter.rest():
        yield line


def _refusal(error: BadMessageError) -> SessionMessage:
    data = mcp_types.ErrorData(code=error.code, message=error.problem)
    return _Refusal(mcp_types.JSONRPCError(jsonrpc="2.0", id=error.key, error=data))


def message_in(line: bytes | LongLine) -> Incoming:
    """Return the message in a line; a `BadMessageError` where it is none, another error where it asks for no answer."""
    message = None
    if isinstance(line, bytes):
        with suppress(ValidationError):
            message = SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
        # With an id of a wrong type the SDK takes a request for a notification.
        if message and not (isinstance(message.message, mcp_types.JSONRPCNotification) and b'"id"' in line):
            return message
    try:
        read = parse(line)
    except BadMessageError as error:
        return error
    return message or _read_again(read)


def _read_again(read: Mapping[str, Any]) -> Incoming:
    r"""Parse a message that the SDK refused once more, with a question mark for each half of a surrogate pair.

    JavaScript writes half a character as "\ud800" where it cuts a text in two; pydantic refuses the whole message, and
    its sender would wait for an answer for ever.
    """
    try:
        text = json.dumps(read, ensure_ascii=False).encode("utf-8", "replace")
        return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(text, by_name=False))
    except (ValidationError, RecursionError) as error:
        if "method" not in read:
            return error
        # Our rules accept it, and the SDK does not: it reads no deeper.
        return BadMessageError(mcp_types.INVALID_REQUEST, "The message is nested too deeply.", read.get("id"))
