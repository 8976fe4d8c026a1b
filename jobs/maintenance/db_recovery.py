"""Opens the store and recovers a lost or damaged database: a snapshot, completed from the jobs' directories."""

import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import anyio.to_thread

from jobs.claude.ndjson import LineDecoder
from jobs.claude.outcome import OutcomeReader
from jobs.errors import StoreError
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.runner.manifest import JOB, LaunchManifest, read_end_manifest, read_launch_manifest
from jobs.store.corruption import Condition, crash_marker, renew_mark, restore_where_damaged
from jobs.store.restoration import RecoveredJob, RowState

_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class JobDirectory:
    """The directory of a job that was launched at least once.

    Args:
        directory: The job's directory.
        attempt: Its last attempt.
    """

    directory: Path
    attempt: int

    def is_ahead_of(self, standing: RowState | None) -> bool:
        """Tell whether the directory says more of the job than its row; None for a job without a row."""
        if standing is None or standing.attempt < self.attempt:
            return True
        return standing.running and _end(self.directory / str(self.attempt)) is not None

    def place(self) -> tuple[int, int]:
        """Return depth and order of admission, by which parents come before their children."""
        launched = _launched(self.directory / str(self.attempt))
        return (launched.job.depth, launched.job.seq) if launched else (0, 0)


def launched_jobs_under(
    trees: Path, *, since: float | None = None, live: Collection[str] = ()
) -> Iterator[JobDirectory]:
    """Yield the directory of every job that was ever launched.

    Args:
        trees: Directory of the job directories, one directory a tree.
        since: Leave out trees to which nothing was added after this time, in seconds since the epoch. None takes all.
        live: Trees that are not left out: what was added to one of their jobs does not show on the tree's directory.
    """
    for tree in subdirectories(trees):
        if since is not None and tree.name not in live and _changed_at(tree) < since:
            continue
        for directory in subdirectories(tree):
            numbers = [int(attempt.name) for attempt in subdirectories(directory) if attempt.name.isdecimal()]
            launched = [number for number in numbers if (directory / str(number) / JOB).exists()]
            if launched:
                yield JobDirectory(directory, max(launched))


def missing_jobs(launched: Iterable[JobDirectory], known: Mapping[str, RowState]) -> Sequence[Path]:
    """Return the directories of the jobs that are further than their rows, parents before their children."""
    ahead = [job for job in launched if job.is_ahead_of(known.get(job.directory.name))]
    return [job.directory for job in sorted(ahead, key=JobDirectory.place)]


def subdirectories(path: Path) -> Sequence[Path]:
    """Return the directories in a directory, links left out; none where it cannot be read."""
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return ()


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _launched(path: Path) -> LaunchManifest | None:
    try:
        return read_launch_manifest(AttemptDirectory(path))
    except UnsafeDirectoryError:
        return None


def _end(path: Path) -> Job | None:
    try:
        return read_end_manifest(AttemptDirectory(path))
    except UnsafeDirectoryError:
        return None


def read_job(directory: Path) -> RecoveredJob | None:
    """Return a job as its directory describes it, or None where that is not enough. Reads its whole output."""
    numbers = sorted(int(path.name) for path in subdirectories(directory) if path.name.isdecimal())
    readable = [
        (launched, directory / str(number)) for number in numbers if (launched := _launched(directory / str(number)))
    ]
    if not readable:
        return None
    last, path = readable[-1]
    ended = [_ended_attempt(launched, where) for launched, where in readable]
    end = read_end_manifest(AttemptDirectory(path))
    return RecoveredJob(
        # The launch manifest has the whole task, the end manifest only its beginning.
        job=last.job if end is None else replace(end, spec=last.job.spec),
        attempts=list(_closed(ended)),
        tree=last.tree,
    )


def _closed(read: Sequence[Attempt]) -> Iterator[Attempt]:
    """Close every attempt but the last: another one followed it, even if its own end was not noted."""
    for attempt, following in pairwise(read):
        if attempt.status is None:
            attempt = replace(  # noqa: PLW2901 - the same attempt, closed
                attempt, token_hash=None, status=JobStatus.QUEUED, reason=Reason.LOST, ended_at=following.started_at
            )
        yield attempt
    yield read[-1]


