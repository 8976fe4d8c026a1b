"""A line framer for hostile output: bytes in, numbered lines out, bounded memory, never an exception."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LINE_LIMIT = 16 * 1024 * 1024
"""Most bytes of one line that are kept. A line of 6 MB was measured on a healthy CLI."""

_TEXT_LIMIT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of output.

    Args:
        offset: Byte at which the line begins in the file.
        end: Byte after its last one, the newline included.
        frame: The line as a JSON object, or None where it is none.
        text: The line's first characters where it is no JSON object, else empty.
        dropped: Bytes of a line that was too long to keep, else 0.
        complete: The line ended in a newline; False only for the tail of a closed stream.
    """

    offset: int
    end: int
    frame: Mapping[str, Any] | None = None
    text: str = ""
    dropped: int = 0
    complete: bool = True


class Framer:
    """Cuts a stream of bytes into lines, however the stream is chunked.

    Args:
        offset: Byte of the file at which the first chunk begins; it must be the beginning of a line.
        limit: Most bytes of one line that are kept; a longer line is counted and dropped.
    """

    def __init__(self, offset: int = 0, *, limit: int = LINE_LIMIT) -> None:
        self._begin = offset
        self._limit = limit
        self._kept = bytearray()
        self._length = 0

    @property
    def offset(self) -> int:
        """Byte at which the line that is under way begins: everything before it has been returned."""
        return self._begin

    @property
    def read(self) -> int:
        """Byte at which the next chunk must begin."""
        return self._begin + self._length

    def feed(self, chunk: bytes) -> list[Line]:
        """Take the next bytes and return the lines that they complete, blank ones left out."""
        lines: list[Line] = []
        at = 0
        while (newline := chunk.find(b"\n", at)) >= 0:
            self._keep(chunk[at:newline])
            self._length += 1
            self._emit(lines, complete=True)
            at = newline + 1
        self._keep(chunk[at:])
        return lines

    def close(self) -> list[Line]:
        """Return the unterminated tail, if there is one; the stream is over."""
        lines: list[Line] = []
        if self._length:
            self._emit(lines, complete=False)
        return lines

    def _keep(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= self._limit:
            self._kept += part
        else:
            self._kept.clear()

    def _emit(self, lines: list[Line], *, complete: bool) -> None:
        begin, end, payload = self._begin, self.read, bytes(self._kept)
        dropped = 0 if payload or self._length - complete <= self._limit else self._length
        self._begin, self._length = end, 0
        self._kept.clear()
        if dropped:
            lines.append(Line(offset=begin, end=end, dropped=dropped, complete=complete))
        elif stripped := payload.strip():
            frame = _parse(stripped)
            text = "" if frame is not None else stripped[: 4 * _TEXT_LIMIT].decode("utf-8", "replace")[:_TEXT_LIMIT]
            lines.append(Line(offset=begin, end=end, frame=frame, text=text, complete=complete))


def _parse(payload: bytes) -> Mapping[str, Any] | None:
    if not payload.startswith(b"{"):
        return None
    try:
        value = json.loads(payload.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        # RecursionError: nesting of 100,000 brackets; ValueError: broken JSON, or an integer of 5,000 digits.
        return None
    return value if isinstance(value, dict) else None
