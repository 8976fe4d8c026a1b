"""`claude-jobs limits`: what a person reads, what is asked before jobs end, and what goes to the engine."""

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from server.cli import limits
from tests.support.engines import House
from tests.unit.conftest import Invoke

QUESTION = "0.5000 USD have been spent already: with a budget of 0.3000 USD 1 running job ends."


class Engine:
    """A fake engine: gives answers in their order, and keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Mapping[str, Any] | None) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self._answers = list(answers)
        monkeypatch.setattr(limits, "ask", self._answer)
        monkeypatch.setattr("server.client.tool_client.Client.ids_from", lambda _self, beginning: [f"{beginning}whole"])

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        self.asked.append(request)
        return self._answers.pop(0)


def in_force(**more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("budgetUsd", "leftUsd", "leftOf", "deadline", "maxJobs", "maxConcurrent"))
    counts = {"running": 1, "queued": 2, "failed": 0, "jobsBelow": 3, "spentUsd": 0.5}
    return {"ok": True, "id": "j1", **nothing, **counts, **more}


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({}, "j1  1 running, 2 queued"),
        ({}, "budget     no limit; $0.5000 spent"),
        ({"budgetUsd": 2.0, "leftUsd": 1.5}, "budget     $2.0000; $0.5000 spent, $1.5000 left"),
        (
            {"leftUsd": 0.25, "leftOf": "tree b1"},
            "budget     no limit; $0.5000 spent, $0.2500 left of the budget of tree b1",
        ),
        ({}, "time       no limit"),
        ({}, "jobs below 3; no limit"),
        ({"maxJobs": 40}, "jobs below 3; 40 at most, 37 more"),
        ({"maxJobs": 2}, "jobs below 3; 2 at most, 0 more"),
        ({}, "at once    no limit"),
        ({"maxConcurrent": 3}, "at once    3 at most"),
    ],
)
def test_each_limit_is_a_line(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], line: str):
    engine = Engine(monkeypatch, in_force(**answer))
    result = invoke("limits", "j1")
    assert line in result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert engine.asked == [{"do": "limits", "id": "j1whole", "set": {}, "confirmed": False}]


def test_a_deadline_is_shown_in_the_time_zone_of_the_terminal(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, in_force(deadline="2999-01-02T03:04:05Z"))
    [line] = [line for line in invoke("limits", "j1").stdout.splitlines() if line.startswith("time")]
    assert line.startswith("time       until 2999-01-0")
    assert "T03" not in line


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (("--budget-usd", "5"), {"budget_usd": 5.0}),
        (("--max-budget-usd", "5"), {"budget_usd": 5.0}),
        (("--timeout", "900"), {"timeout_seconds": 900.0}),
        (("--max-jobs", "0", "--max-concurrent", "2"), {"max_jobs": 0, "max_concurrent": 2}),
    ],
)
def test_only_the_limits_that_are_given_are_changed(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, options: Sequence[str], asked: dict[str, Any]
):
    engine = Engine(monkeypatch, in_force())
    assert invoke("limits", "j1", *options).exit_code == 0
    assert [request["set"] for request in engine.asked] == [asked]


def test_a_change_where_something_failed_says_how_to_run_it_again_and_a_look_does_not(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
):
    Engine(monkeypatch, in_force(failed=1), in_force(failed=1))
    hint = "Run what failed again: claude-jobs retry --subtree j1\n"
    assert invoke("limits", "j1", "--budget-usd", "5").stderr == hint
    assert invoke("limits", "j1").stderr == ""


def test_json_is_the_answer_and_nothing_else(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, in_force(failed=1))
    result = invoke("limits", "j1", "--budget-usd", "5", "--json")
    assert json.loads(result.stdout) == {name: value for name, value in in_force(failed=1).items() if name != "ok"}
    assert result.stderr == ""


def test_without_a_terminal_nothing_that_ends_jobs_is_done_unless_yes_says_so(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
):
    engine = Engine(monkeypatch, {"ok": True, "confirm": QUESTION})
    result = invoke("limits", "j1", "--budget-usd", "0.3")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{QUESTION} Nothing was changed. Repeat the command with --yes to do it.\n"
    assert [request["confirmed"] for request in engine.asked] == [False]

    engine = Engine(monkeypatch, in_force())
    assert invoke("limits", "j1", "--budget-usd", "0.3", "--yes").exit_code == 0
    assert [request["confirmed"] for request in engine.asked] == [True]


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n"])
def test_at_a_terminal_the_person_is_asked_before_jobs_end(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, answer: str
):
    monkeypatch.setattr(limits, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    engine = Engine(monkeypatch, {"ok": True, "confirm": QUESTION}, in_force(budgetUsd=0.3, leftUsd=0.0))
    result = invoke("limits", "j1", "--budget-usd", "0.3", input=answer)
    assert QUESTION in result.stderr
    if answer == "y\n":
        assert "$0.3000; $0.5000 spent, $0.0000 left" in result.stdout
        assert [request["confirmed"] for request in engine.asked] == [False, True]
    else:
        assert (result.exit_code, "budget" in result.stdout) == (1, False)
        assert "Nothing was changed." in result.stderr
        assert [request["confirmed"] for request in engine.asked] == [False]


def test_an_engine_that_stops_meanwhile_is_said(invoke: Invoke, monkeypatch: pytest.MonkeyPatch):
    Engine(monkeypatch, None)
    result = invoke("limits", "j1")
    assert (result.exit_code, result.stderr) == (1, "The engine stopped meanwhile. Try again.\n")


def test_limits_of_a_job_that_runs_are_changed_and_stay(invoke: Invoke, quarters: House):
    job_id = invoke("run", "--detach", f"stub:wait={quarters.base}/never").stdout.strip()
    changed = invoke("limits", job_id[:8], "--budget-usd", "5", "--timeout", "900", "--max-jobs", "4")
    assert changed.exit_code == 0, changed.output
    told = json.loads(invoke("limits", job_id, "--json").stdout)
    assert (told["id"], told["budgetUsd"], told["maxJobs"], told["maxConcurrent"]) == (job_id, 5.0, 4, None)
    assert told["deadline"] is not None
    refused = invoke("limits", job_id, "--max-concurrent", "0")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--max-concurrent: 0 is less than 1" in refused.stderr
    invoke("kill", job_id)
