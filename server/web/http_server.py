"""Serves HTTP requests on loopback with uvicorn, as one task of the engine: without signals or a log of its own."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.web.loopback_peer import Address, LoopbackPeers

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"

MOST_CONNECTIONS: Final = 200
"""Most connections; a further one is closed at once. A browser opens six."""

SILENT_SECONDS: Final = 10
"""Seconds after which a connection without a request is closed."""

KEEP_SECONDS: Final = 60
"""Seconds for which a connection is kept after an answer: each new one has its process looked up."""

END_SECONDS: Final = 1
"""Seconds that answers may take to end once the server stops."""

_HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a request's head: the parents of a large tree stand in the query."""

_BACKLOG: Final = 64


def bound(port: int) -> socket.socket:
    """Return a socket at a port of loopback.

    Args:
        port: The port; 0 for one that is free.

    Raises:
        OSError: It is taken, or may not be used.
    """
    # The protocol is named: asyncio then sends each part of an answer at once.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # An engine that ended left connections behind, for which the system holds the port for a minute.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        # Here, not later: Linux lets two sockets bind that both ask for reuse as long as none listens.
        found.listen(_BACKLOG)
    except OSError:
        found.close()
        raise
    return found


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop_asked = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the engine."""
        yield

    async def main_loop(self) -> None:
        """Wait until it is to stop; uvicorn's own loop would wake an idle engine ten times a second."""
        await self.on_tick(0)
        await self.stop_asked.wait()


class HttpServer:
    """One server at one port.

    Args:
        app: Answers the requests.
        listener: A socket that listens.
        peers: Is told which connections there are.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, peers: LoopbackPeers) -> None:
        self._listener = listener
        self.port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=_protocol(peers),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            # A header must not say which process asks.
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=KEEP_SECONDS,
            timeout_graceful_shutdown=END_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        self._server = _Server(config)
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Serve until it is stopped."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._listener.close()
            self._ended.set()

    async def stop(self) -> None:
        """Take no more connections, and wait until the open answers have ended."""
        self._server.should_exit = True
        self._server.stop_asked.set()
        await self._ended.wait()


def _protocol(peers: LoopbackPeers) -> type[asyncio.Protocol]:
    class Protocol(H11Protocol):
        """One connection."""

        def connection_made(self, transport: Any) -> None:
            """Count it, or close it where there are too many."""
            super().connection_made(transport)
            self.peer: Address = tuple(transport.get_extra_info("peername")[:2])
            peers.come(self.peer)
            if len(self.connections) > MOST_CONNECTIONS:
                transport.abort()
                return
            self.silent = self.loop.call_later(SILENT_SECONDS, self._close_unasked)

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget it."""
            super().connection_lost(exc)
            peers.go(self.peer)

        def _close_unasked(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Protocol
