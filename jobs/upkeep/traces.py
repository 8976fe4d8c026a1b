"""What jobs' directories say of jobs: enough to bring back the rows that a database has lost."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from jobs.attempts.record import JOB, Launched, end_in, launched_in
from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError
from jobs.claude.framer import Framer
from jobs.claude.outcome import OutcomeReader
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.store.restoration import Found, Standing

_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trace:
    """The directory of a job that was launched at least once.

    Args:
        directory: The job's directory.
        attempt: Its last attempt.
    """

    directory: Path
    attempt: int

    def is_ahead_of(self, standing: Standing | None) -> bool:
        """Tell whether the directory says more of the job than its row; None for a job without a row."""
        if standing is None or standing.attempt < self.attempt:
            return True
        return standing.running and _end(self.directory / str(self.attempt)) is not None

    def place(self) -> tuple[int, int]:
        """Return depth and order of admission, by which parents come before their children."""
        launched = _launched(self.directory / str(self.attempt))
        return (launched.job.depth, launched.job.seq) if launched else (0, 0)


def traces_under(trees: Path, *, since: float | None = None, live: Collection[str] = ()) -> Iterator[Trace]:
    """Yield the trace of every job that was ever launched.

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
                yield Trace(directory, max(launched))


def lacking(traces: Iterable[Trace], known: Mapping[str, Standing]) -> Sequence[Path]:
    """Return the directories of the jobs that are further than their rows, parents before their children."""
    ahead = [trace for trace in traces if trace.is_ahead_of(known.get(trace.directory.name))]
    return [trace.directory for trace in sorted(ahead, key=Trace.place)]


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


def _launched(path: Path) -> Launched | None:
    try:
        return launched_in(AttemptDirectory(path))
    except UnsafeDirectoryError:
        return None


def _end(path: Path) -> Job | None:
    try:
        return end_in(AttemptDirectory(path))
    except UnsafeDirectoryError:
        return None


def found_in(directory: Path) -> Found | None:
    """Return a job as its directory tells of it, or None where that does not say enough. Reads its whole output."""
    numbers = sorted(int(path.name) for path in subdirectories(directory) if path.name.isdecimal())
    readable = [
        (launched, directory / str(number)) for number in numbers if (launched := _launched(directory / str(number)))
    ]
    if not readable:
        return None
    last, path = readable[-1]
    ended = [_ended_attempt(launched, where) for launched, where in readable]
    end = end_in(AttemptDirectory(path))
    return Found(
        # What was noted at the launch has the whole task, what was noted at the end has its beginning.
        job=last.job if end is None else replace(end, spec=last.job.spec),
        attempts=list(_closed(ended)),
        tree=last.tree,
    )


def _closed(read: Sequence[Attempt]) -> Iterator[Attempt]:
    """Close every attempt but the last: another followed it, whether or not its own end was noted."""
    for attempt, following in pairwise(read):
        if attempt.status is None:
            attempt = replace(  # noqa: PLW2901 - the same attempt, closed
                attempt, token_hash=None, status=JobStatus.QUEUED, reason=Reason.LOST, ended_at=following.started_at
            )
        yield attempt
    yield read[-1]


def _ended_attempt(launched: Launched, path: Path) -> Attempt:
    directory, attempt = AttemptDirectory(path), launched.attempt
    end = end_in(directory)
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


def _read_output(directory: AttemptDirectory, launched: Launched) -> Outcome:
    reader, framer = OutcomeReader(), Framer(0)
    while True:
        piece = directory.read_output(framer.read, _PIECE)
        for line in framer.feed(piece) if piece else framer.close():
            reader.take(line)
        if not piece:
            break
    schema = launched.job.spec.json_schema is not None
    return reader.conclude(exit_code=directory.exit_code(), asked_schema=schema)
