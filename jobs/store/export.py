"""A copy of the rows that may leave the state directory."""

import sqlite3
from contextlib import closing
from pathlib import Path

from jobs.store.queries import SQL
from jobs.store.repair import copy_database


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
