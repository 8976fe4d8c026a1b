"""Opens the store whatever became of its file: what a snapshot lacks is brought back from the jobs' directories."""

import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import anyio.to_thread

from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError
from jobs.claude.events import event_of
from jobs.claude.framer import Framer
from jobs.claude.outcome import OutcomeReader
from jobs.errors import StoreError
from jobs.model import Attempt, JobEvent, JobStatus, Outcome, Reason
from jobs.record import END, JOB, Launched, end_in, launched_in
from jobs.store.repair import Condition, marked_open, restore_where_damaged
from jobs.store.restoration import Found, Standing
from jobs.store.sqlite import SqliteStore

logger = logging.getLogger(__name__)

_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """What was wrong with the database, and what could be brought back.

    Args:
        at: Seconds since the epoch.
        damage: What was wrong.
        aside: Where the damaged file is now, or None.
        snapshot_at: Seconds since the epoch of the snapshot that took its place, or None where there was none.
        restored: Jobs that were brought back, or on to where they had been, from their directories.
        unreadable: Jobs of which there is a directory that does not say enough.
    """

    at: float
    damage: str
    aside: str | None
    snapshot_at: float | None
    restored: int
    unreadable: int

    def __str__(self) -> str:
        """Say it to a person."""
        taken = (
            "none" if self.snapshot_at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.snapshot_at))
        )
        return (
            f"The job database was damaged ({self.damage}). Snapshot used: {taken}; jobs brought back from their "
            f"directories: {self.restored}; jobs that could not be: {self.unreadable}. Jobs that were still queued "
            f"after that snapshot are lost: submit them again. The damaged file: {self.aside or 'none'}."
        )


def report_path(database: Path) -> Path:
    """Return the file that holds the last rescue; a person may delete it."""
    return database.with_name("rescue.json")


