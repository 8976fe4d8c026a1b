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
"""Seconds that a request's head may take, the first one of a connection also to begin; then it is closed."""

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


class _Patient(H11Protocol):
    """A connection that is closed where no request comes, or one that does not go on; uvicorn waits without an end."""

    silent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        if not self._is_asking():
            if self.silent is not None:
                self.silent.cancel()
                self.silent = None
        elif self.silent is None:
            self.silent = self.loop.call_later(SILENT_SECONDS, self._close_unasked)

    def _is_asking(self) -> bool:
        # Between two requests uvicorn has a timer of its own, up to the first byte of the second one.
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and self.timeout_keep_alive_task is None and not self.transport.is_closing()

    def _close_unasked(self) -> None:
        if self._is_asking():
            self.transport.close()


def _protocol(peers: LoopbackPeers) -> type[asyncio.Protocol]:
    class Protocol(_Patient):
        """One connection."""

        def connection_made(self, transport: Any) -> None:
            """Count it, or close it where there are too many."""
            super().connection_made(transport)
            self.peer: Address = tuple(transport.get_extra_info("peername")[:2])
            peers.come(self.peer)
            if len(self.connections) > MOST_CONNECTIONS:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget it."""
            super().connection_lost(exc)
            peers.go(self.peer)

    return Protocol
