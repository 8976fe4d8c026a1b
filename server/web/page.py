"""The requests of the page: each route and what answers it."""

import json
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.errors import JobsError, NotFoundError, StoreError
from jobs.util.text import secrets_in
from server import __version__
from server.feed.costs import Costs
from server.feed.scope import FeedScope
from server.feed.watch import FeedWatch
from server.transcript.pages import NoSuchAttemptError, Place, TranscriptPages
from server.web import event_stream
from server.web.access import Codes, Session, Sessions, TooManyCodesError
from server.web.actions import Actions
from server.web.answers import file_answer, json_answer, refused, way_in, welcome
from server.web.event_stream import EventStream
from server.web.guard import MOST_BYTES, cookie_name, tokens_in, too_long
from server.web.job_view import JobViews

MOST_STREAMS: Final = 64
"""Most open streams of events."""

LASTING_STREAMS: Final = 4
"""Most streams of one browser that last; a further page of it asks again and again.

A browser opens at most six connections to a host, over all of its windows: six streams that last would leave none for
the kill of a job, and a seventh page would never load.
"""

BODY_SECONDS: Final = 20.0
"""Seconds that the body of a request may take."""

_PLACE: Final = re.compile(r"(?:tree/[a-z0-9]{1,40}(?:/[a-z0-9]{1,40}|/costs)?|costs)")
"""Where in the page a code may lead to."""

_NUMBER: Final = re.compile(r"[0-9]{1,15}")

