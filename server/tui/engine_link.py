"""The view's connection to the engine: follows the job feed in a thread, and comes back when the engine does."""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final

from server.client.connect import connect, connect_running, control
from server.client.engine_socket import EngineEndpoint, unanswered
from server.client.wire import MAX_LINE, ClientError, Hello, Role, encode_line

ANSWER_SECONDS: Final = 60.0
"""Seconds after which an engine that does not answer counts as gone; it answers at least every 20."""

LOOK_AGAIN_SECONDS: Final = 1.0
"""Seconds between two looks whether an engine runs again."""

OnPage = Callable[[Mapping[str, Any]], None]
OnState = Callable[[str], None]

STOPPED: Final = "The engine has stopped; running jobs go on without it. Press e to start it again."
OLDER: Final = (
    "The engine is of an older version without this view. `claude-jobs engine stop` ends it and no job; "
    "then press e to start the next one."
)
CRASHED: Final = "The engine has ended unexpectedly; running jobs go on. Starting the next one …"


class FeedRefusedError(ClientError):
    """The engine has no feed, or cannot read its jobs now.

    Args:
        reason: What it says.
    """

    transient = True

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class EngineLink:
    """Follows the feed until it is closed.

    Args:
        endpoint: How to reach the engine.
        hello: What this client says about itself.
        on_page: Called in the link's thread with each page that has arrived.
        on_state: Called in that thread with what is wrong with the connection, or an empty text.

    Attributes:
        tree: Id of the tree that is followed alone, although it may have ended long ago; None for all.
    """

    def __init__(self, endpoint: EngineEndpoint, hello: Hello, on_page: OnPage, on_state: OnState) -> None:
        self._endpoint = endpoint
        self._hello = hello.replace(role=Role.CONTROL)
        self._on_page = on_page
        self._on_state = on_state
        self.tree: str | None = None
        self._closed = threading.Event()
        self._start_wanted = threading.Event()
        self._start_wanted.set()
        self._stream: socket.socket | None = None
        self._thread = threading.Thread(target=self._follow, name="job feed", daemon=True)

    def open(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def start_engine(self) -> None:
        """Start an engine if none runs."""
        self._start_wanted.set()

    def close(self) -> None:
        """Follow no longer; the thread ends soon."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def details(self, job_id: str) -> dict[str, Any]:
        """Return everything about a job.

        Raises:
            ClientError: It cannot be had; the text says why.
            OSError: A system call failed.
        """
        answer = control(self._endpoint, {"do": "job", "job": job_id}, self._hello)
        if answer is None:
            raise FeedRefusedError(STOPPED)
        if not answer["ok"]:
            raise FeedRefusedError(answer["error"])
        return answer

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                stream = self._connected()
                if stream is not None:
                    self._read(stream)
            except (ClientError, OSError, ValueError) as error:
                self._on_state(str(error))
            self._closed.wait(LOOK_AGAIN_SECONDS)

    def _connected(self) -> socket.socket | None:
        """Return a connection; None where a person has stopped the engine, which is not started again unasked."""
        try:
            found = connect_running(self._endpoint, self._hello)
        except TimeoutError as error:
            raise unanswered(self._endpoint.paths, self._endpoint.timeout) from error
        if found is None and not self._start_wanted.is_set():
            # An engine that stops removes its socket; one that is killed does not.
            if not self._endpoint.paths.socket.exists():
                self._on_state(STOPPED)
                return None
            self._on_state(CRASHED)
        if found is None:
            found = connect(self._endpoint, self._hello)[0]
        self._start_wanted.clear()
        return socket.socket(fileno=found.detach())

    def _read(self, stream: socket.socket) -> None:
        cursor = None
        with stream, stream.makefile("rb") as lines:
            self._stream = stream
            stream.settimeout(ANSWER_SECONDS)
            while not self._closed.is_set():
                line = self._ask(stream, lines, cursor)
                if not line.endswith(b"\n"):
                    return
                page = json.loads(line)
                if not page["ok"]:
                    raise FeedRefusedError(OLDER if page["error"].startswith("Unknown request") else page["error"])
                if cursor is None:
                    self._on_state("")
                cursor = page["cursor"]
                self._on_page(page)

    def _ask(self, stream: socket.socket, lines: BinaryIO, cursor: str | None) -> bytes:
        """Return the next page as a line; where the engine ends meanwhile, less than a line."""
        request = {"do": "feed", "cursor": cursor, "tree": self.tree}
        try:
            stream.sendall(encode_line({name: one for name, one in request.items() if one}, "request"))
            return lines.readline(MAX_LINE + 1)
        except TimeoutError as error:
            raise unanswered(self._endpoint.paths, ANSWER_SECONDS) from error
        except ConnectionError:
            return b""
