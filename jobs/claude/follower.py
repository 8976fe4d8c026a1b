"""Follows the growing output file of an attempt, a bounded piece at a time."""

import os
import sys
from collections.abc import AsyncIterator, Sequence

import anyio.to_thread

from jobs.claude.directory import STDERR, STDOUT, AttemptDirectory
from jobs.claude.framer import Framer, Line

PIECE = 1024 * 1024
"""Most bytes that one read takes from the file."""


SMALL = 64 * 1024
"""Most bytes that are read and parsed on the event loop: less work than a hop to a thread and back."""


class Follower:
    """Reads an attempt's output from a byte on.

    The file stays open: a job that removes its own directory has still been paid for, and may still answer.

    Args:
        directory: The attempt's files.
        files: Descriptors of stdout and stderr where they are open already; it closes them.
    """

    def __init__(self, directory: AttemptDirectory, files: Sequence[int] = ()) -> None:
        self._directory = directory
        self._framer = Framer()
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
        # Asked for once: what a process left behind goes on to write is nobody's answer.
        size = min(self.size(), most)
        while (lines := await self._read_towards(size)) is not None:
            yield lines
        yield self._framer.close()

    async def _read_towards(self, size: int) -> list[Line] | None:
        if size <= self._framer.read:
            return None
        # Parsing a large piece takes up to 20 ms, so it happens beside the event loop, like the reading.
        small = size - self._framer.offset <= SMALL
        return self._read() if small else await anyio.to_thread.run_sync(self._read)

    def _read(self) -> list[Line] | None:
        piece = _read_at(self._files[STDOUT], self._framer.read) if STDOUT in self._files else b""
        return self._framer.feed(piece) if piece else None


def _read_at(descriptor: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, PIECE, offset)
    except OSError:
        return b""
