"""An engine that the test plays: it greets at the real socket, and answers with what it was given."""

import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from server.client.state_dir import StatePaths
from server.client.wire import Role, Welcome

SECONDS = 60.0


class PlayedEngine:
    """Serves every connection in a thread of its own, and notes what it is asked.

    Args:
        paths: A prepared state directory.

    Attributes:
        pages: Answers to requests for the feed, each given once; None closes the connection.
        job: Answer to a request for a job.
        tools: What each tool answers; a text is an error.
        ids: The ids of jobs and batches, for completion.
        hellos: What clients said about themselves.
        feeds: The requests for the feed.
        calls: Name and arguments of each call of a tool.
    """

    def __init__(self, paths: StatePaths) -> None:
        self.pages: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self.job: Mapping[str, Any] = {}
        self.tools: dict[str, Any] = {}
        self.ids: list[str] = []
        self.hellos: list[dict[str, Any]] = []
        self.feeds: list[dict[str, Any]] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._paths = paths
        self._streams: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        paths.socket.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(paths.address)
        self._listener.listen()
        self._begin(self._accept)

    def stop(self) -> None:
        """End as an engine does that is told to: its socket is gone."""
        self._paths.socket.unlink(missing_ok=True)
        self.die()

    def die(self) -> None:
        """End as an engine does that is killed: its socket stays."""
        for stream in (self._listener, *self._streams):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        for _ in self._threads:
            # Some of them may wait for a page.
            self.pages.put(None)
        for thread in self._threads:
            thread.join(SECONDS)
        self._listener.close()

    def _begin(self, work: Any, *given: Any) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                self._streams.append(stream)
                self._begin(self._serve, stream)

    def _serve(self, stream: socket.socket) -> None:
        with stream, stream.makefile("rb") as lines, suppress(OSError):
            hello = json.loads(lines.readline() or b"{}")
            if not hello:
                return
            self.hellos.append(hello)
            stream.sendall(Welcome(pid=1).encode())
            answer = self._controlled if hello["role"] == Role.CONTROL else self._called
            for line in lines:
                if (said := answer(json.loads(line))) is None:
                    return
                if said:
                    stream.sendall(json.dumps(said).encode() + b"\n")

    def _controlled(self, request: dict[str, Any]) -> Mapping[str, Any] | None:
        if request["do"] == "job":
            return self.job
        self.feeds.append(request)
        return self.pages.get(timeout=SECONDS)

    def _called(self, message: dict[str, Any]) -> Mapping[str, Any]:
        if "id" not in message:
            return {}
        result: dict[str, Any] = {"completion": {"values": self.ids}}
        if message["method"] == "tools/call":
            name = message["params"]["name"]
            self.calls.append((name, message["params"]["arguments"]))
            said = self.tools[name]
            text = said if isinstance(said, str) else json.dumps(said)
            result = {"content": [{"type": "text", "text": text}], "isError": isinstance(said, str)}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}


@contextmanager
def played_engine(paths: StatePaths) -> Iterator[PlayedEngine]:
    """Play an engine until the block ends."""
    engine = PlayedEngine(paths)
    try:
        yield engine
    finally:
        engine.stop()
