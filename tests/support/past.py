"""Makes a state directory with a past: many jobs that are over, with their rows and directories."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from jobs.store.migrations import prepare

_RESULT = "y" * 1500


def make_past(home: Path, jobs: int, *, per_tree: int = 100) -> None:
    """Write the rows and the directories of completed jobs.

    Args:
        home: The state directory; it is made.
        jobs: How many.
        per_tree: Jobs of each tree; each tree is one batch.
    """
    home.mkdir(mode=0o700)
    prepare(home / "jobs.db")
    with closing(sqlite3.connect(home / "jobs.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for first in range(0, jobs, per_tree):
            ids = [f"j{number:016d}" for number in range(first, min(first + per_tree, jobs))]
            _write_tree(connection, f"b{first:016d}", ids)
            for id_ in ids:
                attempt = home / "trees" / f"b{first:016d}" / id_ / "1"
                attempt.mkdir(parents=True, mode=0o700)
                (attempt / "job.json").write_text("{}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _write_tree(connection: sqlite3.Connection, root: str, ids: list[str]) -> None:
    spec = json.dumps({"task": "t" * 400, "cwd": "/srv", "allowed_tools": ["Read", "Write"]})
    # Recent: an engine that starts forgets what is old.
    now = time.time()
    connection.execute("INSERT INTO tree (id, created_at, client) VALUES (?, ?, 'past')", (root, now))
    connection.execute("INSERT INTO batch (id, root_id, caller, created_at) VALUES (?, ?, '', ?)", (root, root, now))
    connection.executemany(
        "INSERT INTO job (id, root_id, batch_id, position, depth, path, spec, status, reason, attempt,"
        " session_id, excerpt, created_at, started_at, ended_at)"
        " VALUES (?, ?, ?, ?, 1, ? || '/' || ?, ?, 'completed', 'completed', 1, 's', ?, ?, ?, ?)",
        [(id_, root, root, place, root, id_, spec, _RESULT[:500], now, now, now) for place, id_ in enumerate(ids)],
    )
    connection.executemany(
        "INSERT INTO attempt (job_id, number, session_id, status, reason, result, frame, setting_sources,"
        " started_at, ended_at) VALUES (?, 1, 's', 'completed', 'completed', ?, ?, 'user', ?, ?)",
        [(id_, _RESULT, json.dumps([{"result": None}]), now, now) for id_ in ids],
    )
