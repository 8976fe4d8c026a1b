"""The stdio proxy: carries lines between a client and the engine, and repeats open requests to the next engine.

Standard library only: the pump imports this module. One thread moves all bytes and blocks on neither end. Connecting
may wait and start a process, so it happens on a second one.
"""

from __future__ import annotations

import os
import select
import time
from _socket import SHUT_WR, socket

from server.client.jsonrpc import BadMessageError, LineCutter, LongLine
from server.client.pending_requests import PendingRequests
from server.client.wire import MAX_MESSAGE, ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FAILED_ENGINES = 10
"""The proxy gives up after this many engines in a row end before they sent anything: a request may crash them."""

END_SECONDS = 30.0
"""Seconds for which requests are still answered after the client closed its side; chosen, not measured.

A script that pipes its requests gets its answers, and a call that waits for jobs does not keep the pump for longer.
"""

LAST_SECONDS = 2.0
"""Seconds to write the last lines to a client that may not read them, and for an engine to close its end."""

_LOOK_SECONDS = 1.0
"""Seconds between two checks whether a client that closed its side still reads."""

_CHUNK = 65536
_ENOUGH = 1024 * 1024
"""Bytes that wait for one end before the other is read no further."""

_SURE = 4096
"""Bytes that a pipe which is ready to be written takes at once, so that a blocking one never blocks."""