_FILE: Final = re.compile(r"[a-z0-9-]{1,60}\.(?:js|css|svg)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSources:
    """What the requests read and act on.

    Args:
        home: The state directory.
        pid: The engine's process id.
        codes: The codes that are open.
        sessions: The browsers that were let in.
        watch: Returns a watcher of the job feed for as long as a block lasts.
        counter: Counts the connections of the engine.
        job_views: Reads everything about one job.
        costs: Reads what trees have cost.
        transcripts: Reads pages of transcripts.
        actions: Acts on jobs.
        stopping: Set once the server stops.
    """

    home: Path
    pid: int
    codes: Codes
    sessions: Sessions
    watch: Callable[[], AbstractContextManager[FeedWatch]]
    counter: event_stream.Counter
    job_views: JobViews
    costs: Costs
    transcripts: TranscriptPages
    actions: Actions
    stopping: anyio.Event


class BadRequestError(JobsError):
    """A request cannot be used as it is.

    Args:
        problem: What is wrong with it, as a sentence.
        status: The status of HTTP.
    """

    def __init__(self, problem: str, status: int = 400) -> None:
        self.status = status
        super().__init__(problem)


Handler = Callable[[Request, Session], Awaitable[Response | ASGIApp]]


class PageRequests:
    """Answers the requests at one port.

    Args:
        sources: What they read.
        port: The port, which the name of the cookie has.
    """

    def __init__(self, sources: PageSources, port: int) -> None:
        self._sources = sources
        self._port = port
        # Open streams, and those that last, by the digest of their session.
        self._streams = 0
        self._lasting: Counter[str] = Counter()

    @property
    def app(self) -> ASGIApp:
        """The application that answers them, without its guard."""
        routes = [
            Route("/open", self._open, methods=["GET"]),
            Route("/favicon.ico", _no_icon, methods=["GET"]),
            Route("/", self._signed_in(self._index), methods=["GET"]),
            Route("/static/{name:path}", self._signed_in(self._static), methods=["GET"]),
            Route("/api/session", self._signed_in(self._session), methods=["GET"]),
            Route("/api/feed", self._signed_in(self._feed), methods=["GET"]),
            Route("/api/jobs/{identity}", self._signed_in(self._job), methods=["GET"]),
            Route("/api/costs", self._signed_in(self._all_costs), methods=["GET"]),
            Route("/api/trees/{identity}/costs", self._signed_in(self._tree_costs), methods=["GET"]),
            Route("/api/jobs/{identity}/transcript", self._signed_in(self._transcript), methods=["GET"]),
            Route("/api/actions", self._signed_in(self._act), methods=["POST"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
        app.router.redirect_slashes = False
        return app

    async def _open(self, request: Request) -> Response:
        known, sessions = await self._session_of(request), self._sources.sessions
        place = request.query_params.get("to", "")
        fragment = f"#/{place}" if _PLACE.fullmatch(place) else ""
        try:
            caller = self._sources.codes.take(request.query_params.get("code", ""))
        except TooManyCodesError as error:
            return way_in(429, str(error))
        if known is not None:
            # The same browser, once more: it keeps its cookie, and may have loaded a link that was used.
            if caller is not None:
                sessions.note_caller(known, caller)
            return welcome(fragment)
        if caller is None:
            return way_in(403, "This link was used already, or is older than ten minutes.")
        answer = welcome(fragment)
        answer.headers["set-cookie"] = _cookie(cookie_name(self._port), await sessions.begin(caller))
        return answer

    def _signed_in(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Any:
            session = await self._session_of(request)
            if session is None:
                if request.url.path == "/":
                    return way_in(401, "This browser was not let in.")
                return refused(401, "This browser was not let in. Run `claude-jobs web`, and open what it prints.")
            try:
                return await handler(request, session)
            except (NotFoundError, NoSuchAttemptError) as error:
                return refused(404, str(error))
            except StoreError as error:
                return refused(503, str(error))
            except BadRequestError as error:
                return refused(error.status, str(error))
            except JobsError as error:
                return refused(409, str(error))

        return handle

    async def _session_of(self, request: Request) -> Session | None:
        for token in tokens_in(request.headers.get("cookie", ""), self._port):
            if (found := await self._sources.sessions.find(token)) is not None:
                return found
        return None

    async def _index(self, _: Request, __: Session) -> Response:
        return await _file("index.html")

    async def _static(self, request: Request, _: Session) -> Response:
        name = request.path_params["name"]
        if not _FILE.fullmatch(name):
            raise BadRequestError("There is no such file.", 404)
        return await _file(name)

    async def _session(self, _: Request, __: Session) -> Response:
        sources = self._sources
        return json_answer(
            {
                "ok": True,
                "version": __version__,
                "home": str(sources.home),
                "hostName": socket.gethostname(),
                "pid": sources.pid,
            }
        )

    async def _feed(self, request: Request, session: Session) -> ASGIApp:
        if self._streams >= MOST_STREAMS:
            raise BadRequestError("Too many pages are open. Close some of them.", 503)
        query = request.query_params
        wanted = _scope_of(query)
        # A browser that comes back says what it had last.
        cursor = request.headers.get("last-event-id") or query.get("cursor") or None

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            with self._counted(session.digest) as lasts, self._sources.watch() as watcher:
                next_page = partial(watcher.page_json, scope=wanted, wait=None if lasts else 0.0)
                events = EventStream(next_page, cursor, self._sources.stopping, is_brief=not lasts)
                await events(scope, receive, send)

        return stream

    @contextmanager
    def _counted(self, browser: str) -> Iterator[bool]:
        """Count a stream while the block runs, and tell whether it may last."""
        lasts = self._lasting[browser] < LASTING_STREAMS
        self._streams += 1
        self._lasting[browser] += lasts
        # A page that is open is a client: the engine does not exit below it.
        self._sources.counter.come()
        try:
            yield lasts
        finally:
            self._sources.counter.go()
            self._streams -= 1
            self._lasting[browser] -= lasts
            # Without those that have none: a session may be over.
            self._lasting = +self._lasting

    async def _job(self, request: Request, _: Session) -> Response:
        return json_answer(await self._sources.job_views.of(request.path_params["identity"]))

    async def _all_costs(self, _: Request, __: Session) -> Response:
        return json_answer(await self._sources.costs.all())

    async def _tree_costs(self, request: Request, _: Session) -> Response:
        return json_answer(await self._sources.costs.of_tree(request.path_params["identity"]))

    async def _transcript(self, request: Request, session: Session) -> Response:
        query = request.query_params
        job = await self._sources.job_views.job(request.path_params["identity"])
        place = _place_in(query.get("after"), query.get("before"))
        caller = self._sources.sessions.caller_of(session)
        known = secrets_in({} if caller is None else caller.client_context.env)
        attempt = _number_in("attempt", query.get("attempt"))
        return json_answer(await self._sources.transcripts.page(job, attempt, place, known))

    async def _act(self, request: Request, session: Session) -> Response:
        try:
            given = json.loads(await _body(request))
            caller = self._sources.sessions.caller_of(session)
            said, good = await self._sources.actions.act(given, caller)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"The request cannot be used: {error}") from error
        return json_answer({"ok": True, "message": said}) if good else refused(409, said)


def _scope_of(query: QueryParams) -> FeedScope:
    parents, trees_only = query.get("parents"), query.get("trees") == "1"
    return FeedScope(
        root_id=query.get("tree") or None,
        trees_only=trees_only,
        parents=None if parents is None else frozenset(parents.split(",")),
        detailed=not trees_only,
    )


def _place_in(after: str | None, before: str | None) -> Place:
    if before == "end":
        return Place(at_end=True)
    return Place(after=_number_in("after", after) or 0, before=_number_in("before", before))


def _number_in(name: str, given: str | None) -> int | None:
    if not given:
        return None
    if not _NUMBER.fullmatch(given):
        raise BadRequestError(f"{name}: give a number.")
    return int(given)


async def _file(name: str) -> Response:
    found = await anyio.to_thread.run_sync(file_answer, name)
    if found is None:
        raise BadRequestError("There is no such file.", 404)
    return found


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    refusal = too_long()
                    raise BadRequestError(refusal.error, refusal.status)
    except (TimeoutError, ClientDisconnect) as error:
        raise BadRequestError("The request was not sent to its end.") from error
    return bytes(body)


def _cookie(name: str, token: str) -> str:
    # Without a lifetime: a browser that is closed forgets it.
    return f"{name}={token}; HttpOnly; Path=/; SameSite=Strict"


async def _no_icon(_: Request) -> Response:
    """Answer what browsers ask for beside pages that name no icon, as those that let somebody in."""
    return Response(status_code=204)


async def _no_route(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return refused(status, "There is nothing here." if status == 404 else "This cannot be asked here.")
