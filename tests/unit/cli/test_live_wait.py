"""What a waiting command says of its jobs: lines redrawn in a terminal, elsewhere each request and each pause once."""

import io
from collections.abc import Iterable, Mapping
from typing import Any, cast

import pytest
from rich.console import Console

from server.cli.follow import waited
from server.cli.live_wait import WaitView, open_requests, wait_view_on
from server.client.tool_client import Client
from tests.support.screen import Screen

WIDTH = 100


def job(job_id: str, parent: str | None = None, *, batch: str = "b1", root: str = "b1", **more: Any) -> dict[str, Any]:
    """A job as `claude_status` and `claude_list_jobs` tell of it."""
    names = {"jobId": job_id, "parentJobId": parent, "batchId": batch, "rootId": root}
    return names | {"status": "running", "task": f"task of {job_id}", "recursionDepth": 1} | more


def asking(request_id: str, job_id: str) -> dict[str, str]:
    """A permission request as `claude_approve` lists it."""
    return {"requestId": request_id, "jobId": job_id, "tool": "Bash", "input": "git push"}


class Engine:
    """A fake client of an engine with these jobs, the newest first."""

    def __init__(self, *jobs: Mapping[str, Any]) -> None:
        self.jobs = {one["jobId"]: one for one in jobs}
        self.requests: list[Mapping[str, Any]] = []
        self.replies: list[Mapping[str, Any]] = []
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def client(self) -> Client:
        return cast("Client", self)

    def call_json(self, tool: str, arguments: Mapping[str, Any], *_: Any) -> Any:
        self.asked.append((tool, arguments))
        if tool == "claude_approve":
            return [*self.requests, {"more": "none"}]
        if tool == "claude_status":
            return self.jobs[arguments["jobId"]]
        if tool == "claude_wait":
            return self.replies.pop(0)
        assert tool == "claude_list_jobs"
        assert arguments["under"]
        of_status = [one for one in self.jobs.values() if one["status"] == arguments["status"]]
        return [*of_status[: arguments["limit"]], {"paused": "until later"}]


class Terminal(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self) -> bool:
        return True


class Seat:
    """A view on a terminal of some size."""

    def __init__(self, height: int = 24, width: int = WIDTH) -> None:
        self.file, self._height = Terminal(), height
        console = Console(file=self.file, width=width, height=height, force_terminal=True, emoji=False)
        self.told: list[str] = []
        self.view: WaitView = wait_view_on(console, self.told.append)

    def look(
        self,
        engine: Engine,
        scope: Mapping[str, Any],
        over: Iterable[str] = (),
        *,
        pending: int | None = None,
        paused: str = "",
    ) -> None:
        live = sum(one["status"] in ("queued", "running") for one in engine.jobs.values())
        reply = {"pending": live if pending is None else pending, "paused": paused}
        self.view.look(engine.client, scope, reply, set(over))

    @property
    def rows(self) -> list[str]:
        """The lines that stand there now."""
        screen = Screen(self._height)
        screen.feed(self.file.getvalue())
        return [row for row in screen.rows if row]


@pytest.fixture(autouse=True)
def able_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


def piped(told: list[str]) -> WaitView:
    return wait_view_on(Console(file=io.StringIO()), told.append)


def test_without_a_terminal_a_request_is_told_once_with_the_commands_that_answer_it(
    capsys: pytest.CaptureFixture[str],
):
    engine = Engine(job("j1"))
    engine.requests = [asking("p1", "j1")]
    view = piped([])
    for _ in range(2):
        view.look(engine.client, {"jobIds": ["j1"]}, {"pending": 1}, set())
    view.close()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "j1 asks for a permission: Bash git push",
        "  permit: claude-jobs approve p1 · refuse: claude-jobs approve --deny p1",
    ]
    assert view.seconds == 5.0


