"""Migrations of the database: makes the file, private to its owner, and brings it to the present schema."""

import logging
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from jobs.errors import SchemaTooNewError
from jobs.store.corruption import is_damage, note_damage

logger = logging.getLogger(__name__)

STEPS = ("schema.sql", "schema_2.sql", "schema_3.sql", "schema_4.sql", "schema_5.sql", "schema_6.sql", "schema_7.sql")
"""Scripts in order: the n-th brings a file from version n-1 to n in one transaction, which also sets the version."""


_INCREMENTAL = 2
"""What SQLite answers where a file can be made smaller step by step."""


def prepare(path: Path, steps: Sequence[str] | None = None) -> None:
    """Make the file where it is missing, switch it to WAL and run the scripts that it has not seen.

    A file of a version that could not give space back is rewritten once, so that it can; where that fails, the file is
    used as it is, and the next call tries again.

    Blocks; meant for a worker thread.

    Args:
        path: The database; its directory exists.
        steps: Texts of the scripts, where they are not those of this package.

    Raises:
        SchemaTooNewError: A newer version of this package wrote the file.
        sqlite3.Error: The file cannot be read or written, or is no database.
        OSError: The file cannot be made.
    """
    # Before SQLite sees it: the log and the shared-memory file take their mode from the database's.
    path.touch(mode=0o600)
    path.chmod(0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # In a new file it holds from here on, in an old one from the rewrite on.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        _migrate(connection, _scripts() if steps is None else steps)
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
            _rewrite(connection, path)


def _migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise SchemaTooNewError(version, len(steps))
    for script in steps[version:]:
        connection.executescript(script)


def _rewrite(connection: sqlite3.Connection, path: Path) -> None:
    used = (
        connection.execute("PRAGMA page_count").fetchone()[0]
        - connection.execute("PRAGMA freelist_count").fetchone()[0]
    )
    size = used * connection.execute("PRAGMA page_size").fetchone()[0]
    # Once in the log and once in the file.
    if shutil.disk_usage(path.parent).free < 3 * size:
        logger.warning("%s keeps its size: there is no space to rewrite it", path)
        return
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError as error:
        # On any error the engine starts all the same: no start before read all of the file either.
        logger.warning("%s keeps its size: %s", path, error)
        if is_damage(error):
            note_damage(path, str(error))


def _scripts() -> Sequence[str]:
    return [files("jobs.store").joinpath(name).read_text(encoding="utf-8") for name in STEPS]
