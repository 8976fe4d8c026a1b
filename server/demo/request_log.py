"""The log of requests to the scripted API: in order and bounded, for tests to read and to wait for."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.demo import conversation

SESSION_HEADER = "x-claude-code-session-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """One HTTP request.

    Args:
        method: HTTP method.
        path: Path and query.
        headers: Headers, names in lower case.
        body: Its JSON object; empty where it has none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asks_model(self) -> bool:
        """Whether the request asks for a model's message."""
        return self.method == "POST" and self.path.partition("?")[0] == "/v1/messages"

    @property
    def session_id(self) -> str:
        """The id of the Claude session that sent it; empty where the request has none."""
        return self.headers.get(SESSION_HEADER, "")

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation's messages in the request."""
        messages = self.body.get("messages")
        return [one for one in messages if isinstance(one, Mapping)] if isinstance(messages, list) else []

    @property
    def conversation(self) -> conversation.Conversation:
        """The conversation in the form that the story uses."""
        return conversation.read(self.messages)

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The tools that the model may call."""
        return tuple(str(tool.get("name")) for tool in self.body.get("tools") or ())


class RequestLog:
    """The newest requests, oldest first; safe to use from several threads.

    Args:
        keep: How many requests are kept; a request of the CLI is 20 to 50 KB of JSON (measured).
    """

    def __init__(self, keep: int) -> None:
        self._requests: deque[RecordedRequest] = deque(maxlen=keep)
        self._changed = threading.Condition()

    def add(self, request: RecordedRequest) -> None:
        """Append a request and wake threads in `wait_for`."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    def all(self) -> tuple[RecordedRequest, ...]:
        """Return all kept requests."""
        with self._changed:
            return tuple(self._requests)

    def wait_for(
        self, wanted: Callable[[RecordedRequest], bool], *, count: int, timeout: float
    ) -> tuple[RecordedRequest, ...]:
        """Block until `count` kept requests match, and return those.

        Raises:
            TimeoutError: There were fewer after `timeout` seconds.
        """
        found: tuple[RecordedRequest, ...] = ()

        def enough() -> bool:
            nonlocal found
            found = tuple(request for request in self._requests if wanted(request))
            return len(found) >= count

        with self._changed:
            if not self._changed.wait_for(enough, timeout):
                raise TimeoutError(
                    f"{len(found)} of {count} requests in {timeout} s, among {len(self._requests)}. "
                    "Look at what the API has recorded."
                )
            return found