def test_without_a_terminal_only_pauses_are_told_where_no_job_asks(capsys: pytest.CaptureFixture[str]):
    engine, told = Engine(job("j1")), list[str]()
    view = piped(told)
    view.look(engine.client, {"jobIds": ["j1"]}, {"pending": 1, "paused": "paused until later"}, set())
    view.look(engine.client, {"jobIds": ["j1"]}, {"pending": 1}, set())
    assert told == ["paused until later", ""]
    assert capsys.readouterr().err == ""
    # Whose line a job is of is read only where one asks.
    assert {tool for tool, _ in engine.asked} == {"claude_approve"}


@pytest.mark.parametrize(
    ("scope", "concerned"),
    [
        ({"jobIds": ["jdeep"]}, True),
        ({"jobIds": ["jother", "jtop"]}, True),
        ({"batchId": "binner"}, True),
        ({"batchId": "b1"}, True),
        ({"subtreeOf": "jtop"}, True),
        ({"subtreeOf": "troot"}, True),
        ({"jobIds": ["jother"]}, False),
        ({"batchId": "b2"}, False),
        ({"subtreeOf": "jother"}, False),
    ],
)
def test_only_requests_of_what_is_waited_for_and_of_all_below_it_are_told(
    capsys: pytest.CaptureFixture[str], scope: Mapping[str, Any], *, concerned: bool
):
    engine = Engine(job("jtop", root="troot"), job("jdeep", "jtop", batch="binner", root="troot"), job("jother"))
    engine.requests = [asking("p1", "jdeep")]
    piped([]).look(engine.client, scope, {"pending": 1}, set())
    assert ("jdeep asks" in capsys.readouterr().err) is concerned


def test_open_requests_are_the_lines_with_an_id():
    engine = Engine()
    engine.requests = [asking("p1", "j1")]
    assert [one["requestId"] for one in open_requests(engine.client)] == ["p1"]


def test_in_a_terminal_a_job_has_a_line_in_the_place_of_the_one_before():
    engine, seat = Engine(job("j1", activity="Bash: make", costUsd=0.25)), Seat()
    seat.look(engine, {"jobIds": ["j1"]})
    [row] = seat.rows
    assert row.startswith("◐ j1 task of j1  Bash: make")
    assert row.endswith("$0.2500")
    engine.jobs["j1"] = job("j1", activity="Edit: a.py")
    seat.look(engine, {"jobIds": ["j1"]})
    assert [row.split("  ")[1] for row in seat.rows] == ["Edit: a.py"]
    seat.view.close()
    assert seat.rows == []


def test_one_parent_says_how_many_below_it_are_over_and_what_they_cost():
    below = {"total": 4, "counts": {"running": 1, "completed": 2, "failed": 1}, "deepest": 2, "costUsd": 0.5}
    engine, seat = Engine(job("j1", descendants=below)), Seat()
    seat.look(engine, {"jobIds": ["j1"]})
    assert seat.rows[1:] == ["  3 of 4 children over · $0.5000"]
    engine.jobs["j1"] = job("j1", descendants=below | {"deepest": 3, "costUsd": 0.0})
    seat.look(engine, {"jobIds": ["j1"]})
    assert seat.rows[1:] == ["  3 of 4 jobs below it over"]
    engine.jobs["j1"] = job("j1", waitingFor="children", status="queued", liveChildren=2)
    seat.look(engine, {"jobIds": ["j1"]})
    [row] = seat.rows
    assert row.endswith("waiting for its 2 children")


def test_of_several_jobs_those_not_over_have_lines_and_the_others_are_counted():
    names = [f"j{number:016}" for number in range(8)]
    engine, seat = Engine(*(job(name) for name in names)), Seat()
    seat.look(engine, {"jobIds": names}, over=names[:1], pending=7)
    # As short as they differ.
    assert [row.split()[1] for row in seat.rows[:-1]] == names[1:6]
    assert seat.rows[-1] == "1 of 8 over"
    assert [arguments["jobId"] for tool, arguments in engine.asked if tool == "claude_status"] == names[1:6]


