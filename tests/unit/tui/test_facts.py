"""The lines about the selected node."""

from pathlib import Path
from typing import Any

import pytest

from server.tui.facts import facts_of
from server.tui.model import JobTable
from tests.unit.tui.stand_in import NOW, REVIEW, page, row

DETAILS = {
    "rights": {
        "permissionMode": "acceptEdits",
        "allowedTools": ["Read", "Grep"],
        "disallowedTools": ["Bash"],
        "directories": ["/data"],
        "mcpServers": ["github"],
    },
    "cwd": "/srv/project",
    "sessionId": "s-1",
    "attempts": [
        {"number": 1, "startedAt": NOW - 90, "endedAt": NOW - 60, "reason": "api_error", "costUsd": 0.5},
        {"number": 2, "startedAt": NOW - 50, "model": "claude-sonnet-5", "cliVersion": "2.1.0"},
    ],
}


def facts(*rows: dict[str, Any], of: str = "j0", details: Any = None, width: int = 80, **more: Any) -> list[str]:
    table = JobTable()
    table.apply(page(*rows, **more))
    table.arrange()
    node = table.node(of)
    assert node is not None
    return facts_of(node, details, width, NOW).plain.split("\n")


def fact(lines: list[str], name: str) -> str | None:
    return next((line[10:] for line in lines if line.startswith(f"{name} ")), None)


def test_a_job_that_was_tried_again_says_so_with_each_attempt_and_what_it_took():
    lines = facts(row(0, attempt=2, reason="api_error"), details=DETAILS)
    assert fact(lines, "Status") == "running · api error · attempt 2"
    assert fact(lines, "Attempts") == "1 api error 30s $0.50; 2 runs 50s"


def test_of_many_attempts_the_last_four_are_shown():
    attempts = [{"number": number, "startedAt": NOW - 9, "endedAt": NOW - 4} for number in range(1, 8)]
    shown = fact(facts(row(0), details={"attempts": attempts}), "Attempts")
    assert shown is not None
    assert [one.split()[0] for one in shown.split("; ")] == ["4", "5", "6", "7"]


def test_model_rights_directory_and_session_are_those_that_the_engine_knows():
    lines = facts(row(0), details=DETAILS, width=100)
    assert fact(lines, "Model") == "claude-sonnet-5 · CLI 2.1.0"
    assert fact(lines, "Rights") == "acceptEdits · Read, Grep · without Bash · also in /data · servers github"
    assert fact(lines, "Directory") == "/srv/project"
    assert fact(lines, "Session") == "s-1"


def test_another_model_than_the_one_asked_for_is_named_with_it():
    lines = facts(row(0, model="opus", answeringModel="claude-haiku-4-5"))
    assert fact(lines, "Model") == "claude-haiku-4-5 (asked for opus)"
    assert fact(facts(row(0, model="haiku", answeringModel="claude-haiku-4-5")), "Model") == "claude-haiku-4-5"


@pytest.mark.parametrize(
    ("cwd", "shown"), [("", "~"), ("/project", "~/project"), ("-of-another/project", "/home/me-of-another/project")]
)
def test_the_home_directory_is_a_tilde(monkeypatch: pytest.MonkeyPatch, cwd: str, shown: str):
    monkeypatch.setenv("HOME", "/home/me")
    assert fact(facts(row(0), details={"cwd": f"/home/me{cwd}"}), "Directory") == shown


def test_of_a_path_that_is_too_long_the_end_is_shown():
    path = str(Path("/") / "/".join(["deep"] * 30) / "here")
    shown = fact(facts(row(0), details={"cwd": path}, width=50), "Directory")
    assert shown is not None
    assert len(shown) == 40
    assert shown.startswith("…")
    assert shown.endswith("/deep/here")


def test_what_is_below_a_job_is_counted_without_itself():
    lines = facts(*REVIEW)
    assert fact(lines, "Below") == "1 running, 3 waiting, 1 queued, 1 completed, 1 failed"
    assert fact(lines, "Cost") == "$1.32 · $0.40 itself"


def test_a_batch_says_what_its_jobs_do():
    rows = [row(1, rootId="b0", costUsd=0.2), row(2, "failed", rootId="b0")]
    lines = facts(*rows, of="b0", trees=[{"rootId": "b0", "maxBudgetUsd": 5.0}])
    assert fact(lines, "Now") == "1 running, 1 failed"
    assert fact(lines, "Status") is None
    assert fact(lines, "Cost") == "$0.20 · budget $5.00"


@pytest.mark.parametrize(
    ("tokens", "shown"), [(9_999, "9999 tokens"), (10_400, "10k tokens"), (2_340_000, "2.3M tokens")]
)
def test_tokens_of_both_directions_are_added_up_and_rounded(tokens: int, shown: str):
    lines = facts(row(0, inputTokens=tokens - 99, outputTokens=99, maxBudgetUsd=2.0))
    assert fact(lines, "Cost") == f"nothing yet · {shown} · budget $2.00"


def test_a_failed_job_says_why():
    failed = row(0, "failed", reason="prompt_too_long", error="Prompt is too long")
    assert fact(facts(failed), "Error") == "Prompt is too long"
    assert fact(facts(failed), "Status") == "failed · prompt too long"
    assert fact(facts(row(0, "failed", reason="prompt_too_long")), "Error") == "prompt too long"
    assert fact(facts(row(0, "cancelled", error="killed by a person")), "Error") == "killed by a person"
    assert fact(facts(row(0, "completed")), "Error") is None


def test_a_running_job_says_what_it_does_and_for_how_long_it_is_silent():
    assert fact(facts(row(0, activity="Bash: make", lastOutputAt=NOW - 75)), "Now") == "Bash: make · 1:15 ago"
    # Nothing is known of its output yet.
    assert fact(facts(row(0)), "Now") == "running"


def test_what_a_job_waits_for_is_said_once_and_a_pause_by_a_person_too():
    lines = facts(row(0, "queued", waitingFor="pause", waitingBecause="paused by a person", paused=True))
    assert fact(lines, "Waits") == "paused by a person"
    assert fact(lines, "Paused") is None
    lines = facts(row(0, "queued", parent=None, rootId="b0", dependsOn=["j7", "j8"]))
    assert fact(lines, "After") == "j7, j8"


def test_a_long_text_takes_three_lines_and_says_that_there_is_more():
    lines = facts(row(0, "failed", error="word " * 100), width=40)
    start = next(index for index, line in enumerate(lines) if line.startswith("Error"))
    assert all(line.startswith(" " * 10) for line in lines[start + 1 : start + 3])
    assert lines[start + 2].endswith("…")
    assert not lines[start + 3].startswith(" ")


def test_codes_of_a_terminal_are_taken_out():
    text = "\n".join(facts(row(0, "failed", task="\x1b[31mred", error="\x1b]0;t\x07broken")))
    assert "\x1b" not in text
    assert "broken" in text
