"""The screen of a terminal, as far as a full-screen program of Textual needs one: what stands where, in which style."""

import re
from dataclasses import dataclass

from rich.cells import cell_len

_PIECES = re.compile(
    r"\x1b\[([0-?]*)[ -/]*([@-~])|\x1b[\]P_^][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\r\n\x07\x08]|[^\x1b\r\n\x07\x08]+"
)


@dataclass(frozen=True)
class Cell:
    """One column of a line.

    Args:
        text: A character; empty behind a wide one.
        style: The parameters of the sequences that set its style since the last reset.
    """

    text: str = " "
    style: str = ""


class Grid:
    """What a terminal of some size shows.

    Args:
        lines: Its height.
        columns: Its width.
    """

    def __init__(self, lines: int, columns: int) -> None:
        self._size = (lines, columns)
        self._cells = [[Cell()] * columns for _ in range(lines)]
        self._line = self._column = 0
        self._style = ""

    def feed(self, written: str) -> None:
        """Take what a program wrote, whole sequences and characters."""
        for found in _PIECES.finditer(written):
            piece, parameters, kind = found[0], found[1], found[2]
            if kind == "H":
                line, _, column = (parameters or "1;1").partition(";")
                self._line, self._column = int(line or 1) - 1, int(column or 1) - 1
            elif kind == "m":
                self._style = "" if parameters in ("", "0") else f"{self._style};{parameters}".lstrip(";")
            elif kind == "J":
                self._cells = [[Cell()] * self._size[1] for _ in range(self._size[0])]
            elif piece == "\r":
                self._column = 0
            elif piece == "\n":
                self._line += 1
            elif not piece.startswith("\x1b") and piece.isprintable():
                self._write(piece)

    def _write(self, text: str) -> None:
        for char in text:
            width = cell_len(char)
            if self._line < self._size[0] and self._column + width <= self._size[1] and width:
                self._cells[self._line][self._column] = Cell(char, self._style)
                if width == 2:
                    self._cells[self._line][self._column + 1] = Cell("", self._style)
            self._column += width

    @property
    def rows(self) -> list[str]:
        """Its lines, without blanks at their ends."""
        return ["".join(cell.text for cell in line).rstrip() for line in self._cells]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.rows)

    @property
    def styled(self) -> str:
        """All of it, with the sequences that set the styles."""
        lines = []
        for line in self._cells:
            shown, style = "", ""
            for cell in line:
                if cell.style != style:
                    shown += f"\x1b[0m\x1b[{cell.style}m" if cell.style else "\x1b[0m"
                    style = cell.style
                shown += cell.text
            lines.append(f"{shown}\x1b[0m")
        return "\n".join(lines)
