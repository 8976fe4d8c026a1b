"""A damaged or missing database: noticed when it is opened, moved aside, and replaced by the last snapshot."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.store.queries import SQL

_LOGS = ("-wal", "-shm")

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
"""What SQLite says of a file that another try will not read either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """In what state the database was found, once it can be opened again.

    Args:
        clean: It was closed in order, or never existed: nothing can be missing from it.
        damage: What was wrong with it, or None.
        aside: Where the damaged file is now, or None where there was no file.
        snapshot_at: Seconds since the epoch at which the snapshot in its place was taken, or None where it is empty.
    """

    clean: bool
    damage: str | None = None
    aside: Path | None = None
    snapshot_at: float | None = None


def snapshot_of(database: Path) -> Path:
    """Return where the snapshot of a database is kept."""
    return database.with_name(f"{database.name}.snapshot")


def restore_where_damaged(database: Path, *, has_past: bool) -> Condition:
    """Look at a database that nobody has open, and put the last snapshot in its place where it cannot be used.

    Blocks; meant for a worker thread.

    Args:
        database: The file; it may be missing.
        has_past: There are jobs' directories, so a missing file is a loss.

    Raises:
        sqlite3.Error: The file cannot be looked at now.
        OSError: The file cannot be moved, or the snapshot not be copied.
    """
    clean = not _mark(database).exists()
    damage = _damage(database, has_past=has_past or snapshot_of(database).exists())
    if damage is None:
        return Condition(clean=clean)
    aside = _move_aside(database)
    return Condition(clean=False, damage=damage, aside=aside, snapshot_at=_restore(database))


@contextmanager
def marked_open(database: Path) -> Iterator[None]:
    """Mark the database as open until the context ends in order; a mark that is found tells of a crash."""
    # The mark is touched where the disk is full too, since it takes no block.
    _mark(database).touch(mode=0o600)
    yield
    with suppress(OSError):
        _mark(database).unlink()


def take_snapshot(database: Path) -> None:
    """Copy the database, open as it may be, to its snapshot, which is replaced when the copy is whole and on disk.

    Blocks for about as long as the disk takes to read and write the file; writers go on meanwhile.

    Raises:
        sqlite3.Error: The database cannot be read, or the copy not be written.
        OSError: The copy cannot be named.
    """
    part = _part(database)
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript(SQL["open_copier"])
        # A copy through one read transaction: the backup interface would begin anew whenever a writer commits.
        connection.execute(SQL["snapshot"], (str(part),))
    _sync(part)
    part.rename(snapshot_of(database))
    _sync(database.parent)


def _damage(database: Path, *, has_past: bool) -> str | None:
    if not database.exists() or not database.stat().st_size:
        return "it was missing" if has_past else None
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            found: str = connection.execute(SQL["quick_check"]).fetchone()[0]
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF not in _DAMAGE and code != sqlite3.SQLITE_IOERR_SHORT_READ:
            raise
        return str(error)
    return None if found == "ok" else found.replace("\n", " ")


def _move_aside(database: Path) -> Path | None:
    aside = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    for number in range(1, 1000):
        if not aside.exists():
            break
        aside = aside.with_name(f"{aside.name.partition('_')[0]}_{number}")
    # The log first: without it the file that is still in place is missed at the next start, not half used.
    for suffix in (*_LOGS, ""):
        with suppress(FileNotFoundError):
            database.with_name(f"{database.name}{suffix}").rename(f"{aside}{suffix}")
    return aside if aside.exists() else None


def _restore(database: Path) -> float | None:
    snapshot = snapshot_of(database)
    part = _part(database)
    try:
        shutil.copyfile(snapshot, part)
        at = snapshot.stat().st_mtime
    except FileNotFoundError:
        return None
    if _damage(part, has_past=True) is not None:
        part.unlink()
        return None
    part.chmod(0o600)
    _sync(part)
    part.rename(database)
    _sync(database.parent)
    return at


def _mark(database: Path) -> Path:
    return database.with_name(f"{database.name}.open")


def _part(database: Path) -> Path:
    return database.with_name(f"{database.name}.part")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
