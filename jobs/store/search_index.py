"""Full-text index of tasks and answers, in a file next to the database; it catches up when somebody searches.

No write of a job touches it. It may be removed at any time: the next search makes it again, also in the place of one
that is damaged or that another version has written.
"""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import ConfigDict

from jobs.errors import StoreError
from jobs.model import JobStatus
from jobs.store.queries import parse
from jobs.util.text import strip_terminal_codes

T = TypeVar("T")

QUERIES = parse(files("jobs.store").joinpath("search.sql").read_text(encoding="utf-8"))
SCHEMA = files("jobs.store").joinpath("search_schema.sql").read_text(encoding="utf-8")

PIECE = 200
"""Jobs that are taken into the index in one transaction; 200 with answers of 4 KB took 40 ms (measured)."""

LATE_SECONDS = 3600.0
"""Seconds by which the end of a job may be written later than its time, on a full disk for example."""

VERSION = 1
"""Version of the index's schema, as its file says it. An index of another version is made again."""

_OF_THE_STORAGE = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
)
"""What SQLite answers where the index may be sound. After every other error it is made again."""

START, END = "\x02", "\x03"
"""Around each match in an excerpt of the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are searched.

    Args:
        status: Only jobs of this status, or None.
        since: Only jobs submitted at this time or later, in seconds since the epoch.
        before: Only jobs submitted before this time.
        directory: Only jobs that work in this directory or below it, or None.
    """

    # A wrong name would be passed over, and no number that is asked for is infinite.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    status: JobStatus | None = None
    since: float = 0.0
    before: float = float(2**53)
    directory: str | None = None

    @property
    def values(self) -> dict[str, object]:
        """The values of a statement."""
        status = self.status and self.status.value
        return {"status": status, "since": self.since, "before": self.before, "directory": self.directory}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedJob:
    """A job of which something was found, or whose transcripts are searched.

    Args:
        id: The job.
        root_id: Its tree.
        status: Its status.
        created_at: Seconds since the epoch.
        attempt: Number of its last attempt; 0 where that is not asked for.
    """

    id: str
    root_id: str
    status: JobStatus
    created_at: float
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexHit:
    """A job whose task or answer has the words.

    Args:
        job: The job.
        where: "task" or "answer".
        excerpt: A part of it, with `START` and `END` around each match.
    """

    job: SearchedJob
    where: str
    excerpt: str


class SearchIndex:
    """The index of one database. Its methods block; call them in a thread, one at a time.

    Args:
        path: The index's file; its directory is private.
        database: The database.
    """

    def __init__(self, path: Path, database: Path) -> None:
        self._path = path
        self._database = database

    def catch_up(self, seconds: float) -> int:
        """Take in what has changed, in short transactions, and return how many jobs are left.

        Args:
            seconds: After which it stops.

        Raises:
            StoreError: The database or the index cannot be used.
        """
        return self._repaired(lambda connection: _catch_up(connection, time.monotonic() + seconds))

    def find(self, words: Sequence[str], jobs: JobFilter, *, limit: int) -> Sequence[IndexHit]:
        """Return the newest jobs whose task and answer together have all of the words.

        Raises:
            StoreError: The database or the index cannot be used.
        """
        query = " ".join('"{}"'.format(word.replace('"', '""')) for word in words)

        def read(connection: sqlite3.Connection) -> list[IndexHit]:
            if not connection.execute(QUERIES["knows_a_job"]).fetchone()[0]:
                # It was damaged and is made again only now: without its jobs it would find nothing.
                _catch_up(connection, math.inf)
            return list(_find(connection, query, jobs, limit))

        return self._repaired(read)

    def with_transcripts(self, jobs: JobFilter) -> Sequence[SearchedJob]:
        """Return the jobs that have been started, the newest first.

        Raises:
            StoreError: The database or the index cannot be used.
        """

        def read(connection: sqlite3.Connection) -> list[SearchedJob]:
            rows = connection.execute(QUERIES["with_transcripts"], jobs.values)
            return [_job_of(*row) for row in rows]

        return self._repaired(read)

    def forget_deleted(self) -> None:
        """Remove the texts of jobs that have been deleted; do nothing where nobody has ever searched.

        Raises:
            StoreError: The database or the index cannot be used.
        """
        if self._path.exists():
            self._repaired(_forget_deleted)

    def _repaired(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the index; one that cannot be used is made again, once."""
        try:
            try:
                with self._open() as connection:
                    return work(connection)
            except IsADirectoryError:
                # It may hold anything: only a person removes it.
                raise
            except (sqlite3.DatabaseError, OSError) as error:
                if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _OF_THE_STORAGE:
                    raise
                for file in files_of_index(self._path):
                    file.unlink(missing_ok=True)
                with self._open() as connection:
                    return work(connection)
        except (sqlite3.Error, OSError) as error:
            raise StoreError("search", str(error)) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        for file in files_of_index(self._path):
            if is_directory(file):
                raise IsADirectoryError(f"{file} is a directory, where the index of the search has a file")
        if not self._path.exists():
            self._path.touch(mode=0o600)
        if not self._path.is_file():
            raise sqlite3.DatabaseError(f"{self._path} is no regular file")
        # Private and writable, whatever it was.
        self._path.chmod(0o600)
        with closing(sqlite3.connect(self._path.as_uri(), uri=True, isolation_level=None)) as connection:
            version, is_empty = connection.execute(QUERIES["version"]).fetchone()
            if is_empty:
                connection.executescript(SCHEMA)
            elif version != VERSION:
                raise sqlite3.DatabaseError(f"{self._path} has the schema {version}, this version knows {VERSION}")
            connection.execute(QUERIES["attach"], (f"{self._database.as_uri()}?mode=ro",))
            yield connection


def files_of_index(path: Path) -> Sequence[Path]:
    """Return the file of an index, and those that SQLite may put beside it."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")]


