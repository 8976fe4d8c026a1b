"""Detects a damaged or missing database, moves it aside, and puts the last snapshot in its place.

A start must not read all of a large database: 713 MB took 11 to 29 s, and clients give up after 30 (measured). So it
checks a small file as a whole, and of a large one the header, the length, the schema, both ends of the tables and
indexes, and what is not over. Damage elsewhere is found later: by a check in the background after a crash, by a
snapshot, which reads everything, or by a query. Each of them leaves a note, and the next start then checks everything.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.store.queries import SQL

_LOGS = ("-wal", "-shm")

_STEPS = 100_000
"""Steps of SQLite's machine between two questions whether a check is still wanted: some milliseconds."""

CHECKED_AT_ONCE = 32 * 1024 * 1024
"""Bytes up to which a database is checked as a whole at the start: 0.3 s on an idle core (measured)."""

MAX_ASIDE = 3
"""How many damaged databases are kept, the newest; each is as large as the database was."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
"""SQLite's errors for a file that another try will not read either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Condition in which the database was found, once it can be opened again.

    Args:
        clean: It was closed in order, or never existed: nothing can be missing from it.
        open_since: Seconds since the epoch from which on a crash may have lost something, or None where it is clean, or
            where all of it may be lost.
        damage: What was wrong with it, or None.
        aside: Where the damaged file is now, or None where there was no file.
        snapshot_at: Seconds since the epoch at which the snapshot in its place was taken, or None where it is empty.
    """

    clean: bool
    open_since: float | None = None
    damage: str | None = None
    aside: Path | None = None
    snapshot_at: float | None = None


def snapshot_of(database: Path) -> Path:
    """Return where the snapshot of a database is kept."""
    return database.with_name(f"{database.name}.snapshot")


def is_damage(error: Exception) -> bool:
    """Tell whether SQLite says with this error that the file is damaged, not that it cannot be used now."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ


def note_damage(database: Path, what: str) -> None:
    """Note that something was found damaged while the database was in use; the next start then checks all of it."""
    with suppress(OSError):
        path = _damage_note(database)
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(what.replace("\n", " "), encoding="utf-8")


def noted_damage(database: Path) -> str | None:
    """Return what was found damaged since the last start, or None."""
    try:
        return _damage_note(database).read_text(encoding="utf-8")
    except OSError:
        return None


def is_unchecked(database: Path) -> bool:
    """Tell whether the database was closed by a crash and has not been checked as a whole since."""
    return _unchecked_note(database).exists()


def note_checked(database: Path) -> None:
    """Note that the database has been checked as a whole."""
    _unchecked_note(database).unlink(missing_ok=True)


def check_tables(database: Path, stopped: Callable[[], bool]) -> str | None:
    """Return what is wrong with an open database, or None; reads all of it, a table at a time.

    Blocks for about a minute a gigabyte on a busy machine; meant for a worker thread.

    Args:
        database: The file.
        stopped: Asked now and then; the check is given up where it is true.

    Raises:
        sqlite3.Error: It cannot be read now, or the check was given up.
    """
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.set_progress_handler(stopped, _STEPS)
        try:
            connection.executescript(SQL["open_reader"])
            for (name,) in connection.execute(SQL["table_names"]).fetchall():
                # Each in a transaction of its own: the log cannot be emptied while one lasts.
                if damage := _said(connection.execute(SQL["check_table"], (name,)).fetchall()):
                    return damage
        except sqlite3.DatabaseError as error:
            return _words_of(error)
    return None


def restore_where_damaged(database: Path, *, has_past: Callable[[], bool]) -> Condition:
    """Check a database that is not open, and put the last snapshot in its place where it cannot be used.

    Blocks; meant for a worker thread.

    Args:
        database: The file; it may be missing.
        has_past: Tells whether there are jobs' directories, so that a missing file is a loss.

    Raises:
        sqlite3.Error: The file cannot be looked at now.
        OSError: The file cannot be moved, or the snapshot not be copied.
    """
    since = _opened_at(database)
    whole = database.exists() and database.stat().st_size <= CHECKED_AT_ONCE
    if not database.exists() or not database.stat().st_size:
        damage = "it was missing" if has_past() or snapshot_of(database).exists() else None
    elif noted_damage(database) is not None:
        damage = _damage(database, SQL["integrity_check"])
        whole = True
    else:
        damage = _damage(database, SQL["quick_check"]) if whole else _bounded_damage(database)
    if damage is None:
        _damage_note(database).unlink(missing_ok=True)
        if whole:
            note_checked(database)
        elif since is not None:
            _unchecked_note(database).touch(mode=0o600)
        return Condition(clean=since is None, open_since=since)
    aside = _move_aside(database)
    condition = Condition(clean=False, damage=damage, aside=aside, snapshot_at=_restore(database))
    _damage_note(database).unlink(missing_ok=True)
    note_checked(database)
    return condition


