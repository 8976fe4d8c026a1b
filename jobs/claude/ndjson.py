"""Decodes JSON lines from a growing file: bytes in, numbered lines out, in bounded memory and without exceptions."""

import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from jobs.claude.damaged_lines import UnreadableKind, decoded, first_frame, joined, kind_of_unreadable, salvaged
from jobs.processes.attempt_dir import STDERR, STDOUT, AttemptDirectory
from jobs.util import json_values

LINE_LIMIT = 16 * 1024 * 1024
"""Most bytes of one line that are kept. A line of 6 MB was measured on a healthy CLI."""

UNREADABLE_CHARS = 2000
"""Most characters that are kept of a line that is no frame."""

_BEGINNING = 4096
"""Bytes that are kept of the beginning of a line that is too long: they say whether it is a result."""

_CONTROLS = re.compile(rb"[\x00-\x1f]")

_MENDABLE = 64 * 1024
"""Bytes of a damaged line up to which all frames are looked for in it, and the beginning of a torn one is kept: to this
length lines are read on the event loop, and each try costs 1 to 6 ms of it."""

_MAX_LINES_APART = 8
"""Lines after a torn one within which its end is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of output, or a part of a damaged one: the parts have the offsets of the line that they end on.

    Args:
        offset: Byte at which the line begins in the file.
        end: Byte after its last one, the newline included.
        frame: The line as a JSON object, or None where it is none.
        text: The line's first characters where it is no JSON object, else empty.
        dropped: Bytes of a line that was too long to keep, else 0.
        complete: The line ended in a newline; False only for the tail of a closed stream.
        mended: The frame was torn and is put together again, or something was written into it.
        lost: The kind of frame on it that cannot be read, or None. A torn frame may follow, mended.
    """

    offset: int
    end: int
    frame: Mapping[str, Any] | None = None
    text: str = ""
    dropped: int = 0
    complete: bool = True
    mended: bool = False
    lost: UnreadableKind | None = None


class LineDecoder:
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
        self._session = ""
        self._torn = ""
        self._lines_left = 0

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
            self._kept = (self._kept[:_BEGINNING] + part[:_BEGINNING])[:_BEGINNING]

    def _emit(self, lines: list[Line], *, complete: bool) -> None:
        begin, end, payload = self._begin, self.read, bytes(self._kept)
        dropped = self._length if self._length - complete > self._limit else 0
        self._begin, self._length = end, 0
        self._kept.clear()
        if dropped:
            lost = self._kind_of_unreadable(payload) if complete else None
            lines.append(Line(offset=begin, end=end, dropped=dropped, complete=complete, lost=lost))
            self._await_end("")
        elif stripped := payload.strip():
            frame = decoded(_text(stripped)) if stripped.startswith(b"{") else None
            if frame is not None:
                lines.append(self._framed(frame, begin, end, complete, mended=_is_disturbed(stripped)))
                self._await_end("")
            elif len(payload) <= _MENDABLE:
                lines += self._parts(_text(payload), begin, end, complete)
            else:
                lines += self._long_parts(stripped, begin, end, complete)

    def _long_parts(self, line: bytes, begin: int, end: int, complete: bool) -> Iterator[Line]:
        frame = first_frame(_text(line), self._session)
        lost = self._kind_of_unreadable(line) if complete and frame is None else None
        if frame is None:
            text = _text(line[: 4 * UNREADABLE_CHARS])[:UNREADABLE_CHARS]
            yield Line(offset=begin, end=end, text=text, complete=complete, lost=lost)
        else:
            yield self._framed(frame, begin, end, complete)
        self._await_end("")

    def _parts(self, line: str, begin: int, end: int, complete: bool) -> Iterator[Line]:
        if self._torn and (frame := joined(self._torn, line, self._session)) is not None:
            self._torn = ""
            yield self._framed(frame, begin, end, complete, mended=True)
            return
        salvage = salvaged(line, self._session)
        if said := salvage.text.strip():
            lost = kind_of_unreadable(salvage.torn, self._session) if complete else None
            if lost is UnreadableKind.ANSWER and said != salvage.torn.strip():
                # The program that wrote the text in front of it may have printed it.
                lost = UnreadableKind.FRAME
            yield Line(offset=begin, end=end, text=said[:UNREADABLE_CHARS], complete=complete, lost=lost)
        for frame in salvage.frames:
            yield self._framed(frame, begin, end, complete)
        self._await_end(salvage.torn)

    def _framed(self, frame: Mapping[str, Any], begin: int, end: int, complete: bool, *, mended: bool = False) -> Line:
        self._session = self._session or json_values.text(frame.get("session_id"))
        return Line(offset=begin, end=end, frame=frame, complete=complete, mended=mended)

    def _kind_of_unreadable(self, beginning: bytes) -> UnreadableKind | None:
        return kind_of_unreadable(_text(beginning[:_BEGINNING].lstrip()), self._session)

    def _await_end(self, torn: str) -> None:
        if torn:
            self._torn, self._lines_left = torn, _MAX_LINES_APART
            return
        self._lines_left -= 1
        if self._lines_left <= 0:
            self._torn = ""


