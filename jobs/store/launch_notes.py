"""Notes of the process of each attempt, written with the store's next transaction or after a second."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from jobs.model import Attempt
from jobs.store.queries import SQL
from jobs.store.writer import Transactions

logger = logging.getLogger(__name__)

DELAY = 1.0
"""Seconds for which a note waits for a transaction that it can share."""

Key = tuple[str, int]
"""Id of the job and number of the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessNote:
    """The process of an attempt.

    Args:
        pid: Process id of the shim.
        start: When that process started, in the unit of the platform.
    """

    pid: int
    start: float


class LaunchNotes:
    """Notes that share the transactions of other writes.

    Args:
        writer: Whose transactions they share.
        on_error: Told of an error of the storage; the note is then tried again.
    """

    def __init__(self, writer: Transactions, on_error: Callable[[sqlite3.Error], object]) -> None:
        self._writer = writer
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Notes that are not known to be on the disk, and those of them that are in no transaction yet.
        self._known: dict[Key, ProcessNote] = {}
        self._waiting: dict[Key, ProcessNote] = {}

    def note(self, key: Key, process: ProcessNote) -> None:
        """Keep a note until it is written; return at once."""
        self._known[key] = self._waiting[key] = process
        if self._timer is None:
            self._timer = self._loop.call_later(DELAY, self.post)

    def take(self, key: Key) -> ProcessNote | None:
        """Return a note that waits, for its taker to write it; None where none waits."""
        return self._waiting.pop(key, None)

    def written(self, key: Key) -> None:
        """Forget a note that its taker has written."""
        self._known.pop(key, None)

    def seen_in(self, attempt: Attempt) -> Attempt:
        """Return an attempt of the database with what is noted of it."""
        process = self._known.get((attempt.job_id, attempt.number))
        return attempt if process is None else replace(attempt, pid=process.pid, pid_start=process.start)

    def post(self) -> "asyncio.Future[None] | None":
        """Queue what waits for the next transaction; return a future that ends with it, or None where nothing waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return None
        riding, self._waiting = self._waiting, {}
        future = self._writer.post(partial(_write, notes=riding))
        future.add_done_callback(partial(self._over, riding))
        return future

    async def close(self) -> None:
        """Write what waits and keep no timer."""
        if (last := self.post()) is not None:
            # `_over` logs what goes wrong.
            with suppress(sqlite3.Error):
                await last
        if self._timer is not None:
            self._timer.cancel()

    def _over(self, riding: Mapping[Key, ProcessNote], future: "asyncio.Future[None]") -> None:
        error = future.exception()
        if error is None:
            for key, process in riding.items():
                if self._known.get(key) is process:
                    del self._known[key]
            return
        logger.warning("the processes of %d attempts could not be recorded now: %s", len(riding), error)
        if isinstance(error, sqlite3.Error):
            self._on_error(error)
        # A note that was replaced meanwhile is newer, and one that was written with an end is not known any more.
        for key, process in riding.items():
            if self._known.get(key) is process:
                self.note(key, process)


def _write(connection: sqlite3.Connection, notes: Mapping[Key, ProcessNote]) -> None:
    rows = [(process.pid, process.start, *key) for key, process in notes.items()]
    connection.executemany(SQL["record_launch"], rows)
