"""Databases that a repair moved aside: only the newest are kept."""

from pathlib import Path

from jobs.store.corruption import MAX_ASIDE, restore_where_damaged


def test_only_the_newest_damaged_databases_are_kept(tmp_path: Path):
    database = tmp_path / "jobs.db"
    (tmp_path / "jobs.db.damaged-20200101T000000").write_text("old")
    (tmp_path / "jobs.db.damaged-20200101T000000-wal").write_text("old")
    (tmp_path / "jobs.db.damaged-20200101T000000_1").write_text("old")
    for number in range(MAX_ASIDE + 2):
        database.write_text(f"no database {number}" * 1000)
        newest = restore_where_damaged(database, has_past=lambda: True).aside
        assert newest is not None
        assert newest.read_text().startswith(f"no database {number}")
    kept = sorted(tmp_path.glob("jobs.db.damaged-*"))
    assert len(kept) == MAX_ASIDE
    assert newest in kept
    assert not [path for path in kept if "20200101" in path.name]