@pytest.mark.parametrize("scope", [{"batchId": "b1"}, {"subtreeOf": "j0"}])
def test_of_a_batch_or_a_subtree_what_runs_is_shown_and_only_then_what_waits(scope: Mapping[str, Any]):
    engine = Engine(*(job(f"j{n}", status="queued" if n > 2 else "running") for n in (4, 3, 2, 1)))
    seat = Seat()
    seat.look(engine, scope, over=["j0"])
    assert [row.split()[1] for row in seat.rows[:-1]] == ["j1", "j2"]
    assert seat.rows[-1] == "1 of 5 over"
    for name in ("j1", "j2"):
        engine.jobs[name] = job(name, status="completed")
    seat.look(engine, scope, over=["j0", "j1", "j2"])
    assert [row.split()[1] for row in seat.rows] == ["j3", "j4", "of"]
    for name in ("j3", "j4"):
        engine.jobs[name] = job(name, status="completed")
    seat.look(engine, scope, over=engine.jobs)
    assert seat.rows == ["4 of 4 over"]


def test_a_pause_is_the_last_line_and_is_not_told_besides():
    engine, seat = Engine(job("j1")), Seat()
    seat.look(engine, {"jobIds": ["j1"]}, paused="paused until 2020-01-01T10:00:00+00:00 because of\na limit")
    assert len(seat.rows) == 2
    assert seat.rows[1].startswith("paused until ")
    assert seat.rows[1].endswith("because of a limit")
    assert "+00:00" not in seat.rows[1]
    assert seat.told == []


def test_a_request_is_told_above_the_lines_which_are_drawn_again(capsys: pytest.CaptureFixture[str]):
    engine, seat = Engine(job("j1")), Seat()
    seat.look(engine, {"jobIds": ["j1"]})
    engine.requests = [asking("p1", "j1")]
    engine.jobs["j1"] = job("j1", waitingFor="permission", waitingBecause="Bash: git push")
    for _ in range(2):
        seat.look(engine, {"jobIds": ["j1"]})
    assert capsys.readouterr().err.count("approve p1") == 1
    [row] = seat.rows
    assert row.endswith("asks: Bash: git push")


def test_many_jobs_are_looked_at_less_often_and_a_wait_begins_with_a_look():
    engine, seat = Engine(job("j1")), Seat()
    assert seat.view.seconds == 0.0
    seat.look(engine, {"batchId": "b1"}, pending=200)
    often = seat.view.seconds
    seat.look(engine, {"batchId": "b1"}, pending=201)
    assert (often, seat.view.seconds) == (1.0, 5.0)


def test_no_line_is_drawn_for_which_a_small_terminal_has_no_room():
    engine = Engine(*(job(f"j{number}", task="x" * 200) for number in range(5)))
    for height in (1, 3):
        seat = Seat(height, 40)
        seat.look(engine, {"batchId": "b1"})
        assert len(seat.rows) == max(1, height - 1)
        assert max(map(len, seat.rows)) <= 40


def test_a_wait_looks_at_its_jobs_until_they_are_over(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    console = Console(file=terminal, width=WIDTH, height=24, force_terminal=True, emoji=False)
    monkeypatch.setattr("server.cli.follow.err", console)
    engine = Engine(job("j1"), job("j2"))
    done = {"jobId": "j1", "status": "completed"}
    engine.replies = [
        {"done": [], "pending": 2, "cursor": "c1"},
        {"done": [done], "pending": 1, "cursor": "c2"},
        {"done": [done | {"jobId": "j2"}], "pending": 0, "cursor": "c3"},
    ]
    result = waited(engine.client, {"jobIds": ["j1", "j2"]})
    assert [line["jobId"] for line in result.lines] == ["j1", "j2"]
    waits = [arguments for tool, arguments in engine.asked if tool == "claude_wait"]
    assert [(one["cursor"], one["timeoutSeconds"]) for one in waits] == [(None, 0.0), ("c1", 1.0), ("c2", 1.0)]
    assert "0 of 2 over" in terminal.getvalue()
    assert "1 of 2 over" in terminal.getvalue()
    screen = Screen(24)
    screen.feed(terminal.getvalue())
    assert "".join(screen.rows) == ""