@contextmanager
def crash_marker(database: Path) -> Iterator[None]:
    """Mark the database as open until the context ends in order; a marker that is found tells of a crash."""
    # The marker of an earlier crash keeps its time until what that crash lost has been restored. It is touched where
    # the disk is full too, since it takes no block.
    if not _mark(database).exists():
        _mark(database).touch(mode=0o600)
    mark = _mark(database).stat()
    yield
    with suppress(OSError):
        # The directory may have been replaced meanwhile: the marker there is its own engine's.
        if os.path.samestat(mark, _mark(database).stat()):
            _mark(database).unlink()


def renew_mark(database: Path) -> None:
    """Note that nothing is missing any more of what a crash before this moment may have lost."""
    _mark(database).touch()


def take_snapshot(database: Path) -> None:
    """Copy the database, open as it may be, to its snapshot, which is replaced when the copy is whole and on disk.

    Blocks for about as long as the disk takes to read and write the file; writers go on meanwhile.

    Raises:
        sqlite3.Error: The database cannot be read, or the copy not be written.
        OSError: The copy cannot be named.
    """
    part = _part(database)
    part.unlink(missing_ok=True)
    copy_database(database, part)
    _sync(part)
    part.rename(snapshot_of(database))
    _sync(database.parent)


def copy_database(database: Path, target: Path) -> None:
    """Copy the database, open as it may be, as it is at one moment, to a new file of mode 0600.

    Raises:
        sqlite3.Error: The database cannot be read, or the copy not be written.
        OSError: The copy cannot be made.
    """
    target.touch(mode=0o600)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.executescript(SQL["open_copier"])
        # A copy through one read transaction: the backup interface would start over at each commit of a writer.
        connection.execute(SQL["snapshot"], (str(target),))


def _damage(database: Path, check: str) -> str | None:
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            return _said(connection.execute(check).fetchall())
    except sqlite3.DatabaseError as error:
        return _words_of(error)


def _bounded_damage(database: Path) -> str | None:
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            _, logged, moved = connection.execute(SQL["checkpoint"]).fetchone()
            _, pages, size = connection.execute(SQL["extent"]).fetchone()
            connection.execute(SQL["ends"]).fetchall()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
            # Another version's schema: the code that opens it says so.
            return None
        return _words_of(error)
    # Only once the log is in the file does the file have its length. A backup that reads it keeps the log's end out.
    whole = logged == moved
    return "its end was missing" if whole and database.stat().st_size < pages * size else None


def _said(rows: Sequence[tuple[str, ...]]) -> str | None:
    return None if rows == [("ok",)] else rows[0][0].replace("\n", " ")


def _words_of(error: sqlite3.DatabaseError) -> str:
    if not is_damage(error):
        raise error
    return str(error)


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
    _prune_aside(database, aside)
    return aside if aside.exists() else None


def _prune_aside(database: Path, newest: Path) -> None:
    """Remove all but the newest databases that were moved aside, with their logs."""
    new = {f"{newest.name}{suffix}" for suffix in (*_LOGS, "")}
    older: dict[tuple[str, int], list[Path]] = {}
    for path in database.parent.glob(f"{database.name}.damaged-*"):
        if path.name not in new:
            stamp, _, number = path.name.removeprefix(f"{database.name}.damaged-").partition("-")[0].partition("_")
            older.setdefault((stamp, int(number) if number.isdecimal() else 0), []).append(path)
    for place in sorted(older)[: 1 - MAX_ASIDE]:
        for path in older[place]:
            # A repair does not fail for any entry there.
            with suppress(OSError):
                path.unlink()


def _restore(database: Path) -> float | None:
    snapshot = snapshot_of(database)
    part = _part(database)
    try:
        shutil.copyfile(snapshot, part)
        at = snapshot.stat().st_mtime
    except FileNotFoundError:
        return None
    if _damage(part, SQL["quick_check"]) is not None:
        part.unlink()
        return None
    part.chmod(0o600)
    _sync(part)
    part.rename(database)
    _sync(database.parent)
    return at


def _mark(database: Path) -> Path:
    return database.with_name(f"{database.name}.open")


def _opened_at(database: Path) -> float | None:
    try:
        return _mark(database).stat().st_mtime
    except FileNotFoundError:
        return None


def _unchecked_note(database: Path) -> Path:
    return database.with_name(f"{database.name}.unchecked")


def _damage_note(database: Path) -> Path:
    return database.with_name(f"{database.name}.damage")


def _part(database: Path) -> Path:
    return database.with_name(f"{database.name}.part")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_without_tokens(database: Path, target: Path) -> list[str]:
    """Copy the database without the hashes of its tokens to a new file of mode 0600, and return the ids of its trees.

    Raises:
        sqlite3.Error: The database cannot be read, or the copy not be written.
        OSError: The copy cannot be made.
    """
    copy_database(database, target)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute(SQL["forget_tokens"])
        return [root for (root,) in connection.execute(SQL["tree_ids"])]
