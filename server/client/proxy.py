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
        source: Descriptor that the client writes to.
        sink: Descriptor that the client reads from.
        dial: Returns a connection to an engine, which it starts where none runs; may block, and raises a
            `ClientError` or an `OSError`.
    """

    def __init__(self, source: int, sink: int, dial: Callable[[], socket]) -> None:
        self._source = source
        self._sink = sink
        self._dial = dial
        self._open = PendingRequests()
        self._engine: socket | None = None
        self._ready = False
        self._ended = False
        self._up = bytearray()
        self._down = bytearray()
        self._from_client = LineCutter(MAX_MESSAGE)
        self._from_engine = LineCutter(MAX_MESSAGE)
        self._until = 0.0
        self._hung_up = float("inf")
        self._dialling = False
        self._dialled: socket | Exception | None = None
        self._stillborn = 0
        self._woken, self._wake = os.pipe()

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
        if not self._ended or self._open.urgent:
            return False
        now = time.monotonic()
        late = now > self._until + LAST_SECONDS or (not self._down and now > self._hung_up + LAST_SECONDS)
        return late or (self._engine is None and not self._down)

    def _step(self) -> None:
        timeout = _LOOK_SECONDS if self._ended else None
        readable, writable, _ = select.select(self._wanted_from(), self._wanted_to(), [], timeout)
        if self._woken in readable:
            os.read(self._woken, _CHUNK)
            self._take_dialled()
        if self._source in readable:
            self._read_from_client()
        if self._engine in readable:
            self._read_from_engine()
        if self._engine is not None and self._engine in writable:
            self._write_to_engine()
        if self._sink in writable:
            self._write_to_client()
        if self._ended:
            self._finish()

    def _finish(self) -> None:
        """After the client closed its side: disconnect once no request is pending, or after `END_SECONDS`."""
        if self._open.urgent and (time.monotonic() > self._until or self._has_no_reader()):
            self._say(self._open.end(END_SECONDS))
        if not self._open.urgent and not self._up and self._engine is not None:
            self._hung_up = min(self._hung_up, time.monotonic())
            try:
                self._engine.shutdown(SHUT_WR)
            except OSError:
                return

    def _has_no_reader(self) -> bool:
        """Tell whether no process has the read end of the client's pipe open."""
        look = select.poll()
        look.register(self._sink, 0)
        return bool(look.poll(0))

    def _wanted_from(self) -> list[int | socket]:
        wanted: list[int | socket] = [self._woken]
        if not self._ended and len(self._up) < _ENOUGH and len(self._down) < MAX_MESSAGE:
            wanted.append(self._source)
        if self._engine is not None and len(self._down) < _ENOUGH:
            wanted.append(self._engine)
        return wanted

    def _wanted_to(self) -> list[int | socket]:
        wanted: list[int | socket] = [self._sink] if self._down else []
        if self._engine is not None and self._up:
            wanted.append(self._engine)
        return wanted

    def _read_from_client(self) -> None:
        try:
            chunk = os.read(self._source, _CHUNK)
        except BlockingIOError:
            # A parent may have left its end of our stdio non-blocking, and ours with it.
            return
        for line in self._from_client.feed(chunk) if chunk else self._from_client.rest():
            self._take(line)
        if not chunk:
            self._ended, self._until = True, time.monotonic() + END_SECONDS
        if self._engine is None:
            self._look_for_an_engine()

    def _take(self, line: bytes | LongLine) -> None:
        if isinstance(line, bytes) and not line.strip():
            return
        try:
            passed = self._open.sent(line)
        except BadMessageError as error:
            self._say([error.reply()])
            return
        if len(passed) > MAX_MESSAGE:
            # Every engine would refuse it.
            self._say(self._open.refuse(passed, MAX_MESSAGE))
            return
        # Without an engine a request stays in the list of pending ones; other lines have no receiver.
        self._up += passed if self._ready else b""

    def _read_from_engine(self) -> None:
        assert self._engine is not None
        try:
            chunk = self._engine.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._lose()
            return
        for line in self._from_engine.feed(chunk):
            if not self._ready and isinstance(line, bytes) and self._open.is_initialize_reply(line):
                self._be_ready()
            elif told := self._open.received(line):
                self._down += told
                self._stillborn = 0

    def _write_to_engine(self) -> None:
        assert self._engine is not None
        try:
            del self._up[: self._engine.send(self._up[:_CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            # It is gone. Its last lines may still be there to read, followed by the end of the stream.
            self._up.clear()

    def _write_to_client(self) -> None:
        try:
            del self._down[: os.write(self._sink, self._down[:_SURE])]
        except BlockingIOError:
            return

    def _attach(self, connection: socket) -> None:
        connection.setblocking(False)
        self._engine = connection
        self._from_engine = LineCutter(MAX_MESSAGE)
        self._up = bytearray(self._open.initialize_line())
        if not self._up:
            self._be_ready()

    def _be_ready(self) -> None:
        self._ready = True
        self._up += self._open.replay()
        self._say(self._open.resource_updates())
        self._say(self._open.give_up("the request was too long to be kept.", all_of_them=False))

    def _lose(self) -> None:
        """Clean up after an engine that is gone: an incomplete last line is no message, and is dropped."""
        assert self._engine is not None
        self._engine.close()
        self._engine, self._ready = None, False
        self._up.clear()
        self._say(self._open.lost())
        self._stillborn += 1
        if self._stillborn >= MAX_FAILED_ENGINES:
            self._stillborn = 0
            self._say(
                self._open.give_up(f"{MAX_FAILED_ENGINES} engines in a row ended at once; see `claude-jobs doctor`.")
            )
        self._look_for_an_engine()

    def _look_for_an_engine(self) -> None:
        # Only for a client that waits: a person who stopped the engine by hand does not want it back at once.
        if self._dialling or not self._open.urgent:
            return
        # Imported here: a pump whose engine stays needs no second thread.
        import threading

        self._dialling = True
        threading.Thread(target=self._dial_beside, name="dial", daemon=True).start()

    def _dial_beside(self) -> None:
        try:
            self._dialled = self._dial()
        except (ClientError, OSError) as error:
            self._dialled = error
        os.write(self._wake, b"!")

    def _take_dialled(self) -> None:
        found, self._dialled, self._dialling = self._dialled, None, False
        if isinstance(found, socket):
            self._attach(found)
        else:
            self._say(self._open.give_up(str(found)))

    def _say(self, lines: list[bytes]) -> None:
        self._down += b"".join(lines)
