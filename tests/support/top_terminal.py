"""`claude-jobs top` in a real terminal of some size, driven by keys."""

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
from contextlib import contextmanager

from tests.support.engines import MAIN, House
from tests.support.grid import Grid
from tests.support.waiting import until_now

SECONDS = 60.0


class TopTerminal:
    """The running view.

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
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def written(self) -> str:
        """Everything that came out so far."""
        return self._written.decode(errors="replace")

    @property
    def grid(self) -> Grid:
        """What is on the screen now."""
        grid = Grid(*self._size)
        grid.feed(self.written)
        return grid

    def shows(self, *words: str) -> None:
        """Wait until all of these words are on the screen."""
        self._until(lambda text: all(word in text for word in words), f"{words}")

    def hides(self, words: str) -> None:
        """Wait until these words are not on the screen."""
        self._until(lambda text: words not in text, f"a screen without {words!r}")

    def _until(self, holds: Callable[[str], bool], what: str) -> None:
        try:
            until_now(lambda: holds(self.grid.text), SECONDS, what)
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{self.grid.text}") from None

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(SECONDS)

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self._written += chunk


@contextmanager
def top(house: House, *arguments: str, lines: int = 24, columns: int = 80, **environ: str) -> Iterator[TopTerminal]:
    """Show a house's jobs in a terminal; at the end the view is killed if it still runs."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**house.environ, "TERM": "xterm-256color", "TZ": "UTC", **environ}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, str(MAIN), "top", *arguments],
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
            yield TopTerminal(process, master, lines, columns)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.close(master)
