"""The characters that the view draws with, and what stands for them where the terminal has no others than ASCII."""

import locale
from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from server.cli.tree_view import STYLES

FOLDED, UNFOLDED, LEAF = "▸ ", "▾ ", "  "

MARKS: Final[Mapping[str, tuple[str, str]]] = {
    **STYLES,
    "asking": ("?", "bold yellow"),
}
"""Mark and style of each state of a job, and of one that asks for a permission."""

_PLAIN: Final[Mapping[str, str]] = {
    "▸": ">",
    "▾": "v",
    "○": "o",
    "◐": "*",
    "●": "+",
    "✗": "x",
    "⧗": "!",
    "⊘": "-",
    "◌": "~",
    "…": ".",
    "·": "-",
    "↵": "^",
    "▲": "!",
    "✻": "*",
    "⎿": "L",
    "─": "-",
    "│": "|",
    "━": "-",
    "┃": "|",
    "█": "#",
    "╭": "+",
    "╮": "+",
    "╰": "+",
    "╯": "+",
}
"""What stands for a character of the view; each takes one column, as the character does."""

_CONSOLE_LACKS: Final = frozenset("▸▾○◐●✗⧗⊘◌↵✻⎿▲")
"""Characters that the fonts of Linux's text console lack, also where its encoding is UTF-8."""


def is_utf8(environ: Mapping[str, str]) -> bool:
    """Tell whether the locale of an environment is one of UTF-8; where none is set, whether Python takes it for one.

    Python itself takes the locale `C` for UTF-8, which is what a person names to get ASCII.
    """
    named = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := environ.get(name))), None)
    chosen = locale.getpreferredencoding(do_setlocale=False) if named is None else named
    return "utf8" in chosen.lower().replace("-", "")


class PlainCharacters(LineFilter):
    """Replaces characters that a terminal cannot show.

    Args:
        ascii_only: Every character that is not ASCII; otherwise only those that Linux's text console lacks.
    """

    def __init__(self, *, ascii_only: bool) -> None:
        super().__init__()
        self._ascii_only = ascii_only

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments in characters that the terminal has; each text keeps its width."""
        del background
        return [Segment(self._plain(text), style, control) for text, style, control in segments]

    def _plain(self, text: str) -> str:
        if text.isascii():
            return text
        if not self._ascii_only:
            return "".join(_PLAIN[char] if char in _CONSOLE_LACKS else char for char in text)
        return "".join(char if char.isascii() else _PLAIN.get(char, "?" * cell_len(char)) for char in text)


def filters_for(environ: Mapping[str, str]) -> Sequence[LineFilter]:
    """Return the filters that an environment's terminal needs."""
    if not is_utf8(environ):
        return (PlainCharacters(ascii_only=True),)
    return (PlainCharacters(ascii_only=False),) if environ.get("TERM") == "linux" else ()
