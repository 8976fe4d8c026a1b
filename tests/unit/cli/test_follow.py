"""Following jobs: how often the engine is asked, and how often a person is told."""

import io
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from rich.console import Console

from server.cli import follow
from server.cli.follow import pause_reporter, watch
from server.client.tool_client import Client


class Told:
    """A client of an engine with a tree of so many jobs, of which one runs until a number of looks is over."""

    def __init__(self, jobs: int, looks: int) -> None:
        self.jobs = jobs
        self.ends: Iterator[str] = iter(["running"] * looks + ["completed"] * 3)
        self.last = "running"
        self.asked: list[str] = []

    def call_json(self, tool: str, arguments: Mapping[str, Any], *_: Any) -> Any:
        self.asked.append(tool)
        if tool == "claude_status":
            self.last = next(self.ends)
            return {"counts": {"completed": self.jobs - 1, self.last: 1}, "costUsd": 0.0}
        return [self.line(number) for number in reversed(range(self.jobs))]

    def line(self, number: int) -> dict[str, Any]:
        status = "completed" if number else self.last
        return {"jobId": f"j{number}", "parentJobId": None, "status": status, "task": "x", "recursionDepth": 1}


def test_a_large_tree_in_which_nothing_begins_or_ends_is_not_listed_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.cli.follow.time.sleep", lambda _: None)
    engine = Told(300, looks=20)
    watch(cast("Client", engine), "b1", "b1", Console(file=io.StringIO()))
    # At first, since its counts were not known before; and at the end.
    assert engine.asked.count("claude_list_jobs") <= 3
    assert engine.asked.count("claude_status") >= 20


PAUSED = "paused until 2026-01-01T{}+00:00 because {}; {} jobs wait"


def test_a_person_is_told_of_each_cause_once_and_of_a_much_later_end_again(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(follow, "note", said.append)
    tell = pause_reporter()
    for seconds in range(0, 60, 7):
        tell(PAUSED.format(f"10:00:{seconds:02}", "the API answered: overloaded", seconds))
        tell("")
    tell(PAUSED.format("12:00:00", "the five-hour limit is reached", 4))
    tell(PAUSED.format("12:00:03", "the five-hour limit is reached", 5))
    tell(PAUSED.format("17:00:00", "the five-hour limit is reached", 5))
    assert [words.partition("because ")[2] for words in said] == [
        "the API answered: overloaded; 0 jobs wait",
        "the five-hour limit is reached; 4 jobs wait",
        "the five-hour limit is reached; 5 jobs wait",
    ]