def last_rescue(database: Path) -> Rescue | None:
    """Return the last rescue of this database, or None."""
    try:
        return Rescue(**json.loads(report_path(database).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


@asynccontextmanager
async def open_rescued(database: Path, trees: Path) -> AsyncIterator[SqliteStore]:
    """Open the store of a state directory, repaired where it must be, until the context ends.

    Args:
        database: The database.
        trees: Directory of the job directories, one directory a tree.

    Raises:
        StoreError: The files cannot be read or written now.
        SchemaTooNewError: A newer version of this package wrote the database.
    """
    try:
        condition = await anyio.to_thread.run_sync(_repaired, database, trees)
    except (sqlite3.Error, OSError) as error:
        raise StoreError("look at its file", str(error)) from error
    with marked_open(database):
        async with SqliteStore.open(database) as store:
            if not condition.clean:
                await _bring_back(store, database, trees, condition)
            yield store


def _repaired(database: Path, trees: Path) -> Condition:
    return restore_where_damaged(database, has_past=next(_traces_under(trees), None) is not None)


async def _bring_back(store: SqliteStore, database: Path, trees: Path, condition: Condition) -> None:
    known = await store.standing()
    restored = unreadable = 0
    for directory in await anyio.to_thread.run_sync(_lacking, trees, known):
        if await _restored(store, directory):
            restored += 1
        elif directory.name not in known:
            unreadable += 1
    if condition.damage is None and not restored:
        return
    rescue = Rescue(
        at=time.time(),
        damage=condition.damage or "its log had lost its end",
        aside=None if condition.aside is None else str(condition.aside),
        snapshot_at=condition.snapshot_at,
        restored=restored,
        unreadable=unreadable,
    )
    logger.warning("%s", rescue)
    await anyio.to_thread.run_sync(_write_report, database, rescue)


async def _restored(store: SqliteStore, directory: Path) -> bool:
    found = await anyio.to_thread.run_sync(_found_in, directory)
    try:
        return found is not None and await store.restore(found)
    except StoreError as error:
        if error.passing:
            raise
        # What it hangs below could not be brought back.
        logger.warning("job %s cannot be brought back: %s", directory.name, error.cause)
        return False


def _write_report(database: Path, rescue: Rescue) -> None:
    part = report_path(database).with_suffix(".part")
    part.write_text(json.dumps(asdict(rescue), indent=2), encoding="utf-8")
    part.rename(report_path(database))


def _lacking(trees: Path, known: Mapping[str, Standing]) -> Sequence[Path]:
    """Return the directories of the jobs that are further than their rows, parents before their children."""
    ahead = [trace for trace in _traces_under(trees) if trace.is_ahead_of(known.get(trace.directory.name))]
    return [trace.directory for trace in sorted(ahead, key=_Trace.place)]


@dataclass(frozen=True, slots=True)
class _Trace:
    """The directory of a job that was launched at least once.

    Args:
        directory: The job's directory.
        attempt: Its last attempt.
    """

    directory: Path
    attempt: int

    def is_ahead_of(self, standing: Standing | None) -> bool:
        if standing is None or standing.attempt < self.attempt:
            return True
        return standing.running and (self.directory / str(self.attempt) / END).exists()

    def place(self) -> tuple[int, int]:
        launched = _launched(self.directory / str(self.attempt))
        return (launched.job.depth, launched.job.seq) if launched else (0, 0)


def _traces_under(trees: Path) -> Iterator[_Trace]:
    for tree in _directories(trees):
        for directory in _directories(tree):
            numbers = [int(attempt.name) for attempt in _directories(directory) if attempt.name.isdecimal()]
            launched = [number for number in numbers if (directory / str(number) / JOB).exists()]
            if launched:
                yield _Trace(directory, max(launched))


def _directories(path: Path) -> Sequence[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return ()


def _launched(path: Path) -> Launched | None:
    try:
        return launched_in(AttemptDirectory(path))
    except UnsafeDirectoryError:
        return None


def _found_in(directory: Path) -> Found | None:
    numbers = sorted(int(path.name) for path in _directories(directory) if path.name.isdecimal())
    readable = [
        (launched, directory / str(number)) for number in numbers if (launched := _launched(directory / str(number)))
    ]
    if not readable:
        return None
    last, path = readable[-1]
    ended = [_ended_attempt(launched, where) for launched, where in readable]
    return Found(
        job=end_in(AttemptDirectory(path)) or last.job,
        attempts=[attempt for attempt, _ in _closed(ended)],
        events=[event for _, events in ended for event in events],
        tree=last.tree,
    )


def _closed(read: Sequence[tuple[Attempt, Sequence[JobEvent]]]) -> Iterator[tuple[Attempt, Sequence[JobEvent]]]:
    """Close every attempt but the last: another followed it, whether or not its own end was noted."""
    for (attempt, events), (following, _) in pairwise(read):
        if attempt.status is None:
            attempt = replace(  # noqa: PLW2901 - the same attempt, closed
                attempt, token_hash=None, status=JobStatus.QUEUED, reason=Reason.LOST, ended_at=following.started_at
            )
        yield attempt, events
    yield read[-1]


def _ended_attempt(launched: Launched, path: Path) -> tuple[Attempt, Sequence[JobEvent]]:
    directory, attempt = AttemptDirectory(path), launched.attempt
    end = end_in(directory)
    if end is None:
        # The runner will read its output from the beginning.
        return attempt, ()
    outcome, events = _read_output(directory, launched)
    at = end.ended_at if end.ended_at is not None else attempt.started_at
    closed = replace(
        attempt,
        token_hash=None,
        status=end.status,
        reason=end.reason or outcome.reason,
        exit_code=outcome.exit_code,
        result=outcome.result,
        frame=outcome.frame,
        usage=outcome.usage,
        ended_at=at,
    )
    return closed, events


def _read_output(directory: AttemptDirectory, launched: Launched) -> tuple[Outcome, Sequence[JobEvent]]:
    reader, framer = OutcomeReader(), Framer(0)
    events: list[JobEvent] = []
    job_id, number, at = launched.job.id, launched.attempt.number, launched.attempt.started_at
    while True:
        piece = directory.read_output(framer.read, _PIECE)
        for line in framer.feed(piece) if piece else framer.close():
            if line.frame is not None:
                reader.feed(line.frame)
            if event := event_of(line, job_id=job_id, attempt=number, at=at):
                events.append(event)
        if not piece:
            break
    schema = launched.job.spec.json_schema is not None
    return reader.conclude(exit_code=directory.exit_code(), asked_schema=schema), events
