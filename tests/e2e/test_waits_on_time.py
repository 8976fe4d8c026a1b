"""A job's call that waits answers when it was asked to, also where others have taken the job's slot meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engines import House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

SILENCE = 20.0
"""Seconds of silence after which a job counts as stalled here; the jobs of these tests write nothing."""


@pytest.fixture
def narrow() -> Iterator[House]:
    """A house in which one job runs at a time."""
    with house(CLAUDE_JOBS_MAX_RUNNING="1", CLAUDE_JOBS_SILENCE_SECONDS=str(SILENCE)) as made:
        yield made


def parent(made: House, person: Pump) -> dict[str, Any]:
    gate = made.base / "parent"
    return running(person, person.json("claude_run_async", task=f"stub:wait={gate}")["jobId"])


def test_a_wait_answers_in_its_time_and_its_job_is_not_taken_for_stalled(narrow: House):
    gate, ledger = narrow.base / "child", narrow.base / "ledger"
    with narrow.pump() as person:
        waiter = parent(narrow, person)
        with pump_of_job(narrow, attempt_directory(narrow, waiter)) as job:
            # The child holds the only slot all the while.
            child = job.json("claude_run_async", task=f"stub:wait={gate} stub:ledger={ledger}")["jobId"]
            for _ in range(2):
                reply = job.json("claude_wait", jobIds=[child], timeoutSeconds=2)
                assert (reply["done"], reply["pending"]) == ([], 1)
                assert job.json("claude_status", jobId=child)["status"] == "running"
            assert person.json("claude_recursion_stats")["running"] == 2
            gate.touch()
            assert job.json("claude_wait", jobIds=[child])["pending"] == 0
        (narrow.base / "parent").touch()
        assert person.settled(waiter["jobId"])["reason"] == "completed"


@pytest.mark.parametrize("tool", ["claude_run", "claude_run_batch"])
def test_a_run_answers_once_its_job_is_over_though_the_slot_went_to_another(narrow: House, tool: str):
    gate, began, other_began = (narrow.base / name for name in ("child", "began", "other"))
    task = f"stub:say=four stub:wait={gate} stub:ledger={began}"
    with narrow.pump() as person:
        waiter = parent(narrow, person)
        with pump_of_job(narrow, attempt_directory(narrow, waiter)) as job:
            arguments = {"task": task} if tool == "claude_run" else {"tasks": [task]}
            call = job.send("tools/call", name=tool, arguments=arguments)
            until_now(began.exists, 20.0, "the child")
            other = person.json("claude_run_async", task=f"stub:wait=/nonexistent stub:ledger={other_began}")["jobId"]
            gate.touch()
            assert "four" in job.answer(call)["content"][0]["text"]
            until_now(other_began.exists, 20.0, "the other job")
            assert person.json("claude_status", jobId=other)["status"] == "running"
        (narrow.base / "parent").touch()
        assert person.settled(waiter["jobId"])["reason"] == "completed"
