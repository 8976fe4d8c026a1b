"""Carries lines between a client and whichever engine is there, and brings open requests before the next one.

Standard library only: the pump imports this module. One thread moves all bytes and blocks on neither end; dialling may
wait and start a process, so it happens on a second one.
"""

from __future__ import annotations

import os
import select
from _socket import SHUT_WR, socket

from server.front_door.hello import MAX_MESSAGE, FrontDoorError
from server.front_door.unanswered import Unanswered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STILLBORN = 10
"""So many engines in a row that die before they said anything to the client are enough: a request may kill them."""

_CHUNK = 65536
_ENOUGH = 1024 * 1024
"""Bytes that wait for one end before the other is read no further."""

_SURE = 4096
"""Bytes that a pipe which is ready to be written takes at once, so that a blocking one never blocks."""


class LineTooLongError(FrontDoorError):
    """Somebody sent a line that is longer than any message may be."""

    def __init__(self) -> None:
        super().__init__(f"closed the connection: a line had more than {MAX_MESSAGE} bytes.")


class _Lines:
    """Cuts what arrives into whole lines, newline included."""

    def __init__(self) -> None:
        self._part = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        begin = chunk.rfind(b"\n") + 1
        if not begin:
            self._part += chunk
            if len(self._part) > MAX_MESSAGE:
                raise LineTooLongError
            return []
        whole = bytes(self._part) + chunk[:begin]
        self._part = bytearray(chunk[begin:])
        return whole.splitlines(keepends=True) if b"\r" not in whole else _split(whole)

    def rest(self) -> bytes:
        rest = bytes(self._part)
        self._part.clear()
        return rest


def _split(whole: bytes) -> list[bytes]:
    # `splitlines` would also cut at a carriage return.
    return [line + b"\n" for line in whole[:-1].split(b"\n")]


class Relay:
    """One client's conversation, whatever becomes of the engines.

    Args:
        source: Descriptor that the client writes to.
        sink: Descriptor that the client reads from.
        dial: Returns a connection to an engine, which it starts where none runs; may take its time, and raises a
            `FrontDoorError` or an `OSError`.
    """

    def __init__(self, source: int, sink: int, dial: Callable[[], socket]) -> None:
        self._source = source
        self._sink = sink
        self._dial = dial
        self._open = Unanswered()
        self._engine: socket | None = None
        self._ready = False
        self._ended = False
        self._up = bytearray()
        self._down = bytearray()
        self._from_client = _Lines()
        self._from_engine = _Lines()
        self._dialling = False
        self._dialled: socket | Exception | None = None
        self._stillborn = 0
        self._woken, self._wake = os.pipe()

    def run(self, connection: socket) -> None:
        """Carry lines until the client is gone, or has ended its side and the engine has ended its own.

        Args:
            connection: A connection to an engine, past the welcome.

        Raises:
            LineTooLongError: A line has more than `MAX_MESSAGE` bytes.
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
        # Once its side has ended nobody waits for another engine's answers: MCP's way to end a server is to close
        # its stdin.
        return self._ended and self._engine is None and not self._down

    def _step(self) -> None:
        readable, writable, _ = select.select(self._wanted_from(), self._wanted_to(), [])
        if self._woken in readable:
            os.read(self._woken, _CHUNK)
            self._take_dialled()
        if self._source in readable:
            self._hear_client()
        if self._engine in readable:
            self._hear_engine()
        if self._engine is not None and self._engine in writable:
            self._tell_engine()
        if self._sink in writable:
            self._tell_client()

    def _wanted_from(self) -> list[int | socket]:
        wanted: list[int | socket] = [self._woken]
        if not self._ended and len(self._up) < _ENOUGH:
            wanted.append(self._source)
        if self._engine is not None and len(self._down) < _ENOUGH:
            wanted.append(self._engine)
        return wanted

    def _wanted_to(self) -> list[int | socket]:
        wanted: list[int | socket] = [self._sink] if self._down else []
        if self._engine is not None and self._up:
            wanted.append(self._engine)
        return wanted

    def _hear_client(self) -> None:
        try:
            chunk = os.read(self._source, _CHUNK)
        except BlockingIOError:
            # A parent may have left its end of our stdio non-blocking, and ours with it.
            return
        lines = self._from_client.feed(chunk) if chunk else [self._from_client.rest()]
        for line in filter(None, lines):
            passed = self._open.sent(line)
            if len(passed) > MAX_MESSAGE:
                # An engine would hang up on it, and so would each that it is put to again.
                self._say(self._open.refuse(passed, f"A message may have {MAX_MESSAGE} bytes. Send less at once."))
                continue
            # Without an engine a request waits in the list of what is owed; the rest has nobody to hear it.
            self._up += passed if self._ready else b""
        if not chunk:
            self._ended = True
            self._hang_up_behind_the_last_byte()
        elif self._engine is None:
            self._look_for_an_engine()

    def _hear_engine(self) -> None:
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
            if not self._ready and self._open.greeted(line):
                self._be_ready()
            elif self._open.received(line):
                self._down += line
                self._stillborn = 0

    def _tell_engine(self) -> None:
        assert self._engine is not None
        try:
            del self._up[: self._engine.send(self._up[:_CHUNK])]
            self._hang_up_behind_the_last_byte()
        except BlockingIOError:
            return
        except OSError:
            # It is gone. Its last words may still be there to be read, and after them comes the end.
            self._up.clear()

    def _hang_up_behind_the_last_byte(self) -> None:
        if self._ended and not self._up and self._engine is not None:
            try:
                self._engine.shutdown(SHUT_WR)
            except OSError:
                return

    def _tell_client(self) -> None:
        try:
            del self._down[: os.write(self._sink, self._down[:_SURE])]
        except BlockingIOError:
            return

    def _attach(self, connection: socket) -> None:
        connection.setblocking(False)
        self._engine = connection
        self._from_engine = _Lines()
        self._up = bytearray(self._open.greeting())
        if not self._up:
            self._be_ready()

    def _be_ready(self) -> None:
        self._ready = True
        self._up += self._open.again()
        self._say(self._open.missed())
        self._say(self._open.give_up("the request was too long to be kept.", all_of_them=False))

    def _lose(self) -> None:
        """Part with an engine that is gone: half a line of its last words is no message, so it ends with it."""
        assert self._engine is not None
        self._engine.close()
        self._engine, self._ready = None, False
        self._up.clear()
        self._say(self._open.lost())
        self._stillborn += 1
        if self._stillborn >= STILLBORN:
            self._stillborn = 0
            self._say(self._open.give_up(f"{STILLBORN} engines in a row ended at once; see `claude-jobs doctor`."))
        self._look_for_an_engine()

    def _look_for_an_engine(self) -> None:
        # Only for a client who waits: who stopped the engine by hand does not want it back at once.
        if self._ended or self._dialling or not self._open.urgent:
            return
        # Imported here: a pump whose engine stays needs no second thread.
        import threading

        self._dialling = True
        threading.Thread(target=self._dial_beside, name="dial", daemon=True).start()

    def _dial_beside(self) -> None:
        try:
            self._dialled = self._dial()
        except (FrontDoorError, OSError) as error:
            self._dialled = error
        os.write(self._wake, b"!")

    def _take_dialled(self) -> None:
        found, self._dialled, self._dialling = self._dialled, None, False
        if isinstance(found, socket):
            self._attach(found)
            self._hang_up_behind_the_last_byte()
        else:
            self._say(self._open.give_up(str(found)))

    def _say(self, lines: list[bytes]) -> None:
        self._down += b"".join(lines)
