"""What a command says to a person who made a mistake or pressed Ctrl-C, before a real engine that runs the stub."""

import json
import re

import pytest

from server.cli.follow import LONGEST_PAUSE, pause_after
from tests.support.engines import House
from tests.unit.conftest import Invoke


def detached(invoke: Invoke, task: str) -> str:
    """Start a job and return its id."""
    return invoke("run", "--detach", task).stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("run", "stub:exit=3"), "[`claude-jobs retry ID` tries it again.]\n"),
        (("result", "LIVE"), "Job is still running. Run `claude-jobs wait ID`, then ask again.\n"),
        (("send", "LIVE", "x"), "Run `claude-jobs wait ID`, then ask again.\n"),
        (("retry", "DONE"), "`claude-jobs result ID` prints it.\n"),
    ],
)
def test_a_refusal_names_the_commands_that_a_person_has(invoke: Invoke, arguments: tuple[str, ...], advice: str):
    live, done = (detached(invoke, task) for task in ("stub:wait=/nonexistent", "stub:say=x"))
    invoke("wait", done)
    result = invoke(*({"LIVE": live, "DONE": done}.get(word, word) for word in arguments))
    invoke("kill", live)
    assert result.exit_code == 1
    assert re.sub(r"(retry|wait|result) j\w+`", r"\1 ID`", result.stderr).endswith(advice), result.stderr
    assert "claude_" not in result.stderr


def test_a_batch_has_no_transcript_and_its_jobs_are_shown_by_a_command(invoke: Invoke):
    batch_id = invoke("batch", "--detach", "stub:say=x").stdout.strip()
    result = invoke("transcript", batch_id)
    words = f"{batch_id} is a batch. Name one of its jobs: `claude-jobs tree {batch_id}` shows them.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", words)


def test_the_pause_between_two_drawings_is_bounded_whatever_the_last_one_took():
    assert [pause_after(took) for took in (0.0, 0.5, 10.0)] == [0.25, 1.5, LONGEST_PAUSE]


def test_a_backup_into_a_directory_that_is_not_there_says_which(invoke: Invoke, quarters: House):
    missing = quarters.base / "missing"
    result = invoke("backup", str(missing / "jobs.tar.gz"))
    words = f"There is no directory {missing}. Make it first, or name a file in another directory.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", words)


def test_nothing_to_list_and_nothing_to_approve_are_said(invoke: Invoke, quarters: House):
    oldest = detached(invoke, "stub:say=x")
    while page := json.loads(invoke("list", "--json", "--before", oldest).stdout)["jobs"]:
        oldest = page[-1]["jobId"]
    none = invoke("list", "--before", oldest)
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "No such jobs.\n")
    waiting = invoke("approve")
    assert (waiting.stdout, waiting.stderr) == ("", "No job waits for a permission.\n")
    assert json.loads(invoke("approve", "--json").stdout) == {"requests": []}


@pytest.mark.parametrize("command", ["run", "batch"])
def test_an_interrupt_before_an_id_is_known_says_where_to_look(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("server.client.tool_client.Client.call_json", interrupted)
    result = invoke(command, "x")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "`claude-jobs list` shows whether it was." in result.stderr
