"""What stands on the screen of a terminal after something was written."""

import re

_PIECES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\r\n]|[^\x1b\r\n]+")


class Screen:
    """What a terminal shows: lines are kept whole, so that one that is too long can be seen.

    Args:
        lines: Height of the terminal.
    """

    def __init__(self, lines: int) -> None:
        self.height = lines
        self.rows: list[str] = [""]
        self._at = 0
        self.highest = 0

    def feed(self, written: str) -> None:
        """Take what a program wrote, whole escape sequences and characters."""
        for piece in _PIECES.findall(written):
            if piece == "\n":
                self._at += 1
                self.rows += [""] * (self._at + 1 - len(self.rows))
            elif piece.endswith("A") and piece.startswith("\x1b["):
                up = int(piece[2:-1] or 1)
                # What has left the screen at its top cannot be reached any more.
                self.highest = max(self.highest, up)
                self._at = max(self._at - up, len(self.rows) - self.height, 0)
            elif piece == "\x1b[J":
                self.rows[self._at :] = [""]
            elif piece != "\r" and not piece.startswith("\x1b"):
                self.rows[self._at] += piece
