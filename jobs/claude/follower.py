"""Follows the growing output file of an attempt, a bounded piece at a time."""

import anyio.to_thread

from jobs.claude.directory import AttemptDirectory
from jobs.claude.framer import Framer, Line

PIECE = 1024 * 1024
"""Most bytes that one read takes from the file."""


class Follower:
    """Reads an attempt's output from a byte on.

    Args:
        directory: The attempt's files.
        offset: Byte from which to read: 0, or what `offset` was when the events up to it were stored.
    """

    def __init__(self, directory: AttemptDirectory, offset: int = 0) -> None:
        self._directory = directory
        self._framer = Framer(offset)

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
        piece = self._directory.read_output(self._framer.read, PIECE)
        return self._framer.feed(piece) if piece else None
