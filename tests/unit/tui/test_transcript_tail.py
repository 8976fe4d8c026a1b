"""The transcript of the selected job, read from its file as it is written."""

import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.processes.attempt_dir import AttemptDirectory
from server.cli import transcript
from server.client.state_dir import StatePaths, prepare
from server.tui import transcript_tail
from server.tui.transcript_tail import TranscriptTail
from tests.support.waiting import until_now
from tests.unit.tui.stand_in import row

SECONDS = 60.0


class Followed:
    """A job whose file the test writes, and what the view is given of it."""

    def __init__(self, paths: StatePaths) -> None:
        self.paths = paths
        self.row: Mapping[str, Any] | None = row(0, task="look around")
        self.looks = 0
        self.given: queue.Queue[Sequence[str]] = queue.Queue()
        self.tail = TranscriptTail(paths, self._look, lambda _, lines: self.given.put(lines))

    def write(self, *texts: str, attempt: int = 1) -> None:
        directory = AttemptDirectory.create(self.paths.trees / "j0" / "j0" / str(attempt))
        with (directory.path / "out").open("a") as file:
            for text in texts:
                frame = {"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}
                file.write(f"{json.dumps(frame)}\n")

    def next(self) -> Sequence[str]:
        return self.given.get(timeout=SECONDS)

    def end(self, status: str = "completed") -> None:
        self.row = row(0, status, task="look around")

    def is_over(self) -> None:
        until_now(lambda: self.tail.is_over, SECONDS, "the end of the transcript")

    def _look(self) -> Mapping[str, Any] | None:
        self.looks += 1
        return self.row


@pytest.fixture
def followed(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    monkeypatch.setattr(transcript, "LOOK_AGAIN", 0.01)
    made = Followed(prepare(home / "state"))
    yield made
    made.tail.stop()
    if made.looks:
        made.is_over()


def test_what_is_written_is_given_once_until_the_job_is_over(followed: Followed):
    followed.write("first")
    followed.tail.start()
    assert followed.next() == ["> look around", "● first"]
    assert not followed.tail.is_over
    followed.write("second")
    assert followed.next() == ["● second"]
    followed.write("last")
    followed.end()
    assert followed.next() == ["● last"]
    followed.is_over()
    assert followed.given.empty()


def test_of_a_long_transcript_the_last_lines_are_given_and_not_all_at_once(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transcript_tail, "MOST_LINES", 3)
    followed.write(*(f"number {count}" for count in range(800)))
    followed.end()
    followed.tail.start()
    # The task is the first line.
    assert followed.next() == [f"● number {count}" for count in (496, 497, 498)]
    assert followed.next() == [f"● number {count}" for count in (797, 798, 799)]


def test_codes_of_a_terminal_are_taken_out(followed: Followed):
    followed.write("\x1b]0;title\x07\x1b[31mred\x1b[0m")
    followed.end()
    followed.tail.start()
    assert followed.next() == ["> look around", "● red"]


def test_a_job_that_was_cancelled_before_it_started_says_so(followed: Followed):
    followed.row = row(0, "cancelled", attempt=0)
    followed.tail.start()
    assert followed.next() == ["Job j0 was cancelled before it started. `claude-jobs status j0` says why."]
    followed.is_over()


def test_a_queued_job_is_followed_from_its_start(followed: Followed):
    queued = row(0, "queued", task="look around")
    del queued["attempt"]
    followed.row = queued
    followed.tail.start()
    until_now(lambda: followed.looks > 2, SECONDS, "a look")
    assert followed.given.empty()
    followed.write("begun")
    followed.row = row(0, task="look around")
    assert followed.next() == ["> look around", "● begun"]


@pytest.mark.parametrize("is_gone", [False, True])
def test_where_another_job_is_shown_or_this_one_is_gone_nothing_more_is_read(followed: Followed, is_gone: bool):
    followed.write("first")
    followed.tail.start()
    followed.next()
    if is_gone:
        followed.row = None
    else:
        followed.tail.stop()
    followed.is_over()
    assert followed.given.empty()
