"""`claude-jobs pause` and `resume`: what a person reads, and what waits and goes on."""

import json

import pytest

from tests.support.engines import House
from tests.support.waiting import until_now
from tests.unit.conftest import Invoke


def held(invoke: Invoke, quarters: House, name: str) -> str:
    """Start a job that waits for a file, and return its id."""
    return invoke("run", "--detach", f"stub:wait={quarters.base / name}").stdout.strip()


def end(invoke: Invoke, job_id: str) -> None:
    """Cancel a job and wait for its end: the tests share an engine, and count what runs there."""
    invoke("kill", job_id)
    invoke("wait", job_id)


def status_of(invoke: Invoke, job_id: str) -> str:
    return str(json.loads(invoke("status", job_id, "--json").stdout)["status"])


def test_everything_is_paused_until_it_is_resumed(invoke: Invoke):
    paused = invoke("pause")
    assert (paused.exit_code, paused.stdout) == (0, "Everything is paused: 0 jobs wait.\n")
    assert paused.stderr == "resume: claude-jobs resume\n"
    job_id = invoke("run", "--detach", "x").stdout.strip()
    assert status_of(invoke, job_id) == "queued"

    resumed = invoke("resume")
    assert (resumed.exit_code, resumed.stdout) == (0, "Everything goes on: 1 job waits for a slot.\n")
    assert invoke("wait", job_id).exit_code == 0
    assert invoke("resume").stdout == "Nothing was paused.\n"


def test_a_job_is_named_by_the_beginning_of_its_id_and_the_hint_has_the_whole(invoke: Invoke, quarters: House):
    job_id = held(invoke, quarters, "never")
    paused = invoke("pause", job_id[:8])
    assert paused.stdout.startswith(f"{job_id} is paused: ")
    assert paused.stderr == f"resume: claude-jobs resume {job_id}\n"
    again = invoke("pause", job_id)
    assert f"{job_id} was paused already, since " in again.stdout
    # In the time zone of the terminal, with its age.
    assert " ago)" in again.stdout
    assert "T" not in again.stdout.partition("since ")[2]
    assert invoke("resume", job_id[:8]).stdout.startswith(f"{job_id} goes on")
    end(invoke, job_id)


def test_a_pause_now_ends_what_runs_and_it_goes_on_once_resumed(invoke: Invoke, quarters: House):
    gate, ledger = quarters.base / "gate", quarters.base / "ledger"
    job_id = invoke("run", "--detach", f"stub:wait={gate} stub:ledger={ledger}").stdout.strip()
    until_now(lambda: status_of(invoke, job_id) == "running", 60.0, "the job")
    paused = invoke("pause", "--now", job_id)
    assert "1 running job is ended, and queued again with the session of each" in paused.stdout
    gate.touch()
    invoke("resume", job_id)
    assert invoke("wait", job_id).exit_code == 0


def test_a_part_of_what_is_paused_stays_paused_which_is_status_1_and_names_the_command(invoke: Invoke, quarters: House):
    invoke("pause")
    job_id = held(invoke, quarters, "never")
    part = invoke("resume", job_id)
    assert (part.exit_code, part.stdout) == (1, "")
    assert part.stderr.startswith(f"{job_id} is still paused, because everything is. ")
    assert "claude-jobs resume" in part.stderr
    assert "claude_pause" not in part.stderr
    as_json = invoke("resume", job_id, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["success"] is False
    invoke("resume")
    end(invoke, job_id)


def test_json_is_the_answer_without_words_for_a_model(invoke: Invoke):
    paused = invoke("pause", "--json")
    message = "Everything is paused: 0 jobs wait."
    assert json.loads(paused.stdout) == {"success": True, "message": message, "queued": 0, "running": 0}
    assert paused.stderr == ""
    resumed = invoke("resume", "--json")
    assert (resumed.exit_code, json.loads(resumed.stdout)["success"]) == (0, True)


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_id_that_nothing_has_pauses_nothing(invoke: Invoke, command: str):
    result = invoke(command, "j404")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No job or batch has the id 'j404'" in result.stderr
    assert invoke("resume").stdout == "Nothing was paused.\n"
