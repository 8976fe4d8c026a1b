"""Sends a message of a hook to a URL, within one time for the whole request."""

import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from jobs.notice import shortened

URL_SECONDS = 15.0
"""Seconds until a URL must have answered."""

_AGAIN_SECONDS = 0.5
"""Between two cuts: the first may come before there is a connection."""


def post(url: str, text: bytes) -> str | None:
    """Send a JSON object, and return None or what went wrong; blocks, for little longer than `URL_SECONDS`.

    Args:
        url: An http or https URL.
        text: The object.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "claude-jobs"}
    request = Request(url, data=text, headers=headers, method="POST")  # noqa: S310 - the settings take http and https
    seconds = URL_SECONDS
    with _Deadline(seconds) as deadline:
        opener = build_opener(_NoRedirect, _PlainHandler(deadline), _SecureHandler(deadline))
        problem = _sent(opener, request, seconds)
        # The library takes headers that end with the connection for complete ones.
        return took_longer(seconds) if deadline.is_over else problem


def took_longer(seconds: float) -> str:
    """Return what is said of a hook that took longer than this."""
    return f"it took longer than {seconds:g} s"


def _sent(opener: OpenerDirector, request: Request, seconds: float) -> str | None:
    try:
        with opener.open(request, timeout=seconds):
            return None
    except HTTPError as error:
        error.close()
        moved = ", which is not followed: set the URL to which it leads" if 300 <= error.code < 400 else ""
        return f"it answered {error.code}{moved}"
    except (OSError, HTTPException, ValueError) as error:
        return shortened(f"it cannot be reached: {getattr(error, 'reason', error)}")


class _Connection(HTTPConnection):
    raw: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        # A handle of its own: while TLS is agreed on, the library has taken the other one away.
        self.raw = self.sock.dup()

    def cut(self) -> None:
        """End what reads or writes on it; do nothing where it is not connected."""
        # While a proxy is asked for the way, there is no handle yet.
        with suppress(OSError, AttributeError):
            (self.raw or self.sock).shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        if self.raw is not None:
            self.raw.close()


class _SecureConnection(HTTPSConnection, _Connection):
    # Its parents' order makes `_Connection.connect` the step before TLS.
    pass


class _Deadline:
    """Cuts the connections of a request once its time is over: the time-out of a socket starts again with each byte.

    Args:
        seconds: Its time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._connections: list[_Connection] = []
        self._answered = threading.Event()
        self.is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._keep, name="hook-deadline", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._answered.set()
        for connection in self._connections:
            connection.release()

    def holds_for(self, connection: _Connection) -> _Connection:
        """Return a connection that is cut when the time is over."""
        self._connections.append(connection)
        return connection

    def _keep(self) -> None:
        seconds = self._seconds
        while not self._answered.wait(seconds):
            self.is_over = True
            for connection in tuple(self._connections):
                connection.cut()
            seconds = _AGAIN_SECONDS


class _PlainHandler(HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def do_open(self, http_class: Any, req: Request, **options: Any) -> HTTPResponse:
        return super().do_open(
            lambda *given, **named: self._deadline.holds_for(_Connection(*given, **named)), req, **options
        )


class _SecureHandler(HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def do_open(self, http_class: Any, req: Request, **options: Any) -> HTTPResponse:
        return super().do_open(
            lambda *given, **named: self._deadline.holds_for(_SecureConnection(*given, **named)), req, **options
        )


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: most would repeat the request without its body, and some at another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return no request."""
