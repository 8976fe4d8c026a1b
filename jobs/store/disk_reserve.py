"""The reserve of the store: a file of disk space for the ends of jobs, released on a full disk."""

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 8 * 1024 * 1024
"""Room for some hundred ends of jobs: one took 12 to 20 kB of the write-ahead log (measured)."""

PIECE_BYTES = 1024 * 1024
"""Bytes of it that are released at once."""

MARGIN_BYTES = 8 * 1024 * 1024
"""Bytes of free space below which nothing new is started: a new job needs files too."""


class Reserve:
    """A file of a fixed size that is released on a full disk and made again once there is space.

    Its methods block for a moment; the file system is a local one, as SQLite's write-ahead log demands.

    Args:
        path: The file.
        size: Bytes of the file.
        margin: Bytes that must be free besides it.
    """

    def __init__(self, path: Path, *, size: int = RESERVE_BYTES, margin: int = MARGIN_BYTES) -> None:
        self._path = path
        self._size = size
        self._margin = margin
        self._whole = False

    def ready(self) -> bool:
        """Tell whether something new may be begun: the file is there, or can be made now, and the margin is free."""
        needed = self._margin if self._whole else self._margin + self._size - self._kept()
        return self._free() >= needed and (self._whole or self._fill())

    def shortfall(self) -> int:
        """Return how many more bytes must be free before something new may be begun; 0 where it may."""
        return max(0, self._margin + self._size - self._kept() - self._free())

    def release(self) -> bool:
        """Give a piece of the space back to the disk, and tell whether there was any."""
        self._whole = False
        kept = self._kept()
        with suppress(OSError):
            # Piece by piece: another program that fills the disk takes a piece, and not the whole of it.
            if kept > PIECE_BYTES:
                os.truncate(self._path, kept - PIECE_BYTES)
            else:
                self._path.unlink()
        return kept > 0

    def _fill(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            self._allocate(descriptor)
            self._whole = True
        except OSError:
            with suppress(OSError):
                self._path.unlink()
        finally:
            os.close(descriptor)
        return self._whole

    def _allocate(self, descriptor: int) -> None:
        allocate = getattr(os, "posix_fallocate", None)
        if allocate is not None:
            allocate(descriptor, 0, self._size)
        elif os.fstat(descriptor).st_size < self._size:
            # macOS: a hole would hold no space, so the bytes are written.
            os.pwrite(descriptor, bytes(self._size), 0)

    def _kept(self) -> int:
        try:
            return min(self._path.lstat().st_size, self._size)
        except OSError:
            return 0

    def _free(self) -> int:
        try:
            status = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return status.f_bavail * status.f_frsize


def reserve_beside(database: Path) -> Reserve:
    """Return the usual reserve of a database."""
    return Reserve(database.with_name(f"{database.name}.reserve"))
