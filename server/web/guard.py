"""What a request to the page must have, and the headers that each answer gets."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.web.answers import refused

MOST_BYTES: Final = 1 << 20
"""Most bytes of a request's body; a message may be as long as a task."""

HEADER: Final = "x-claude-jobs"
"""Header of a state change, which no form and no link can send."""

_DIRECTIVES: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "; ".join(_DIRECTIVES),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""What every answer has, also one that refuses."""

_OURS: Final = frozenset({"same-origin", "none"})
"""Where a request may come from: this page, or the person's own address line."""

_MOST_TOKENS: Final = 8
"""Most tokens of one request that are looked at."""

_STRANGER: Final = (
    "This request comes from another page. Copy the link that `claude-jobs web` prints into the address line."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered.

    Args:
        status: The status of HTTP.
        error: What is wrong, and what to do.
    """

    status: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is known of a request before its body is read.

    Args:
        method: In capitals.
        path: Without the query.
        headers: Names in small letters; a header that came twice is joined by a comma.
    """

    method: str
    path: str
    headers: Mapping[str, str]


def cookie_name(port: int) -> str:
    """Return the name of the page's cookie: a browser sends one of this host to all its ports."""
    return f"claude-jobs-{port}"


def tokens_in(header: str, port: int) -> list[str]:
    """Return the tokens in a request's cookies.

    More than one: a server at another port of this host can set a cookie of our name beside ours. What others put into
    theirs must not hide ours, so the header is only cut at its semicolons.
    """
    parts = (part.strip().partition("=") for part in header.split(";"))
    return [value for name, _, value in parts if name == cookie_name(port) and value][:_MOST_TOKENS]


def refusal_of(request: Request, port: int) -> Refusal | None:
    """Return why a request is refused from any sender, or None.

    Args:
        request: The request.
        port: The port at which the page is served.
    """
    return (
        _of_origin(request, port) or _of_method(request) or (_of_change(request) if request.method == "POST" else None)
    )


def _of_origin(request: Request, port: int) -> Refusal | None:
    headers = request.headers
    host = headers.get("host", "")
    if host not in {f"127.0.0.1:{port}", f"localhost:{port}"}:
        # A name that another site has lead here would make its page one of this origin.
        return Refusal(status=403, error=f"Open the page at http://127.0.0.1:{port}: this name leads elsewhere.")
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return Refusal(status=403, error=_STRANGER)
    if headers.get("sec-fetch-site", "none") not in _OURS:
        return Refusal(status=403, error=_STRANGER)
    return None


def _of_method(request: Request) -> Refusal | None:
    if request.method not in {"GET", "POST"}:
        return Refusal(status=405, error="There are GET and POST alone.")
    if "prefetch" in request.headers.get("sec-purpose", ""):
        # What a browser fetches in advance would use up a code that the person still needs.
        return Refusal(status=503, error="Nothing is answered in advance.")
    return None


def _of_change(request: Request) -> Refusal | None:
    headers = request.headers
    if headers.get(HEADER) != "1":
        return Refusal(status=403, error=f"A change needs the header {HEADER}: 1.")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal(status=403, error="A change needs the content type application/json.")
    length = headers.get("content-length", "0")
    if not length.isdecimal():
        return Refusal(status=400, error="The length of the request is no number.")
    return too_long() if int(length) > MOST_BYTES else None


def too_long() -> Refusal:
    """Return the refusal of a body that is too long."""
    return Refusal(status=413, error=f"The request is too long: it may have {MOST_BYTES} bytes.")


class Guard:
    """Refuses what must not reach the page, and puts the headers on each answer.

    Args:
        app: Answers the others.
        port: The port at which the page is served.
        peer_refusal: Returns why the process at the other end may not use the page, or None.
    """

    def __init__(self, app: ASGIApp, port: int, peer_refusal: Callable[[Scope], Awaitable[str | None]]) -> None:
        self._app = app
        self._port = port
        self._peer_refusal = peer_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_ours(message.get("headers", ()))
            await send(message)

        refusal = refusal_of(request_of(scope), self._port)
        if refusal is None and (words := await self._peer_refusal(scope)) is not None:
            refusal = Refusal(status=403, error=words)
        app = self._app if refusal is None else refused(refusal.status, refusal.error)
        await app(scope, receive, guarded)


def request_of(scope: Scope) -> Request:
    """Return what the guard looks at."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Request(method=scope["method"], path=scope["path"], headers=headers)


def _with_ours(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    ours = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
    names = {name for name, _ in ours}
    return [*((name, value) for name, value in headers if name.lower() not in names), *ours]
