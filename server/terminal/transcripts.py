"""Reads what an attempt of a job wrote: the lines as they are, or what a person would want to see of each."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jobs.attempts.origin import OriginFiles
from jobs.claude.directory import AttemptDirectory
from jobs.claude.events import TEXT_LIMIT, event_of
from jobs.claude.framer import Framer, Line
from jobs.claude.shapes import plain
from jobs.errors import JobsError
from jobs.redaction import secrets_in
from server.front_door.places import Places

_CHUNK = 1024 * 1024


class NothingWrittenError(JobsError):
    """There is no transcript of an attempt.

    Args:
        job_id: Whose.
        attempt: Its number.
        last: Number of the job's last attempt; 0 where it has not started.
    """

    def __init__(self, job_id: str, attempt: int, last: int) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.last = last
        super().__init__(
            f"Job {job_id} has written nothing in attempt {attempt}; its last one is {last}."
            if last
            else f"Job {job_id} has not started yet. Wait for it, then ask again."
        )


class NotAJobError(JobsError):
    """A batch has no transcript of its own.

    Args:
        batch_id: The batch.
    """

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"{batch_id} is a batch. Name one of its jobs: `claude-jobs tree {batch_id}` shows them.")


def transcript_of(
    places: Places, status: Mapping[str, Any], attempt: int | None = None, *, raw: bool = False
) -> Iterator[str]:
    """Yield the lines of a job's transcript, without their newlines.

    Args:
        places: The state directory.
        status: The job's, as `claude_status` tells it.
        attempt: Number of the attempt, or None for the last one.
        raw: The lines as they were written, instead of one for each thing that a person would want to see.

    Raises:
        NotAJobError: The status is a batch's.
        NothingWrittenError: The attempt has not written anything.
        UnsafeDirectoryError: A job has put something else in the directory's place.
    """
    if "jobId" not in status:
        raise NotAJobError(status["batchId"])
    number = status["attempt"] if attempt is None else attempt
    directory = AttemptDirectory(places.trees / status["rootId"] / status["jobId"] / str(number))
    if not directory.output_size():
        raise NothingWrittenError(status["jobId"], number, status["attempt"])
    if raw:
        yield from _raw(directory)
    else:
        yield _shown("task", plain(status["task"], TEXT_LIMIT))
        known = secrets_in(os.environ) | OriginFiles(places.trees).secrets_of(status["rootId"])
        yield from _readable(directory, known)


def _raw(directory: AttemptDirectory) -> Iterator[str]:
    shown = 0
    for line in _lines(directory):
        if line.end <= shown:
            # Another part of a damaged line.
            continue
        shown = line.end
        written = directory.read_output(line.offset, line.end - line.offset)
        yield written.decode("utf-8", "replace").removesuffix("\n")


def _readable(directory: AttemptDirectory, known: Iterable[str]) -> Iterator[str]:
    for line in _lines(directory):
        if (event := event_of(line, known)) is not None:
            yield _shown(event.kind, event.text)


def _shown(kind: str, text: str) -> str:
    return f"{kind:<16}  {text}".rstrip()


def _lines(directory: AttemptDirectory) -> Iterator[Line]:
    framer = Framer()
    while chunk := directory.read_output(framer.read, _CHUNK):
        yield from framer.feed(chunk)
    yield from framer.close()
