"""The file of the store: made for its owner alone, and brought to the schema that this version knows."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from jobs.errors import SchemaTooNewError

STEPS = ("schema.sql", "schema_2.sql", "schema_3.sql")
"""Scripts in order: the n-th brings a file from version n-1 to n, in a transaction of its own, and says so in it."""


def prepare(path: Path, steps: Sequence[str] | None = None) -> None:
    """Make the file where it is missing, switch it to WAL and run the scripts that it has not seen.

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
        connection.execute("PRAGMA journal_mode = WAL")
        _migrate(connection, _scripts() if steps is None else steps)


def _migrate(connection: sqlite3.Connection, steps: Sequence[str]) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise SchemaTooNewError(version, len(steps))
    for script in steps[version:]:
        connection.executescript(script)


def _scripts() -> Sequence[str]:
    return [files("jobs.store").joinpath(name).read_text(encoding="utf-8") for name in STEPS]
