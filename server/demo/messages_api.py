"""`ScriptedApi`: a Messages API on loopback that plays a story to any number of `claude` processes at once."""

import json
import logging
import socket
import socketserver
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from server.demo.messages import Reply, error_body
from server.demo.next_turn import NextTurn, find_next_turn
from server.demo.request_log import RecordedRequest, RequestLog
from server.demo.script import Failure, Story
from server.demo.template import StoryError

LOG = logging.getLogger(__name__)

MAX_BODY = 64 * 1024 * 1024
"""Most bytes of a request; the real API refuses above 32 MB."""


class ScriptedApi:
    """Serves a story on 127.0.0.1 between `__enter__` and `__exit__`, with a thread for each connection.

    Args:
        story: The model's turns.
        keep: How many requests are kept.
    """

    def __init__(self, story: Story, *, keep: int = 512) -> None:
        self._story = story
        self._record = RequestLog(keep)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._server = _Server(self._story, self._record)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="scripted-api")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.close()
            self._thread.join()
        self._server = self._thread = None

    @property
    def url(self) -> str:
        """The value for `ANTHROPIC_BASE_URL`.

        Raises:
            RuntimeError: The API is not being served.
        """
        if self._server is None:
            raise RuntimeError(
                "The scripted API is not being served. Enter it first: `with ScriptedApi(story) as api`."
            )
        host, port = self._server.socket.getsockname()
        return f"http://{host}:{port}"

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The newest requests for a model's message, oldest first, failed ones included."""
        return tuple(request for request in self._record.all() if request.asks_model)

    @property
    def traffic(self) -> tuple[RecordedRequest, ...]:
        """The newest requests of every kind, oldest first."""
        return self._record.all()

    def wait_for(
        self, wanted: Callable[[RecordedRequest], bool], *, count: int = 1, timeout: float = 10.0
    ) -> tuple[RecordedRequest, ...]:
        """Block until `count` recorded requests match, and return those; call it from a worker thread.

        Raises:
            TimeoutError: There were fewer after `timeout` seconds.
        """
        return self._record.wait_for(wanted, count=count, timeout=timeout)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A plain TCP server: `http.server.HTTPServer` would resolve the name of 127.0.0.1 at its start."""

    request_queue_size = 256
    daemon_threads = False

    def __init__(self, story: Story, record: RequestLog) -> None:
        self.story = story
        self.record = record
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._failed: Counter[tuple[str, int]] = Counter()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def due_failure(self, session_id: str, next_turn: NextTurn) -> Failure | None:
        """Return the scripted error for this request, and count it; None where the turn is played."""
        failure = next_turn.turn.error
        with self._lock:
            if failure is None or self._failed[session_id, next_turn.step] == failure.times:
                return None
            self._failed[session_id, next_turn.step] += 1
        return failure

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        # The inherited method prints. A CLI that ended in the middle of an answer is no error.
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        LOG.log(level, "the connection from %s ended early", client_address, exc_info=error)

    def close(self) -> None:
        """Stop accepting, close open connections, and wait for every thread."""
        self.closing.set()
        self.shutdown()
        with self._lock:
            for connection in self._open:
                _hang_up(connection)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        LOG.debug(format, *args)

    def do_HEAD(self) -> None:
        """Answer the CLI's check whether the API is reachable."""
        self._note({})
        self._send(200, b"")

    def do_GET(self) -> None:
        """Refuse: there is nothing to get."""
        self._note({})
        self._refuse(404, f"There is nothing at {self.path}.")

    def do_POST(self) -> None:
        """Play the turn that the request asks for."""
        body = self._read()
        if body is None:
            return
        request = self._note(body)
        if not request.asks_model:
            # Token counting too: the CLI then estimates by itself.
            self._refuse(404, f"There is nothing at {self.path}.")
            return
        try:
            self._play(request)
        except StoryError as error:
            self._refuse(400, str(error))

    def _play(self, request: RecordedRequest) -> None:
        next_turn = find_next_turn(self.server.story, request.conversation)
        failure = self.server.due_failure(request.session_id, next_turn)
        reply = None if failure else _reply(next_turn, request)
        if self.server.closing.wait(next_turn.turn.delay):
            self.close_connection = True
        elif failure is not None:
            self._refuse(failure.status, failure.message, failure.headers)
        elif reply is not None and request.body.get("stream"):
            self._stream(reply.events(), next_turn.turn.headers)
        elif reply is not None:
            self._send(200, reply.body(), next_turn.turn.headers)

    def _read(self) -> dict[str, Any] | None:
        length = int(self.headers.get("content-length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            self._refuse(413, f"The request has {length} bytes; at most {MAX_BODY} are read.")
            return None
        try:
            body = json.loads(self.rfile.read(length))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._refuse(400, "The request is not a JSON object.")
            return None
        return body

    def _note(self, body: Mapping[str, Any]) -> RecordedRequest:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = RecordedRequest(method=self.command, path=self.path, headers=headers, body=body)
        self.server.record.add(request)
        return request

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(status, error_body(status, message), headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def _stream(self, events: Iterable[bytes], headers: Mapping[str, str]) -> None:
        self._head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **headers})
        for event in events:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _reply(next_turn: NextTurn, request: RecordedRequest) -> Reply:
    # Ids are made from the position in the conversation, so that a repeated request gets the same message.
    key = sha256(f"{request.session_id}/{next_turn.role}/{next_turn.step}".encode()).hexdigest()[:20]
    text, calls = next_turn.text(), next_turn.tool_calls()
    blocks: list[Mapping[str, Any]] = [{"type": "text", "text": text}] if text or not calls else []
    blocks += [
        {"type": "tool_use", "id": f"toolu_{key}{number:02}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(calls)
    ]
    return Reply(
        id=f"msg_{key}",
        model=str(request.body.get("model", "scripted")),
        blocks=tuple(blocks),
        stop_reason=next_turn.turn.stop_reason or ("tool_use" if calls else "end_turn"),
        usage=next_turn.turn.usage,
    )


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        LOG.debug("the client had hung up first")
