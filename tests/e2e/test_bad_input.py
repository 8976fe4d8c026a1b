"""Bad input through the real wire: an error that says what to do, a reason of the closed set, and nobody disturbed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model import Reason
from tests.support.engines import PYTHON_STUB, House, Pump, house

HOLD = "stub:do=silent"


@pytest.fixture(scope="module")
def quarters() -> Iterator[House]:
    """A house whose `claude` is a link to the stub, so that a test can take it away."""
    with house() as made:
        link = made.base / "claude"
        link.symlink_to(PYTHON_STUB)
        yield House(base=made.base, environ={**made.environ, "CLAUDE_JOBS_CLI": str(link)}, pids=made.pids)


@pytest.fixture(scope="module")
def neighbour(quarters: House) -> Iterator[tuple[Pump, str]]:
    """Another client with a job that runs all the while."""
    with quarters.pump() as pump:
        job_id = pump.json("claude_run_async", task=HOLD)["jobId"]
        yield pump, job_id
        pump.json("claude_kill_job", jobId=job_id)
        pump.settled(job_id)


@pytest.fixture
def pump(quarters: House, neighbour: tuple[Pump, str]) -> Iterator[Pump]:
    """A client; afterwards the neighbour's job still runs, and a new job still answers."""
    with quarters.pump() as made:
        yield made
        assert '"fine"' in made.text("claude_run", task="stub:say=fine")
    other, job_id = neighbour
    job = other.json("claude_status", jobId=job_id)
    assert (job["status"], job["attempt"]) == ("running", 1)


def jobs_of(pump: Pump) -> set[str]:
    return {job["jobId"] for job in pump.json("claude_list_jobs", limit=1000)}


def failed(pump: Pump, task: str) -> Any:
    job = pump.settled(pump.json("claude_run_async", task=task)["jobId"])
    assert job["status"] == "failed"
    assert job["reason"] in set(Reason)
    assert job["error"]
    return job


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("claude_run", {"task": "x", "colour": "red"}, ("colour", "It accepts: ", "Correct the call")),
        ("claude_run_batch_async", {"tasks": [{"task": "x", "tint": 1}]}, ("tasks.0", "tint", "object with: ")),
        ("claude_run", {"task": ""}, ("task: the task is empty", "Say what the job is to do")),
        ("claude_run_batch_async", {"tasks": ["fine", "\n"]}, ("tasks[1]: the task is empty",)),
        ("claude_run_async", {"task": "x" * 1_048_577}, ("1048577 characters", "Put the material into a file")),
        ("claude_run_async", {"task": "x", "parentJobId": "j404"}, ("Job j404 not found",)),
        ("claude_run_async", {"task": "x", "cwd": "no/such"}, ("cwd: ", "does not exist", "leave cwd out")),
        ("claude_run_async", {"task": "x", "cwd": "/etc/passwd"}, ("cwd: /etc/passwd is not a directory",)),
    ],
    ids=["argument", "key", "empty", "blank", "megabyte", "parent", "missing", "file"],
)
def test_what_cannot_be_used_is_refused_before_anything_starts(
    pump: Pump, tool: str, arguments: dict[str, Any], words: tuple[str, ...]
):
    before = jobs_of(pump)
    said = pump.refusal(tool, **arguments)
    assert len(said) < 2000
    for word in words:
        assert word in said
    assert jobs_of(pump) == before


@pytest.mark.parametrize(
    ("tool", "words"), [("claude_status", "Job j404 not found"), ("claude_result", "Job error: Job not found: j404")]
)
def test_an_unknown_job_is_not_found_and_the_next_call_is_named(pump: Pump, tool: str, words: str):
    assert pump.refusal(tool, jobId="j404") == f"{words}. Call claude_list_jobs for the jobs that you can see."


def test_killing_an_unknown_job_is_an_answer_and_no_error(pump: Pump):
    assert pump.json("claude_kill_job", jobId="j404")["success"] is False


def test_a_task_of_almost_a_megabyte_is_run(pump: Pump):
    task = "stub:say=read " + "x" * 999_000
    job = pump.settled(pump.json("claude_run_async", task=task)["jobId"])
    assert job["status"] == "completed"


def test_a_parent_that_is_over_cannot_be_given_children(pump: Pump):
    job_id = pump.json("claude_run_async", task="x")["jobId"]
    pump.settled(job_id)
    said = pump.refusal("claude_run_async", task="late", parentJobId=job_id)
    assert f"Job {job_id} is completed, so it cannot spawn." in said


def test_a_chosen_claude_that_is_missing_fails_the_job_with_what_to_correct(pump: Pump, quarters: House):
    link = quarters.base / "claude"
    link.rename(quarters.base / "away")
    try:
        job = failed(pump, "x")
    finally:
        (quarters.base / "away").rename(link)
    assert job["reason"] == Reason.STARTUP
    assert "Correct CLAUDE_JOBS_CLI, or `cli` in config.toml, or unset it" in job["error"]


def test_a_claude_that_exits_at_once_fails_the_job_with_what_it_said(pump: Pump):
    job = failed(pump, "stub:do=exit")
    assert job["reason"] == Reason.STARTUP
    assert "the stub was told to fail" in job["error"]
    said = pump.refusal("claude_result", jobId=job["jobId"])
    assert "the stub was told to fail" in said


def test_a_claude_that_prints_garbage_around_its_answer_is_still_understood(pump: Pump):
    answer = json.loads(pump.text("claude_run", task="stub:do=garbage stub:say=gold"))
    assert answer["result"] == "gold"


def test_a_claude_that_prints_a_line_of_100_mb_is_bounded_and_still_understood(pump: Pump, quarters: House):
    status = quarters.control("status")
    assert status is not None
    job_id = pump.json("claude_run_async", task="stub:do=bigline stub:say=big")["jobId"]
    assert pump.settled(job_id)["status"] == "completed"
    assert '"big"' in pump.text("claude_result", jobId=job_id)
    peak = Path(f"/proc/{status['pid']}/status")
    if peak.exists():
        [line] = [line for line in peak.read_text().splitlines() if line.startswith("VmHWM")]
        assert int(line.split()[1]) < 300 * 1024