def _is_disturbed(frame: bytes) -> bool:
    """Tell whether a frame holds what the CLI escapes: something else wrote it there."""
    return _CONTROLS.search(frame) is not None


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "replace")


PIECE = 1024 * 1024
"""Most bytes that one read takes from the file."""


SMALL = 64 * 1024
"""Most bytes that are read and parsed on the event loop: less work than a hop to a thread and back."""


class OutputTail:
    """Reads an attempt's output from a byte on.

    The file stays open: a job that removes its own directory has still been paid for, and may still answer.

    Args:
        directory: The attempt's files.
        files: Descriptors of stdout and stderr where they are open already; it closes them.
    """

    def __init__(self, directory: AttemptDirectory, files: Sequence[int] = ()) -> None:
        self._directory = directory
        self._decoder = LineDecoder()
        self._files = dict(zip((STDOUT, STDERR), files, strict=False))

    def hold(self) -> None:
        """Open what the process writes, stdout and stderr, as far as that has not been done."""
        for name in (STDOUT, STDERR):
            if name not in self._files and (opened := self._directory.open_written(name)) is not None:
                self._files[name] = opened

    def close(self) -> None:
        """Close the files: nothing more is read."""
        while self._files:
            os.close(self._files.popitem()[1])

    @property
    def descriptors(self) -> Sequence[int]:
        """The open files."""
        return tuple(self._files.values())

    def size(self) -> int:
        """Return the bytes that stdout holds."""
        return os.fstat(self._files[STDOUT]).st_size if STDOUT in self._files else self._directory.output_size()

    def written_at(self) -> float | None:
        """Return when stdout was written last, in seconds since the epoch; None where it is not open."""
        return os.fstat(self._files[STDOUT]).st_mtime if STDOUT in self._files else None

    def size_of_all(self) -> int:
        """Return the bytes that stdout and stderr hold together."""
        return sum(os.fstat(descriptor).st_size for descriptor in self._files.values())

    def error_tail(self) -> str:
        """Return the last of what the process wrote to stderr."""
        held = self._files.get(STDERR)
        return "" if held is not None and not os.fstat(held).st_size else self._directory.error_tail()

    async def read(self) -> list[Line] | None:
        """Return the lines that the next piece completes, maybe none, or None where the file holds nothing new."""
        self.hold()
        return await self._read_towards(self.size())

    async def rest(self, most: int = sys.maxsize) -> AsyncIterator[list[Line]]:
        """Yield what is left, piece by piece, an unterminated tail included; the process is over.

        Args:
            most: Bytes of stdout after which nothing more is read: the file may claim any size without being so large.
        """
        self.hold()
        # Asked for once: what a process left behind writes later is no part of the answer.
        size = min(self.size(), most)
        while (lines := await self._read_towards(size)) is not None:
            yield lines
        yield self._decoder.close()

    async def _read_towards(self, size: int) -> list[Line] | None:
        if size <= self._decoder.read:
            return None
        # Parsing a large piece takes up to 20 ms, so it happens in a thread, like the reading.
        small = size - self._decoder.offset <= SMALL
        return self._read() if small else await anyio.to_thread.run_sync(self._read)

    def _read(self) -> list[Line] | None:
        piece = _read_at(self._files[STDOUT], self._decoder.read) if STDOUT in self._files else b""
        return self._decoder.feed(piece) if piece else None


def _read_at(descriptor: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, PIECE, offset)
    except OSError:
        return b""