class StdioProxy:
    """One client's conversation, which outlives any engine.

    Args:
        stdin: Descriptor that the client writes to.
        stdout: Descriptor that the client reads from.
        connect: Returns a connection to an engine, which it starts where none runs; may block, and raises a
            `ClientError` or an `OSError`.
    """

    def __init__(self, stdin: int, stdout: int, connect: Callable[[], socket]) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._connect_to_next = connect
        self._pending = PendingRequests()
        self._engine: socket | None = None
        self._ready = False
        self._input_ended = False
        self._to_engine = bytearray()
        self._to_client = bytearray()
        self._client_lines = LineCutter(MAX_MESSAGE)
        self._engine_lines = LineCutter(MAX_MESSAGE)
        self._answer_until = 0.0
        self._disconnected_at = float("inf")
        self._is_connecting = False
        self._new_connection: socket | Exception | None = None
        self._failed_engines = 0
        self._wake_reader, self._wake_writer = os.pipe()

    def run(self, connection: socket) -> None:
        """Carry lines until the client is gone, or has closed its side and has no pending request.

        Args:
            connection: A connection to an engine, after the handshake.

        Raises:
            OSError: The client's side is broken.
        """
        self._attach(connection)
        try:
            while not self._over():
                self._step()
        finally:
            if self._engine is not None:
                self._engine.close()

    def _over(self) -> bool:
        # MCP's way to end a server is to close its stdin: with no request pending, no further engine is needed.
        if not self._input_ended or self._pending.urgent:
            return False
        now = time.monotonic()
        if now > self._answer_until + LAST_SECONDS:
            return True
        return not self._to_client and (self._engine is None or now > self._disconnected_at + LAST_SECONDS)

    def _step(self) -> None:
        timeout = _LOOK_SECONDS if self._input_ended else None
        readable, writable, _ = select.select(self._readers(), self._writers(), [], timeout)
        if self._wake_reader in readable:
            os.read(self._wake_reader, _CHUNK)
            self._take_new_connection()
        if self._stdin in readable:
            self._read_from_client()
        if self._engine in readable:
            self._read_from_engine()
        if self._engine is not None and self._engine in writable:
            self._write_to_engine()
        if self._stdout in writable:
            self._write_to_client()
        if self._input_ended:
            self._finish()

    def _finish(self) -> None:
        """After the client closed its side: disconnect once no request is pending, or after `END_SECONDS`."""
        if self._pending.urgent and (time.monotonic() > self._answer_until or self._has_no_reader()):
            self._queue_for_client(self._pending.end(END_SECONDS))
        if not self._pending.urgent and not self._to_engine and self._engine is not None:
            self._disconnected_at = min(self._disconnected_at, time.monotonic())
            try:
                self._engine.shutdown(SHUT_WR)
            except OSError:
                return

    def _has_no_reader(self) -> bool:
        """Tell whether no process has the read end of the client's pipe open."""
        look = select.poll()
        look.register(self._stdout, 0)
        return bool(look.poll(0))

    def _readers(self) -> list[int | socket]:
        wanted: list[int | socket] = [self._wake_reader]
        if not self._input_ended and len(self._to_engine) < _ENOUGH and len(self._to_client) < MAX_MESSAGE:
            wanted.append(self._stdin)
        if self._engine is not None and len(self._to_client) < _ENOUGH:
            wanted.append(self._engine)
        return wanted

    def _writers(self) -> list[int | socket]:
        wanted: list[int | socket] = [self._stdout] if self._to_client else []
        if self._engine is not None and self._to_engine:
            wanted.append(self._engine)
        return wanted

    def _read_from_client(self) -> None:
        try:
            chunk = os.read(self._stdin, _CHUNK)
        except BlockingIOError:
            # A parent may have left its end of our stdio non-blocking, and ours with it.
            return
        for line in self._client_lines.feed(chunk) if chunk else self._client_lines.rest():
            self._pass_on(line)
        if not chunk:
            self._input_ended, self._answer_until = True, time.monotonic() + END_SECONDS
        if self._engine is None:
            self._find_next_engine()

    def _pass_on(self, line: bytes | LongLine) -> None:
        if isinstance(line, bytes) and not line.strip():
            return
        try:
            passed = self._pending.sent(line)
        except BadMessageError as error:
            self._queue_for_client([error.reply()])
            return
        if len(passed) > MAX_MESSAGE:
            # Every engine would refuse it.
            self._queue_for_client(self._pending.refuse(passed, MAX_MESSAGE))
            return
        # Without an engine a request stays in the list of pending ones; other lines have no receiver.
        self._to_engine += passed if self._ready else b""

    def _read_from_engine(self) -> None:
        assert self._engine is not None
        try:
            chunk = self._engine.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._drop_engine()
            return
        for line in self._engine_lines.feed(chunk):
            if not self._ready and isinstance(line, bytes) and self._pending.is_initialize_reply(line):
                self._be_ready()
            elif passed_back := self._pending.received(line):
                self._to_client += passed_back
                self._failed_engines = 0

    def _write_to_engine(self) -> None:
        assert self._engine is not None
        try:
            del self._to_engine[: self._engine.send(self._to_engine[:_CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            # It is gone. Its last lines may still be there to read, followed by the end of the stream.
            self._to_engine.clear()

    def _write_to_client(self) -> None:
        try:
            del self._to_client[: os.write(self._stdout, self._to_client[:_SURE])]
        except BlockingIOError:
            return

    def _attach(self, connection: socket) -> None:
        connection.setblocking(False)
        self._engine = connection
        self._engine_lines = LineCutter(MAX_MESSAGE)
        self._to_engine = bytearray(self._pending.initialize_line())
        if not self._to_engine:
            self._be_ready()

    def _be_ready(self) -> None:
        self._ready = True
        self._to_engine += self._pending.replay()
        self._queue_for_client(self._pending.resource_updates())
        self._queue_for_client(self._pending.give_up("the request was too long to be kept.", all_of_them=False))

    def _drop_engine(self) -> None:
        """Clean up after an engine that is gone: an incomplete last line is no message, and is dropped."""
        assert self._engine is not None
        self._engine.close()
        self._engine, self._ready = None, False
        self._to_engine.clear()
        self._queue_for_client(self._pending.lost())
        self._failed_engines += 1
        if self._failed_engines >= MAX_FAILED_ENGINES:
            self._failed_engines = 0
            self._queue_for_client(
                self._pending.give_up(f"{MAX_FAILED_ENGINES} engines in a row ended at once; see `claude-jobs doctor`.")
            )
        self._find_next_engine()

    def _find_next_engine(self) -> None:
        # Only for a client that waits: a person who stopped the engine by hand does not want it back at once.
        if self._is_connecting or not self._pending.urgent:
            return
        # Imported here: a pump whose engine stays needs no second thread.
        import threading

        self._is_connecting = True
        threading.Thread(target=self._connect, name="connect", daemon=True).start()

    def _connect(self) -> None:
        try:
            self._new_connection = self._connect_to_next()
        except (ClientError, OSError) as error:
            self._new_connection = error
        os.write(self._wake_writer, b"!")

    def _take_new_connection(self) -> None:
        found, self._new_connection, self._is_connecting = self._new_connection, None, False
        if isinstance(found, socket):
            self._attach(found)
        else:
            self._queue_for_client(self._pending.give_up(str(found)))

    def _queue_for_client(self, lines: list[bytes]) -> None:
        self._to_client += b"".join(lines)