def is_directory(file: Path) -> bool:
    """Tell whether a directory is there; a link to one is none, since it can be removed as a file."""
    return file.is_dir() and not file.is_symlink()


def _catch_up(connection: sqlite3.Connection, until: float) -> int:
    _forget_deleted(connection)
    ended_at = connection.execute(QUERIES["newest_end"]).fetchone()[0]
    missing = [row[0] for row in connection.execute(QUERIES["missing"])]
    for first in range(0, len(missing), PIECE):
        if first and time.monotonic() >= until:
            return len(missing) - first
        _take(connection, missing[first : first + PIECE])
    with connection:
        connection.execute(QUERIES["note_progress"], (ended_at - LATE_SECONDS,))
    return 0


def _take(connection: sqlite3.Connection, job_ids: Sequence[str]) -> None:
    rows = connection.execute(QUERIES["texts"], (json.dumps(job_ids),)).fetchall()
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for job_id, attempt, is_over, doc, *texts in rows:
            values = tuple(map(_without_codes, texts))
            new = connection.execute(QUERIES["insert_doc"], values) if doc is None else None
            if new is None:
                connection.execute(QUERIES["update_doc"], (*values, doc))
            connection.execute(QUERIES["note"], (job_id, doc if new is None else new.lastrowid, attempt, is_over))


def _without_codes(text: str) -> str:
    # The letters of a terminal code would become a part of the word behind it. Most texts have none.
    return strip_terminal_codes(text) if "\x1b" in text or "\x9b" in text else text


def _forget_deleted(connection: sqlite3.Connection) -> None:
    gone = connection.execute(QUERIES["gone"]).fetchall()
    for first in range(0, len(gone), PIECE):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(QUERIES["remove_doc"], gone[first : first + PIECE])
            connection.executemany(QUERIES["remove_known"], gone[first : first + PIECE])


def _find(connection: sqlite3.Connection, query: str, jobs: JobFilter, limit: int) -> Iterator[IndexHit]:
    rows = connection.execute(QUERIES["find"], {**jobs.values, "words": query, "limit": limit}).fetchall()
    for doc, *job in rows:
        row = connection.execute(QUERIES["excerpts"], (query, doc)).fetchone()
        excerpts = dict(zip(("task", "answer"), row, strict=True))
        # The one with more of the words; of a task that its answer repeats, the task.
        where = max(excerpts, key=lambda name: excerpts[name].count(START))
        yield IndexHit(job=_job_of(*job), where=where, excerpt=excerpts[where])


def _job_of(id_: str, root_id: str, status: str, created_at: float, attempt: int = 0) -> SearchedJob:
    return SearchedJob(id=id_, root_id=root_id, status=JobStatus(status), created_at=created_at, attempt=attempt)
