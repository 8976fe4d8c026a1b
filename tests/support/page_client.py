"""A client of the page that sends raw requests, as no browser would."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from server.client.connect import control
from server.client.tool_client import hello_of
from tests.support.engines import House

SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer.

    Args:
        status: The status of HTTP.
        headers: Names in small letters.
        body: As text.
    """

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def asked_for(made: House, **request: Any) -> dict[str, Any]:
    """Send the control request `web`, as the command does."""
    answer = control(made.endpoint, {"do": "web", **request}, hello_of(made.endpoint, made.environ, made.work))
    assert answer is not None
    return answer


@dataclass(kw_only=True)
class PageClient:
    """Sends requests to one port.

    Args:
        port: The port.
        cookie: What it says of itself, or nothing.
    """

    port: int
    cookie: str = ""

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        """Send one request on a connection of its own; a header whose value is None is left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        given: dict[str, str | None] = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie or None}
        if body is not None:
            given["Content-Length"] = str(len(body))
        given |= headers or {}
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(status=response.status, headers=found, body=response.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str | None) -> Answer:
        return self.send("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def act(self, headers: Mapping[str, str | None] | None = None, **asked: Any) -> Answer:
        """Send an action as the page does."""
        given = {"Content-Type": "application/json", "X-Claude-Jobs": "1", **(headers or {})}
        return self.send("POST", "/api/actions", json.dumps(asked).encode(), given)

    def open(self, url: str) -> Answer:
        """Follow a link, and keep the cookie that it brings."""
        parts = urlsplit(url)
        answer = self.get(f"{parts.path}?{parts.query}")
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    @contextmanager
    def stream(self, query: str = "") -> Iterator["Events"]:
        """Open the stream of the feed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", f"/api/feed{query}", headers={"Cookie": self.cookie})
            yield Events(connection.getresponse())
        finally:
            connection.close()


class Events:
    """The events of a stream.

    Args:
        response: The answer.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status

    def next(self) -> dict[str, str] | None:
        """Return the fields of the next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        while True:
            line = self._response.readline().decode()
            if not line:
                return None
            if line == "\n" and fields:
                return fields
            name, _, value = line.rstrip("\n").partition(":")
            if name:
                fields[name] = value.removeprefix(" ")

    def page(self) -> dict[str, Any]:
        """Return the next page."""
        event = self.next()
        assert event is not None
        assert event["event"] == "page"
        found: dict[str, Any] = json.loads(event["data"])
        assert event["id"] == found["cursor"]
        return found


def signed_in(made: House, **request: Any) -> PageClient:
    """Return a client that was let in."""
    answer = asked_for(made, **request)
    assert answer["ok"], answer
    client = PageClient(port=answer["port"])
    assert client.open(answer["url"]).status == 200
    return client
