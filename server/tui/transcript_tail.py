"""Follows the transcript of the selected job in a thread, from its file."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from jobs.errors import JobsError
from jobs.util.text import strip_terminal_codes
from server.cli.transcript import Selection, followed
from server.client.state_dir import StatePaths

MOST_LINES: Final = 2000
"""Lines of a transcript that are kept, the last ones; `claude-jobs transcript` prints all."""

_AT_ONCE: Final = 500
"""Lines after which those that were read are shown, while there are more."""

OnLines = Callable[["TranscriptTail", Sequence[str]], None]


class _NoLongerWantedError(Exception):
    """Another job is shown now."""


class TranscriptTail:
    """Reads one job's transcript as it is written, until it is over or no longer wanted.

    Args:
        paths: The state directory.
        look: Returns the job's row as it is now, or None where it is gone; called in the reading thread.
        on_lines: Called in that thread with further lines.
    """

    def __init__(self, paths: StatePaths, look: Callable[[], Mapping[str, Any] | None], on_lines: OnLines) -> None:
        self._paths = paths
        self._look = look
        self._on_lines = on_lines
        self._lines: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="transcript", daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether everything was read, because the job is over."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Read no further."""
        self._stopped.set()

    def _read(self) -> None:
        with suppress(_NoLongerWantedError):
            self._follow()
            self._show()

    def _follow(self) -> None:
        try:
            for line in followed(self._paths, self._status, Selection(), lambda _: None):
                self._lines.append(strip_terminal_codes(line))
                if len(self._lines) >= _AT_ONCE:
                    self._show()
        except (JobsError, OSError) as error:
            self._lines.append(str(error))

    def _status(self) -> Mapping[str, Any]:
        self._show()
        row = self._look()
        if self._stopped.is_set() or row is None:
            raise _NoLongerWantedError
        return {"attempt": 0, **row}

    def _show(self) -> None:
        if self._stopped.is_set():
            raise _NoLongerWantedError
        if self._lines:
            lines, self._lines = self._lines[-MOST_LINES:], []
            self._on_lines(self, lines)
