"""Takes snapshots of the database, so that a recent copy exists if the database is damaged."""

import logging
import shutil
import sqlite3
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from jobs.errors import StoreError
from jobs.ports import Clock
from jobs.store.corruption import is_damage, note_damage, take_snapshot

logger = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""Seconds between two looks: this far behind is the snapshot of an engine whose jobs are over."""

BUSY_SECONDS = 600.0
"""Seconds between two snapshots while jobs run."""

SHARE = 100
"""A snapshot that took a second is followed by no other for this many: at most 1 % of a core and of the disk."""

_SPACE = 2
"""Times the size of the database that must be free: the copy must not be what fills the disk."""


class CountsChanges(Protocol):
    """An open store that counts its changes."""

    @property
    def changes(self) -> int:
        """A number that grows whenever something is written."""
        ...

    async def has_unfinished(self) -> bool:
        """Tell whether a job is queued or running."""
        ...


class Snapshots:
    """Takes snapshots of one database.

    Args:
        store: The open store.
        database: Its file.
        clock: Time.
    """

    def __init__(self, store: CountsChanges, database: Path, clock: Clock) -> None:
        self._store = store
        self._database = database
        self._clock = clock
        self._changes = store.changes
        self._taken_at = clock.monotonic()
        self._took = 0.0

    async def keep(self) -> None:
        """Take a snapshot whenever one is due, for ever."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            try:
                if await self.due():
                    await self.take()
            except (StoreError, sqlite3.Error, OSError) as error:
                if is_damage(error):
                    note_damage(self._database, str(error))
                logger.warning("the snapshot of the database could not be taken: %s", error)

    async def due(self) -> bool:
        """Tell whether something has changed, the last snapshot is old enough, and there is space for another."""
        since = self._clock.monotonic() - self._taken_at
        if self._store.changes == self._changes or since < SHARE * self._took:
            return False
        if since < BUSY_SECONDS and await self._store.has_unfinished():
            return False
        size = self._database.stat().st_size
        return shutil.disk_usage(self._database.parent).free > _SPACE * size

    async def take(self) -> None:
        """Take one now.

        Raises:
            sqlite3.Error: The database cannot be read, or the copy not be written.
            OSError: The copy cannot be named.
        """
        changes, begin = self._store.changes, self._clock.monotonic()
        await anyio.to_thread.run_sync(take_snapshot, self._database)
        self._changes = changes
        self._taken_at = self._clock.monotonic()
        self._took = self._taken_at - begin
