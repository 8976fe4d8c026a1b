"""A client of the scripted API that holds a conversation as `claude` does, over plain HTTP."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.demo.request_log import SESSION_HEADER

SECONDS = 10.0
"""Bound of one request."""

# Loopback is never reached through a proxy, whatever the environment of the tests says.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, headers and body of one response."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of each server-sent event, in order."""
        return [json.loads(line.removeprefix("data: ")) for line in self.body.splitlines() if line.startswith("data: ")]


def send(
    url: str, *, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request and return the answer, whatever its status."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)
    try:
        with _OPENER.open(request, timeout=SECONDS) as response:
            return Answer(status=response.status, headers=dict(response.headers), body=response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(status=error.code, headers=dict(error.headers), body=error.read().decode())


def tool_result(number: int, content: Any, *, is_error: bool = False) -> dict[str, Any]:
    """Return a tool result as the CLI puts it into a request; what is no string is written as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return {
        "type": "tool_result",
        "tool_use_id": f"toolu_{number}",
        "is_error": is_error,
        "content": [{"type": "text", "text": text}],
    }


def messages(opening: str, *exchanges: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a conversation: for each exchange an answer of the model and the results of the tools it called."""
    said: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": opening}]}]
    for number, results in enumerate(exchanges):
        said.append({"role": "assistant", "content": [{"type": "text", "text": f"answer {number}"}]})
        blocks = [one if isinstance(one, dict) and "tool_use_id" in one else tool_result(0, one) for one in results]
        said.append({"role": "user", "content": blocks or [{"type": "text", "text": "Go on."}]})
    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One Claude session."""

    url: str
    session_id: str = "session-1"
    fields: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, said: Sequence[Mapping[str, Any]] | None = None) -> Answer:
        """Ask for the next message of this conversation."""
        body = {"model": "claude-test", "messages": list(said or messages("Hello.")), **self.fields}
        headers = {"content-type": "application/json", SESSION_HEADER: self.session_id}
        return send(f"{self.url}/v1/messages?beta=true", method="POST", body=json.dumps(body).encode(), headers=headers)
