"""What the store keeps of times that are over: waits of attempts, and pauses that somebody has ended."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from jobs.paused import EndedPause
from jobs.store.queries import SQL
from jobs.waiting_for import AttemptWait, WaitingFor

KEPT_PAUSES: Final = 100
"""Most ended pauses of one path; the last ones stay. A job may pause what is below it as often as it likes."""

Row = tuple[object, ...]


def waits_text(waits: Sequence[AttemptWait]) -> str:
    """Return waits as JSON."""
    return json.dumps([(wait.what.value, wait.since, wait.until) for wait in waits])


def waits_of(text: str | None) -> tuple[AttemptWait, ...]:
    """Return the waits of a row."""
    found = json.loads(text or "[]")
    return tuple(AttemptWait(what=WaitingFor(what), since=since, until=until) for what, since, until in found)


def unpause(connection: sqlite3.Connection, paths: Sequence[str], *, at: float) -> None:
    """Delete the pauses of these paths, and note when they ended."""
    values = {"paths": json.dumps(list(paths)), "at": at, "most": KEPT_PAUSES}
    connection.execute(SQL["note_ended_pauses"], values)
    connection.execute(SQL["unpause"], values)
    connection.execute(SQL["drop_ended_pauses"], values)


def ended_pause_of(row: Row) -> EndedPause:
    """Return an ended pause."""
    path, since, until, by_job = row
    return EndedPause(path=path, since=since, until=until, by_job=by_job)  # type: ignore[arg-type]
