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
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.engines import MAIN, House
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
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int, lines: int) -> None:
        self.process = process
        self._master = master
        self._lines = lines
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
            screen = Screen(self._lines)
            screen.feed("".join(frames[:count]))
            screens.append(screen)
        return screens

    @property
    def rows(self) -> list[str]:
        """The lines that stand there now, the scrolled ones too."""
        return self.screens[-1].rows

    def wait_for(self, words: str) -> None:
        """Wait until words have been written."""
        until_now(lambda: words in self.written, SECONDS, f"{words!r} in {self.written!r}")

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        os.write(self._master, b"\x03")
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
            yield Seat(process, master, lines)
        finally:
            process.kill()
            process.wait()
            os.close(master)


def _set_size(descriptor: int, lines: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
