"""What a start takes for damage in a database that it does not read as a whole."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobs.store import corruption
from jobs.store.corruption import restore_where_damaged
from jobs.store.migrations import prepare


def test_a_database_whose_log_somebody_still_reads_is_not_taken_for_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(corruption, "CHECKED_AT_ONCE", 0)
    database = tmp_path / "jobs.db"
    prepare(database)
    with (
        closing(sqlite3.connect(database, isolation_level=None)) as engine,
        closing(sqlite3.connect(database, isolation_level=None)) as backup,
    ):
        engine.execute("PRAGMA journal_mode = WAL")
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM tree").fetchall()
        # The log cannot go into the file while somebody reads what was before it, so the file stays short.
        engine.execute("INSERT INTO tree (id, created_at, client) VALUES ('b1', 1.0, ?)", ("x" * 1_000_000,))
        condition = restore_where_damaged(database, has_past=lambda: True)
    assert condition.damage is None
    assert condition.aside is None
