"""Takes out of text that others wrote whatever a terminal would obey."""

import re
import unicodedata

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor and the like
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # titles, clipboard and the like
    r"|\x1b[@-_]"
)
_KEPT = "\n\t\u200c\u200d"
"""Newline, tab, and the two joiners that Persian, Hindi and composed emoji are spelled with."""


def safe(text: str) -> str:
    """Return text that can do nothing to a terminal.

    No escape sequence is left, and no control or format character but newline, tab and the two joiners of letters.
    """
    plain = _ESCAPES.sub("", text)
    return "".join(
        char for char in plain if char in _KEPT or unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs"}
    )
