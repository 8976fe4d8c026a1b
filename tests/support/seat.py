"""A command in a terminal of some size, and what stands on its screen."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.support.engines import MAIN, House
from tests.support.grid import Grid
from tests.support.screen import Screen
from tests.support.waiting import until_now

SECONDS = 60.0
"""Bound of each wait."""


class Seat:
    """A command that runs in a terminal.

    Args:
        process: The command.
        master: The terminal's other side.
        lines: Its height.
        columns: Its width.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int, lines: int, columns: int) -> None:
        self.process = process
        self._master = master
        self._size = (lines, columns)
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def written(self) -> str:
        """Everything that came out so far."""
        return self._bytes.decode(errors="ignore")

    @property
    def screens(self) -> list[Screen]:
        """The screen after each redrawing, the last one being that of now."""
        frames = self.written.split("\x1b[?7h")
        screens = []
        for count in range(1, len(frames) + 1):
            screen = Screen(self._size[0])
            screen.feed("".join(frames[:count]))
            screens.append(screen)
        return screens

    @property
    def rows(self) -> list[str]:
        """The lines that stand there now, the scrolled ones too."""
        return self.screens[-1].rows

    @property
    def grid(self) -> Grid:
        """What is on the screen now of a program that fills it."""
        grid = Grid(*self._size)
        grid.feed(self.written)
        return grid

    def shows(self, *words: str) -> None:
        """Wait until all of these words are on the screen of a program that fills it."""
        self._until(lambda text: all(word in text for word in words), f"{words}")

    def hides(self, words: str) -> None:
        """Wait until these words are not on the screen of a program that fills it."""
        self._until(lambda text: words not in text, f"a screen without {words!r}")

    def _until(self, holds: Callable[[str], bool], what: str) -> None:
        try:
            until_now(lambda: holds(self.grid.text), SECONDS, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{self.grid.text}") from None

    def wait_for(self, words: str) -> None:
        """Wait until words have been written."""
        until_now(lambda: words in self.written, SECONDS, f"{words!r} in {self.written!r}")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self.type("\x03")
        return self.end()

    def end(self) -> int:
        """Wait for the command's end and return its exit status."""
        status = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return status

    def resize(self, lines: int, columns: int) -> None:
        """Give the terminal another size."""
        _set_size(self._master, lines, columns)
        self.process.send_signal(signal.SIGWINCH)

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self._bytes += chunk


@contextmanager
def seated(house: House, *arguments: str, lines: int = 40, columns: int = 80, **environ: str) -> Iterator[Seat]:
    """Run a command in a terminal; at the end it is killed if it still runs."""
    master, slave = pty.openpty()
    _set_size(master, lines, columns)
    environment = {**house.environ, "TERM": "xterm-256color", **environ}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        # A session of its own has no terminal until one is opened there: then Ctrl-C is a signal.
        ["/bin/sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(slave), sys.executable, str(MAIN), *arguments],
        env=environment,
        cwd=house.work,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    with process:
        try:
            yield Seat(process, master, lines, columns)
        finally:
            process.kill()
            process.wait()
            os.close(master)


def top(
    house: House, *arguments: str, lines: int = 24, columns: int = 80, **environ: str
) -> AbstractContextManager[Seat]:
    """Show a house's jobs in a terminal, with times in UTC."""
    return seated(house, "top", *arguments, lines=lines, columns=columns, TZ="UTC", **environ)


def _set_size(descriptor: int, lines: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
