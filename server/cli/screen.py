"""Live views of jobs: redrawn in place in a terminal, elsewhere a line for each change of a job."""

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from server.cli.console import note
from server.cli.doing import asks
from server.cli.lines import is_screen, show, width_of
from server.cli.tree_view import LIVE, Picture, change_line, draw

_NO_WRAP, _WRAP, _ERASE_BELOW = "\x1b[?7l", "\x1b[?7h", "\x1b[J"

_MOST_CHANGES = 100
"""Most changes of jobs that are printed after one poll."""

_PIPED_HEIGHT = 100
"""Most lines of the last drawing where there is no terminal."""


class LiveView(Protocol):
    """Shows a picture of jobs, updated repeatedly."""

    def show(self, picture: Picture) -> None:
        """Show the present picture."""

    def close(self, picture: Picture) -> None:
        """Show the last picture."""


def live_view_on(console: Console, tell: Callable[[str], None]) -> LiveView:
    """Return the live view for a console.

    Args:
        console: The console.
        tell: Reports why jobs wait, where no drawing shows it.
    """
    return _Screen(console) if is_screen(console) else _Log(console, tell)


class Redrawn:
    """Lines of a terminal that are redrawn in place.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths: list[int] = []
        if threading.current_thread() is threading.main_thread():
            # After Ctrl-Z and `fg` the shell's lines are below the drawing: the next one is a new one.
            signal.signal(signal.SIGCONT, lambda *_: self._widths.clear())

    def put(self, lines: Sequence[Text]) -> None:
        """Show lines in the place of those before.

        Args:
            lines: Each at most as wide as the terminal, and fewer than it has.
        """
        with self._console.capture() as capture:
            show(self._console, lines)
        # A terminal that has become narrower shows an earlier line in several.
        width = max(1, self._console.width)
        above = sum(max(1, -(-columns // width)) for columns in self._widths)
        up = f"\x1b[{above}A" if above else ""
        # Where terminal and rich disagree on a character's width, the line is cut instead of broken: the next drawing
        # must find the first line of this one. In one write, so that nothing flickers.
        self._console.file.write(f"{up}\r{_ERASE_BELOW}{_NO_WRAP}{capture.get()}{_WRAP}")
        self._console.file.flush()
        self._widths[:] = [cell_len(line.plain) for line in lines]

    def clear(self) -> None:
        """Remove the lines."""
        if self._widths:
            self.put(())


class _Screen:
    """Draws each picture in the place of the one before, within the terminal's present size."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = Redrawn(console)

    def show(self, picture: Picture) -> None:
        # One line less: the cursor is in the line below the drawing.
        self._lines.put(draw(picture, width=self._console.width, height=self._console.height - 1))

    def close(self, picture: Picture) -> None:
        self.show(picture)


class _Log:
    """Prints a line for each job that began or ended, and draws at the end."""

    def __init__(self, console: Console, tell: Callable[[str], None]) -> None:
        self._console = console
        self._tell = tell
        self._known: dict[str, str] | None = None
        self._asked: set[str] = set()

    def show(self, picture: Picture) -> None:
        now = time.time()
        before = self._known if self._known is not None else _over(picture.jobs)
        changed = [job for job in picture.jobs if job["status"] not in ("queued", before.get(job["jobId"]))]
        show(self._console, [change_line(job, now) for job in changed[:_MOST_CHANGES]])
        if (left := len(changed) - _MOST_CHANGES) > 0:
            show(self._console, [f"… {left} more jobs began or ended"])
        self._known = {job["jobId"]: job["status"] for job in picture.jobs}
        self._console.file.flush()
        self._tell(picture.paused)
        for job in picture.jobs:
            request = picture.requests.get(job["jobId"], "")
            if request and request not in self._asked:
                self._asked.add(request)
                note(asks(job["jobId"], request, str(job.get("waitingBecause") or ""), picture.command))

    def close(self, picture: Picture) -> None:
        self.show(picture)
        show(self._console, draw(picture, width=width_of(self._console), height=_PIPED_HEIGHT))


def _over(jobs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the jobs that were over at the first poll: they are drawn at the end, and not printed as changes."""
    return {job["jobId"]: job["status"] for job in jobs if job["status"] not in LIVE}
