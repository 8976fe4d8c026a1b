"""Follows the growing output file of an attempt, a bounded piece at a time."""

import os

import anyio.to_thread

from jobs.claude.directory import AttemptDirectory
from jobs.claude.framer import Framer, Line

PIECE = 1024 * 1024
"""Most bytes that one read takes from the file."""


class Follower:
    """Reads an attempt's output from a byte on.

    The file stays open: a job that removes its own directory has still been paid for, and may still answer.

    Args:
        directory: The attempt's files.
        offset: Byte from which to read: 0, or what `offset` was when the events up to it were stored.
    """

    def __init__(self, directory: AttemptDirectory, offset: int = 0) -> None:
        self._directory = directory
        self._framer = Framer(offset)
        self._descriptor: int | None = None

    def hold(self, *, create: bool = False) -> None:
        """Open the file, if that has not been done.

        Args:
            create: Make it where there is none: the process is about to be launched.
        """
        if self._descriptor is None:
            self._descriptor = self._directory.open_output(create=create)

    def close(self) -> None:
        """Let the file go: nothing more is read."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def size(self) -> int:
        """Return the bytes that the file holds."""
        return self._directory.output_size() if self._descriptor is None else os.fstat(self._descriptor).st_size

    @property
    def offset(self) -> int:
        """Byte up to which every line has been returned: what to store with them."""
        return self._framer.offset

    async def read(self) -> list[Line] | None:
        """Return the lines that the next piece completes, maybe none, or None where the file holds nothing new."""
        # Parsing a piece takes up to 20 ms, so it happens beside the event loop, like the reading.
        return await anyio.to_thread.run_sync(self._read)

    async def finish(self) -> list[Line]:
        """Return everything that is left, an unterminated tail included; the process is over.

        Memory is bounded by the file here: call `read` until it returns None first, and `finish` once.
        """
        lines: list[Line] = []
        while (more := await self.read()) is not None:
            lines += more
        return lines + self._framer.close()

    def _read(self) -> list[Line] | None:
        self.hold()
        piece = b"" if self._descriptor is None else _read_at(self._descriptor, self._framer.read)
        return self._framer.feed(piece) if piece else None


def _read_at(descriptor: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, PIECE, offset)
    except OSError:
        return b""
