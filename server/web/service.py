"""The page of an engine: begun by the control request `web`, served again by the next engine, and ended on request."""

import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from jobs.errors import EngineStoppingError, JobsError
from jobs.ports import Clock
from server.feed.costs import Costs
from server.feed.job_details import JobDetails
from server.feed.watch import FeedWatch
from server.mcp.connection_state import Caller, Services
from server.web.access import HIGHEST_PORT, LOWEST_PORT, Codes, Sessions
from server.web.event_stream import Counter
from server.web.job_view import JobViews, LimitsOf
from server.web.loopback_peer import LoopbackPeers, Refuse

if TYPE_CHECKING:
    from server.web.http_server import HttpServer

logger = logging.getLogger(__name__)

END_SECONDS: Final = 2.0
"""Seconds that the end of the server may take; what is left then ends with the engine."""


class PortError(JobsError):
    """A port cannot be used.

    Args:
        port: The port.
        problem: What is wrong with it, in a few words.
    """

    def __init__(self, port: object, problem: str) -> None:
        super().__init__(f"Port {str(port)[:20]}: {problem}. `claude-jobs web --port N` takes another one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageParts:
    """What the page is built from.

    Args:
        home: The state directory.
        sessions_file: Where the digests of sessions are kept.
        services: What the tools call.
        watch: Returns a watcher of the job feed for as long as a block lasts.
        details: Reads everything about one job.
        costs: Reads what trees have cost.
        limits_of: Reads limits of what lives.
        counter: Counts the connections of the engine.
        refuse: Raises where a process may not act as a person; blocks.
        words: Rewrites a tool's text for a person.
        load_tools: Loads the tools and the MCP SDK, once.
        clock: Time.
        trees: The directory of the trees.
        secrets_of: Returns the secret values of a tree, by its id; called in a thread.
    """

    home: Path
    sessions_file: Path
    services: Services
    watch: Callable[[], AbstractContextManager[FeedWatch]]
    details: JobDetails
    costs: Costs
    limits_of: LimitsOf
    counter: Counter
    refuse: Refuse
    words: Callable[[str], str]
    load_tools: Callable[[], Awaitable[object]]
    clock: Clock
    trees: Path
    secrets_of: Callable[[str], Collection[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    server: "HttpServer"
    stopping: anyio.Event

    async def end(self) -> None:
        """Tell the open pages, and take no more requests."""
        self.stopping.set()
        await self.server.stop()


class PageService:
    """Serves the page, from the first request for it to the end of the engine.

    Args:
        parts: What it is built from.
        start: Starts an asyncio task of the engine.
    """

    def __init__(self, parts: PageParts, start: Callable[..., object]) -> None:
        self._parts = parts
        self._start = start
        self._codes = Codes(parts.clock)
        self._sessions = Sessions(parts.sessions_file, parts.clock)
        self._turn = anyio.Lock()
        self._is_restored = False
        self._is_closed = False
        self._served: _Served | None = None
        self._note = ""

    @property
    def port(self) -> int | None:
        """The port at which the page is served, or None."""
        return None if self._served is None else self._served.server.port

    async def answer(self, request: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Answer the control request `web`: with a URL that lets one browser in, or with the end of the page.

        Args:
            request: `port`, or `off`.
            caller: The client that asks.

        Raises:
            PortError: The port cannot be used.
            EngineStoppingError: The engine is stopping.
        """
        try:
            async with self._turn:
                if request.get("off"):
                    await self._end()
                    return {"ok": True, "off": True}
                await self._restore()
                await self._serve(_port_in(request))
        except OSError as error:
            return {"ok": False, "error": f"The page cannot be served, or its end not be noted: {error}"}
        note, self._note = self._note, ""
        url = f"http://127.0.0.1:{self.port}/open?code={self._codes.make(caller)}"
        return {"ok": True, "url": url, "port": self.port, **({"note": note} if note else {})}

    async def resume(self) -> None:
        """Serve again where an earlier engine did, with the sessions that it had."""
        async with self._turn:
            await self._restore()

    async def close(self) -> None:
        """Tell open pages that the engine stops, and serve no more."""
        self._is_closed = True
        with anyio.move_on_after(END_SECONDS):
            async with self._turn:
                await self._stop()

    async def _restore(self) -> None:
        if self._is_restored:
            return
        self._is_restored = True
        port = await self._sessions.restore()
        if port is None or self._is_closed:
            return
        try:
            self._served = await self._begin(port)
        except OSError as error:
            self._note = f"Port {port}, where the page was, is in use by another program."
            logger.warning("the page cannot be served at port %d any more: %s", port, error)

    async def _end(self) -> None:
        self._is_restored = True
        self._codes.clear()
        await self._stop()
        await self._sessions.end_all()

    async def _serve(self, asked: int | None) -> None:
        if self._is_closed:
            raise EngineStoppingError
        before = self._served
        if before is not None and asked in {None, before.server.port}:
            return
        asked = asked or self._parts.services.settings.http_port
        try:
            self._served = await self._begin(asked or 0)
        except OSError as error:
            if not asked:
                raise
            raise PortError(asked, f"it cannot be used ({error.strerror})") from error
        if before is not None:
            await before.end()
        await self._sessions.serve_at(self._served.server.port)

    async def _begin(self, port: int) -> _Served:
        # First: two threads that import the SDK at once may wait for each other.
        await self._parts.load_tools()
        # In a thread: these imports take 0.3 s, and most engines serve no page.
        await anyio.to_thread.run_sync(_import)
        served = self._built(port)
        self._start(served.server.run)
        logger.info("the page is served at port %d", served.server.port)
        return served

    def _built(self, port: int) -> _Served:
        from server.transcript.pages import TranscriptPages
        from server.web.actions import Actions
        from server.web.guard import Guard
        from server.web.http_server import HttpServer, bound
        from server.web.page import PageRequests, PageSources

        parts, stopping = self._parts, anyio.Event()
        peers = LoopbackPeers(parts.refuse)
        sources = PageSources(
            home=parts.home,
            pid=os.getpid(),
            codes=self._codes,
            sessions=self._sessions,
            watch=parts.watch,
            counter=parts.counter,
            job_views=JobViews(parts.services, parts.details, parts.limits_of),
            costs=parts.costs,
            transcripts=TranscriptPages(parts.trees, parts.services.store, parts.secrets_of),
            actions=Actions(parts.services, parts.words),
            stopping=stopping,
        )
        listener = bound(port)
        chosen: int = listener.getsockname()[1]

        async def refusal(scope: Mapping[str, Any]) -> str | None:
            return await peers.refusal(tuple(scope["client"]), tuple(scope["server"]))

        app = Guard(PageRequests(sources, chosen).app, chosen, refusal)
        return _Served(server=HttpServer(app, listener, peers), stopping=stopping)

    async def _stop(self) -> None:
        served, self._served = self._served, None
        if served is not None:
            await served.end()


def _import() -> None:
    import server.web.http_server
    import server.web.page  # noqa: F401 - loaded for what follows


def _port_in(request: Mapping[str, Any]) -> int | None:
    port = request.get("port")
    if port is None:
        return None
    if not isinstance(port, int) or isinstance(port, bool) or not LOWEST_PORT <= port <= HIGHEST_PORT:
        raise PortError(port, f"give a number from {LOWEST_PORT} to {HIGHEST_PORT}")
    return port
