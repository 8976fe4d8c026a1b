"""The engine's log: one line an entry, without secrets, and with nothing in it that a terminal would obey."""

import logging
import sys
from typing import TextIO

from jobs.redaction import redact
from jobs.safe_text import safe

FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class SafeFormatter(logging.Formatter):
    """Formats an entry, its traceback included, and cleans the whole of it.

    In the formatter and not in a filter: arguments and tracebacks are text only here.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry as it may be shown."""
        return redact(safe(super().format(record)))


def log_to(stream: TextIO, level: str) -> None:
    """Send the log of this process to a stream.

    Args:
        stream: Where it goes.
        level: The least level that is kept, by its name.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeFormatter(FORM))
    logging.basicConfig(handlers=[handler], level=level)


def log_to_stderr(level: str) -> None:
    """Send the log of this process to its standard error, which the engine's launch leads into a file."""
    log_to(sys.stderr, level)
