"""Reads a job's transcript: raw or rendered for a person; once, or followed until the job is over."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.claude.ndjson import Line, LineDecoder
from jobs.errors import JobsError
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.util.text import redact, secrets_in
from server.cli.conversation import Conversation
from server.cli.times import here
from server.cli.tree_view import LIVE
from server.client.state_dir import StatePaths

_CHUNK = 1024 * 1024
_STDERR_LINES = 20

LOOK_AGAIN = 0.5
"""Seconds between two polls of a followed job."""


class NothingWrittenError(JobsError):
    """An attempt has no transcript.

    Args:
        status: The job's status, as `claude_status` returns it.
        attempt: Number of the attempt that was asked for.
    """

    def __init__(self, status: Mapping[str, Any], attempt: int) -> None:
        self.job_id = job_id = status["jobId"]
        self.attempt = attempt
        self.last = last = status["attempt"]
        if attempt > last or (last and status["status"] not in LIVE):
            said = f"Job {job_id} has written nothing in attempt {attempt}; its last one is {last}."
        elif status["status"] not in LIVE:
            said = f"Job {job_id} was {status['status']} before it started. `claude-jobs status {job_id}` says why."
        else:
            why = f" ({here(status['paused'], time.time())})" if status.get("paused") else ""
            state = "has not started yet" if status["status"] == "queued" else "has written nothing yet"
            said = f"Job {job_id} {state}{why}. `claude-jobs transcript -f {job_id}` waits, and shows what it does."
        super().__init__(said)


class NotAJobError(JobsError):
    """A transcript was asked for a batch, which has none.

    Args:
        batch_id: The batch.
    """

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"{batch_id} is a batch. Name one of its jobs: `claude-jobs tree {batch_id}` shows them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which part of a transcript is shown, and how.

    Args:
        attempt: Number of the attempt, or None for the last one.
        whole: Every attempt, with results, arguments and thoughts in full.
        raw: The lines as they were written.
    """

    attempt: int | None = None
    whole: bool = False
    raw: bool = False


_LAST = Selection()


def transcript_of(paths: StatePaths, status: Mapping[str, Any], wanted: Selection = _LAST) -> Iterator[str]:
    """Yield the lines of a job's transcript, without their newlines.

    Args:
        paths: The state directory.
        status: The job's status, as `claude_status` returns it.
        wanted: Which part, and how.

    Raises:
        NotAJobError: The status is a batch's.
        NothingWrittenError: The attempt has not written anything.
        UnsafeDirectoryError: A job has put something else in the directory's place.
    """
    _check(status)
    last = status["attempt"] if wanted.attempt is None else wanted.attempt
    numbers = range(1, last + 1) if wanted.whole and wanted.attempt is None else [last]
    readers = [_Reader(paths, status, number, wanted) for number in numbers]
    if not any(reader.has_written for reader in readers):
        raise NothingWrittenError(status, last)
    for reader in readers:
        if len(readers) > 1 and not wanted.raw:
            yield f"── attempt {reader.number} of {last}"
        yield from reader.more()
        yield from reader.rest()


def followed(
    paths: StatePaths, look: Callable[[], Mapping[str, Any]], wanted: Selection, wait: Callable[[str], None]
) -> Iterator[str]:
    """Yield the lines of a job's transcript as they are written, until the job is over, across its attempts.

    Args:
        paths: The state directory.
        look: Returns the job's status, as `claude_status` returns it.
        wanted: Which part, and how; a named attempt is followed to its end.
        wait: Called with why the job waits, or an empty text where it does not.

    Raises:
        NotAJobError: The status is a batch's.
        UnsafeDirectoryError: A job has put something else in the directory's place.
    """
    reader: _Reader | None = None
    while True:
        status = look()
        _check(status)
        last, is_over = status["attempt"], status["status"] not in LIVE
        wait(status.get("paused", "") if status["status"] == "queued" else "")
        if reader is None and last:
            reader = _Reader(paths, status, wanted.attempt or (1 if wanted.whole else last), wanted)
        # After the poll: when the job was over, its transcript was complete.
        while reader is not None:
            yield from reader.more()
            if not (is_over or reader.number < last):
                break
            yield from reader.rest()
            if reader.number >= last or wanted.attempt is not None:
                return
            reader = _Reader(paths, status, reader.number + 1, wanted)
            yield from () if wanted.raw else (f"── attempt {reader.number}",)
        if is_over:
            raise NothingWrittenError(status, last)
        time.sleep(LOOK_AGAIN)


def _check(status: Mapping[str, Any]) -> None:
    if "jobId" not in status:
        raise NotAJobError(status["batchId"])


class _Reader:
    """Reads one attempt from its beginning, as far as it is written.

    Args:
        paths: The state directory.
        status: The job's status.
        number: The attempt's number.
        wanted: How it is shown.
    """

    def __init__(self, paths: StatePaths, status: Mapping[str, Any], number: int, wanted: Selection) -> None:
        self.number = number
        self._status = status
        self._raw = wanted.raw
        self._directory = AttemptDirectory(paths.trees / status["rootId"] / status["jobId"] / str(number))
        self._decoder = LineDecoder()
        self._shown = 0
        # Imported here: no other command needs it, and it imports pydantic.
        from jobs.client_context import ClientContextStore

        known = secrets_in(os.environ) | ClientContextStore(paths.trees).secrets_of(status["rootId"])
        self._known = frozenset(known)
        self._talk = Conversation(known, whole=wanted.whole)
        self._begun = False

    @property
    def has_written(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._directory.output_size() or (not self._raw and self._directory.error_tail()))

    def more(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        if not self._begun and not self._raw and self._directory.output_size():
            self._begun = True
            yield from self._task()
        while chunk := self._directory.read_output(self._decoder.read, _CHUNK):
            yield from self._lines(self._decoder.feed(chunk))

    def rest(self) -> Iterator[str]:
        """Yield the rest of an ended attempt: a line without its newline, and its stderr."""
        yield from self._lines(self._decoder.close())
        if self._raw or (self._begun and self._status["status"] in {*LIVE, "completed"}):
            return
        if said := redact(self._directory.error_tail(), self._known):
            yield "▲ stderr:" if self._begun else "It wrote nothing but this, on stderr:"
            yield from (f"  {line}" for line in said.splitlines()[-_STDERR_LINES:])

    def _task(self) -> Iterator[str]:
        lines = redact(self._status["task"], self._known).split("\n")
        yield from (f"{'  ' if index else '> '}{line}" for index, line in enumerate(lines))

    def _lines(self, lines: Iterable[Line]) -> Iterator[str]:
        for line in lines:
            if not self._raw:
                yield from self._talk.rows(line)
            elif line.end > self._shown:
                # Not a further part of a damaged line.
                self._shown = line.end
                written = self._directory.read_output(line.offset, line.end - line.offset)
                yield written.decode("utf-8", "replace").removesuffix("\n")
