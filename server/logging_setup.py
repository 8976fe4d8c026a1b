"""The engine's log: one line per entry, without secrets and without terminal control codes."""

import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from jobs.util.text import redact, strip_terminal_codes

MAX_LOG_BYTES = 8 * 1024 * 1024
"""Size from which on the engine's log is rotated: about 80,000 entries."""

LOG_COPIES = 2
"""How many older logs are kept next to it."""

FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class SafeFormatter(logging.Formatter):
    """Formats an entry with its traceback, and removes secrets and control codes from all of it.

    Not a filter: arguments and tracebacks become text only here.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry as it may be shown."""
        return redact(strip_terminal_codes(super().format(record)))


class RotatingHandler(logging.StreamHandler[TextIO]):
    """Keeps the file behind a stream from growing without bound.

    A file that has become too long is copied to "NAME.1" and then emptied, so it stays the same open file: standard
    output and error of the engine go there too, and a `flock` on it shows that the engine lives. `logging.handlers` has
    no handler for a file that others have open.

    Args:
        stream: Opened for appending to the file.
        path: The file.
        max_bytes: Size from which on it is emptied.
        copies: How many older files are kept.
    """

    def __init__(self, stream: TextIO, path: Path, *, max_bytes: int = MAX_LOG_BYTES, copies: int = LOG_COPIES) -> None:
        super().__init__(stream)
        self._path = path
        self._max_bytes = max_bytes
        self._copies = copies

    def emit(self, record: logging.LogRecord) -> None:
        """Write an entry, and rotate after it where the file has become too long."""
        super().emit(record)
        # A full disk: the entry is written or not, and its writer goes on.
        with suppress(OSError):
            if os.fstat(self.stream.fileno()).st_size > self._max_bytes:
                self._rotate()

    def _rotate(self) -> None:
        for number in range(self._copies - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._copy(number).rename(self._copy(number + 1))
        part = self._path.with_name(f"{self._path.name}.part")
        # Without the copy the file is emptied all the same: its bound matters more where the disk is full.
        with suppress(OSError):
            target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with self._path.open("rb") as source, os.fdopen(target, "wb") as copy:
                shutil.copyfileobj(source, copy)
            part.rename(self._copy(1))
        os.ftruncate(self.stream.fileno(), 0)

    def _copy(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def log_to(stream: TextIO, level: str, *, path: Path | None = None) -> None:
    """Send the log of this process to a stream.

    Args:
        stream: Where it goes.
        level: Name of the lowest level that is written.
        path: The file behind the stream, to be rotated; None where it is not the engine's log.
    """
    handler = logging.StreamHandler(stream) if path is None else RotatingHandler(stream, path)
    handler.setFormatter(SafeFormatter(FORM))
    logging.basicConfig(handlers=[handler], level=level)


def log_to_stderr(level: str, *, path: Path | None = None) -> None:
    """Send the log of this process to its standard error, which the engine's start redirects to a file.

    Args:
        level: Name of the lowest level that is written.
        path: That file, where it is the engine's own log.
    """
    log_to(sys.stderr, level, path=path)
