"""Compares the answers that clients got with the database, the ledger of starts and the jobs' transcripts."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.claude.ndjson import LineDecoder
from jobs.util.json_values import text
from server.client.state_dir import StatePaths
from server.selftest.stub import REPORTED, StubTask, starts


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseCheck:
    """The result of a kill test; everything but the first two is a broken promise, one line each.

    Args:
        acknowledged: Jobs whose submission was answered.
        jobs: Jobs in the database.
        lost: Acknowledged and missing, or not over.
        twice: Started more than once, or admitted more than once.
        wrong: Another outcome than the job had.
        events: Attempts whose transcript lacks a line of the stub's, or shows one twice.
    """

    acknowledged: int
    jobs: int
    lost: Sequence[str] = field(default_factory=tuple)
    twice: Sequence[str] = field(default_factory=tuple)
    wrong: Sequence[str] = field(default_factory=tuple)
    events: Sequence[str] = field(default_factory=tuple)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.twice or self.wrong or self.events)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    id: str
    root_id: str
    status: str
    attempt: int
    result: str | None
    spec: str


def check_promises(paths: StatePaths, ledger: Path, acknowledged: Mapping[str, StubTask]) -> PromiseCheck:
    """Check every promise on a state directory whose engine has stopped.

    Args:
        paths: The state directory.
        ledger: Directory of the stub's ledger of starts.
        acknowledged: Job id to task, as clients were answered.
    """
    with closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as database:
        rows = {row.id: row for row in _rows(database)}
    return PromiseCheck(
        acknowledged=len(acknowledged),
        jobs=len(rows),
        lost=[f"{job_id} {_place(rows, job_id)}" for job_id in acknowledged if _place(rows, job_id) in _NOT_OVER],
        twice=[*_started_twice(ledger, acknowledged.values()), *_admitted_twice(rows, acknowledged)],
        wrong=[wrong for job_id, task in acknowledged.items() if (wrong := _wrong(rows.get(job_id), task))],
        events=[
            f"{row.id}/{number}: {' '.join(shown)}"
            for row in rows.values()
            for number in range(1, row.attempt + 1)
            if not _is_whole(shown := _shown(paths, row, number), answered=_answered(row, number))
        ],
    )


_NOT_OVER = frozenset({"nowhere", "queued", "running"})


def _rows(database: sqlite3.Connection) -> Iterable[_Row]:
    question = (
        "SELECT job.id, job.root_id, job.status, job.attempt, attempt.result, job.spec FROM job"
        " LEFT JOIN attempt ON attempt.job_id = job.id AND attempt.number = job.attempt"
    )
    for one in database.execute(question):
        yield _Row(id=one[0], root_id=one[1], status=one[2], attempt=one[3], result=one[4], spec=one[5])


def _place(rows: Mapping[str, _Row], job_id: str) -> str:
    return rows[job_id].status if job_id in rows else "nowhere"


def _started_twice(ledger: Path, tasks: Iterable[StubTask]) -> list[str]:
    return [f"{task.token}: {count} starts" for task in tasks if (count := starts(ledger, task.token)) > 1]


def _admitted_twice(rows: Mapping[str, _Row], acknowledged: Mapping[str, StubTask]) -> list[str]:
    by_task: dict[str, list[str]] = {}
    for row in rows.values():
        _, _, rest = row.spec.partition("selftest:")
        by_task.setdefault(rest.partition(":")[0], []).append(row.id)
    tokens = {task.token for task in acknowledged.values()}
    return [f"{token}: {' '.join(ids)}" for token, ids in by_task.items() if token in tokens and len(ids) > 1]


def _wrong(row: _Row | None, task: StubTask) -> str | None:
    if row is None:
        return None
    if row.status not in task.ends:
        return f"{row.id}: {row.status}, not {' or '.join(sorted(task.ends))}"
    if row.status == "completed" and row.result != task.token:
        return f"{row.id}: answered {row.result!r}, not {task.token!r}"
    return None


def _answered(row: _Row, number: int) -> bool:
    return row.status == "completed" and number == row.attempt


def _shown(paths: StatePaths, row: _Row, number: int) -> tuple[str, ...]:
    """Return the kinds of what the transcript of an attempt shows, from its file."""
    path, decoder = paths.trees / row.root_id / row.id / str(number) / "out", LineDecoder()
    lines = [*decoder.feed(path.read_bytes() if path.exists() else b""), *decoder.close()]
    kinds = (_kind(line.frame or {}) for line in lines)
    return tuple(kind for kind in kinds if not kind.startswith(("control_", "stream_event")))


def _kind(frame: Mapping[str, Any]) -> str:
    return ".".join(part for name in ("type", "subtype") if (part := text(frame.get(name))))


def _is_whole(shown: tuple[str, ...], *, answered: bool) -> bool:
    return shown == (REPORTED if answered else REPORTED[: len(shown)])