def _ended_attempt(launched: LaunchManifest, path: Path) -> Attempt:
    directory, attempt = AttemptDirectory(path), launched.attempt
    end = read_end_manifest(directory)
    if end is None:
        # The runner will read its output from the beginning.
        return attempt
    outcome = _read_output(directory, launched)
    at = end.ended_at if end.ended_at is not None else attempt.started_at
    return replace(
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


def _read_output(directory: AttemptDirectory, launched: LaunchManifest) -> Outcome:
    reader, decoder = OutcomeReader(), LineDecoder(0)
    while True:
        piece = directory.read_output(decoder.read, _PIECE)
        for line in decoder.feed(piece) if piece else decoder.close():
            reader.take(line)
        if not piece:
            break
    schema = launched.job.spec.json_schema is not None
    return reader.conclude(exit_code=directory.exit_code(), asked_schema=schema)


logger = logging.getLogger(__name__)


class Restorable(Protocol):
    """A store whose rows can be restored."""

    async def last_attempts(self, job_ids: Sequence[str]) -> Mapping[str, RowState]:
        """Return how far the row of each of these jobs is that has one, by its id."""
        ...

    async def unfinished(self) -> Sequence[Job]:
        """Return every job that is not over."""
        ...

    async def restore(self, found: RecoveredJob) -> bool:
        """Write what the rows lack of a job; return whether they lacked something."""
        ...


S = TypeVar("S", bound=Restorable)

CLOCK_STEP = 2.0
"""Seconds by which two times of files may be too far apart: the coarsest step of a file system's clock (FAT)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """Report of a recovery: what was wrong with the database, and what was restored.

    Args:
        at: Seconds since the epoch.
        damage: What was wrong with the file.
        aside: Where the damaged file is now, or None.
        snapshot_at: Seconds since the epoch of the snapshot that took its place, or None where there was none.
        restored: Number of jobs that were restored or brought up to date from their directories.
        unreadable: Number of jobs whose directory does not say enough.
    """

    at: float
    damage: str
    aside: str | None
    snapshot_at: float | None
    restored: int
    unreadable: int

    def __str__(self) -> str:
        """Return the report as text for a person."""
        taken = (
            "none" if self.snapshot_at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.snapshot_at))
        )
        return (
            f"The job database was damaged ({self.damage}). Snapshot used: {taken}; jobs brought back from their "
            f"directories: {self.restored}; jobs that could not be: {self.unreadable}. Jobs that were still queued "
            f"after that snapshot are lost: submit them again. The damaged file: {self.aside or 'none'}."
        )


def report_path(database: Path) -> Path:
    """Return the file that holds the report of the last recovery; a person may delete it."""
    return database.with_name("rescue.json")


def last_recovery(database: Path) -> RecoveryReport | None:
    """Return the report of the last recovery of this database, or None."""
    try:
        return RecoveryReport(**json.loads(report_path(database).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def damage_words(damage: str) -> str:
    """Return the text for a person whose database was found damaged while in use, with what to do."""
    return (
        f"The job database is damaged ({damage}). What can still be read stays usable. Run `claude-jobs engine stop`: "
        "jobs that run go on, and the next start replaces the file by the last snapshot and what their directories say."
    )


@asynccontextmanager
async def open_with_recovery(
    database: Path, trees: Path, opening: Callable[[Path], AbstractAsyncContextManager[S]]
) -> AsyncIterator[S]:
    """Open the store of a state directory, repaired where it must be, until the context ends.

    Args:
        database: The database.
        trees: Directory of the job directories, one directory a tree.
        opening: Opens the store of a database that can be opened.

    Raises:
        StoreError: The files cannot be read or written now.
        SchemaTooNewError: A newer version of this package wrote the database.
    """
    try:
        condition = await anyio.to_thread.run_sync(_repaired, database, trees)
    except (sqlite3.Error, OSError) as error:
        raise StoreError("look at its file", str(error)) from error
    with crash_marker(database):
        async with opening(database) as store:
            if not condition.clean:
                await _bring_back(store, database, trees, condition)
                await anyio.to_thread.run_sync(renew_mark, database)
            yield store


def _repaired(database: Path, trees: Path) -> Condition:
    return restore_where_damaged(database, has_past=lambda: next(launched_jobs_under(trees), None) is not None)


async def _bring_back(store: Restorable, database: Path, trees: Path, condition: Condition) -> None:
    # After a crash alone, only what was added while that engine ran can be missing.
    since = None if condition.open_since is None else condition.open_since - CLOCK_STEP
    live = frozenset(job.root_id for job in await store.unfinished())
    launched = await anyio.to_thread.run_sync(lambda: list(launched_jobs_under(trees, since=since, live=live)))
    known = await store.last_attempts([job.directory.name for job in launched])
    restored = unreadable = 0
    for directory in await anyio.to_thread.run_sync(missing_jobs, launched, known):
        if await _restored(store, directory):
            restored += 1
        elif directory.name not in known:
            unreadable += 1
    if condition.damage is None and not restored:
        return
    report = RecoveryReport(
        at=time.time(),
        damage=condition.damage or "the end of its log was missing",
        aside=None if condition.aside is None else str(condition.aside),
        snapshot_at=condition.snapshot_at,
        restored=restored,
        unreadable=unreadable,
    )
    logger.warning("%s", report)
    await anyio.to_thread.run_sync(_write_report, database, report)


async def _restored(store: Restorable, directory: Path) -> bool:
    try:
        found = await anyio.to_thread.run_sync(read_job, directory)
        return found is not None and await store.restore(found)
    except StoreError as error:
        if error.transient:
            raise
        # Its parent or its tree could not be restored.
        logger.warning("job %s cannot be brought back: %s", directory.name, error.cause)
    except Exception:
        # Jobs may leave anything there: one directory must not keep the engine from starting.
        logger.exception("job %s cannot be brought back", directory.name)
    return False


def _write_report(database: Path, report: RecoveryReport) -> None:
    part = report_path(database).with_suffix(".part")
    part.write_text(json.dumps(asdict(report), indent=2), encoding="utf-8")
    part.rename(report_path(database))
