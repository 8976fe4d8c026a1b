"""Opens the store whatever became of its file: what a snapshot lacks is brought back from the jobs' directories."""

import json
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import anyio.to_thread

from jobs.errors import StoreError
from jobs.model import Job
from jobs.store.repair import Condition, marked_open, renew_mark, restore_where_damaged
from jobs.store.restoration import Found, Standing
from jobs.upkeep.traces import found_in, lacking, traces_under

logger = logging.getLogger(__name__)


class Restorable(Protocol):
    """A store whose rows can be brought back."""

    async def standing(self, job_ids: Sequence[str]) -> Mapping[str, Standing]:
        """Return how far the row of each of these jobs is that has one, by its id."""
        ...

    async def unfinished(self) -> Sequence[Job]:
        """Return every job that is not over."""
        ...

    async def restore(self, found: Found) -> bool:
        """Write what the rows lack of a job; return whether they lacked something."""
        ...


S = TypeVar("S", bound=Restorable)

CLOCK_STEP = 2.0
"""Seconds by which two times of files may be too far apart: the coarsest step of a file system's clock (FAT)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """What was wrong with the database, and what could be brought back.

    Args:
        at: Seconds since the epoch.
        damage: What was wrong.
        aside: Where the damaged file is now, or None.
        snapshot_at: Seconds since the epoch of the snapshot that took its place, or None where there was none.
        restored: Jobs that were brought back, or on to where they had been, from their directories.
        unreadable: Jobs of which there is a directory that does not say enough.
    """

    at: float
    damage: str
    aside: str | None
    snapshot_at: float | None
    restored: int
    unreadable: int

    def __str__(self) -> str:
        """Say it to a person."""
        taken = (
            "none" if self.snapshot_at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.snapshot_at))
        )
        return (
            f"The job database was damaged ({self.damage}). Snapshot used: {taken}; jobs brought back from their "
            f"directories: {self.restored}; jobs that could not be: {self.unreadable}. Jobs that were still queued "
            f"after that snapshot are lost: submit them again. The damaged file: {self.aside or 'none'}."
        )


def report_path(database: Path) -> Path:
    """Return the file that holds the last rescue; a person may delete it."""
    return database.with_name("rescue.json")


def last_rescue(database: Path) -> Rescue | None:
    """Return the last rescue of this database, or None."""
    try:
        return Rescue(**json.loads(report_path(database).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def damage_words(damage: str) -> str:
    """Say to a person that a database in use was found damaged, and what to do."""
    return (
        f"The job database is damaged ({damage}). What can still be read goes on. Run `claude-jobs engine stop`: jobs "
        "that run go on, and the next start replaces the file by the last snapshot and what the jobs' directories say."
    )


@asynccontextmanager
async def open_rescued(
    database: Path, trees: Path, opening: Callable[[Path], AbstractAsyncContextManager[S]]
) -> AsyncIterator[S]:
    """Open the store of a state directory, repaired where it must be, until the context ends.

    Args:
        database: The database.
        trees: Directory of the job directories, one directory a tree.
        opening: Opens the store of a database that can be opened.

    Raises:
        StoreError: The files cannot be read or written now.
        SchemaTooNewError: A newer version of this package wrote the database.
    """
    try:
        condition = await anyio.to_thread.run_sync(_repaired, database, trees)
    except (sqlite3.Error, OSError) as error:
        raise StoreError("look at its file", str(error)) from error
    with marked_open(database):
        async with opening(database) as store:
            if not condition.clean:
                await _bring_back(store, database, trees, condition)
                await anyio.to_thread.run_sync(renew_mark, database)
            yield store


def _repaired(database: Path, trees: Path) -> Condition:
    return restore_where_damaged(database, has_past=lambda: next(traces_under(trees), None) is not None)


async def _bring_back(store: Restorable, database: Path, trees: Path, condition: Condition) -> None:
    # After a crash alone, only what was added while that engine ran can be missing.
    since = None if condition.open_since is None else condition.open_since - CLOCK_STEP
    live = frozenset(job.root_id for job in await store.unfinished())
    traces = await anyio.to_thread.run_sync(lambda: list(traces_under(trees, since=since, live=live)))
    known = await store.standing([trace.directory.name for trace in traces])
    restored = unreadable = 0
    for directory in await anyio.to_thread.run_sync(lacking, traces, known):
        if await _restored(store, directory):
            restored += 1
        elif directory.name not in known:
            unreadable += 1
    if condition.damage is None and not restored:
        return
    rescue = Rescue(
        at=time.time(),
        damage=condition.damage or "its log had lost its end",
        aside=None if condition.aside is None else str(condition.aside),
        snapshot_at=condition.snapshot_at,
        restored=restored,
        unreadable=unreadable,
    )
    logger.warning("%s", rescue)
    await anyio.to_thread.run_sync(_write_report, database, rescue)


async def _restored(store: Restorable, directory: Path) -> bool:
    try:
        found = await anyio.to_thread.run_sync(found_in, directory)
        return found is not None and await store.restore(found)
    except StoreError as error:
        if error.passing:
            raise
        # What it hangs below could not be brought back.
        logger.warning("job %s cannot be brought back: %s", directory.name, error.cause)
    except Exception:
        # What jobs left there has any form: one directory must not keep the engine from its start.
        logger.exception("job %s cannot be brought back", directory.name)
    return False


def _write_report(database: Path, rescue: Rescue) -> None:
    part = report_path(database).with_suffix(".part")
    part.write_text(json.dumps(asdict(rescue), indent=2), encoding="utf-8")
    part.rename(report_path(database))
