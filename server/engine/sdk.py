"""The part of the engine that needs the MCP SDK, loaded in a thread after the engine can be reached."""

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from jobs.event_bus import JobEventBus
from server.client.wire import MAX_MESSAGE
from server.mcp.connection_state import Connection
from server.mcp.initialize import Opening, opening_of

Serve = Callable[[SocketStream, BufferedByteReceiveStream, Connection, Opening | None], Awaitable[None]]
"""Serves MCP on a connection until either end closes it."""

HEAD_START = 0.2
"""Seconds that the client which started the engine has for its handshake; the import would slow that down."""


class Sdk:
    """The MCP server of an engine, which is built once it is needed.

    Args:
        event_bus: Where changes of jobs are announced.
        start_soon: Starts a coroutine function in the engine's task group.
    """

    def __init__(self, event_bus: JobEventBus, start_soon: Callable[..., object]) -> None:
        self._event_bus = event_bus
        self._start_soon = start_soon
        self._loading = anyio.Lock()
        self._serve: Serve | None = None

    async def load(self) -> Serve:
        """Load the MCP server if it is not loaded yet, and return what serves a connection."""
        async with self._loading:
            if self._serve is None:
                self._serve = await anyio.to_thread.run_sync(_import, self._event_bus, self._start_soon)
            return self._serve

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
        if self._serve is None:
            try:
                opening = opening_of(await lines.receive_until(b"\n", MAX_MESSAGE))
            except (anyio.IncompleteRead, anyio.DelimiterNotFound):
                # What was read of it is still in `lines`, to be answered as any other line.
                if not lines.buffer:
                    return
            else:
                if opening.reply is not None:
                    await stream.send(opening.reply)
        await (await self.load())(stream, lines, state, opening)


def _import(event_bus: JobEventBus, start_soon: Callable[..., object]) -> Serve:
    # Imported here: this is what takes so long.
    from server.engine.mcp_connection import McpConnection
    from server.mcp.server import build_server
    from server.mcp.subscriptions import Subscriptions

    server: Any = build_server(Subscriptions(event_bus, start_soon))
    # What was imported is never garbage; each full collection would walk through it.
    gc.freeze()

    async def serve(
        stream: SocketStream, lines: BufferedByteReceiveStream, state: Connection, opening: Opening | None
    ) -> None:
        await McpConnection(stream, lines, state.flow, opening).serve(server, state)

    return serve
