"""A right that a person has switched off since a job was admitted: the job does not run with it."""

from collections.abc import Iterator

import pytest

from tests.support.engines import House, Pump, house
from tests.support.tokens import running

pytestmark = pytest.mark.timeout(300)

OFF = "bypassPermissions is switched off"


@pytest.fixture
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_MAX_RUNNING="1") as built:
        allow_bypass(built, allowed=True)
        yield built


def allow_bypass(made: House, *, allowed: bool) -> None:
    made.endpoint.paths.config.write_text(f"allow_bypass_permissions = {str(allowed).lower()}\n")


def stop_engine(made: House) -> None:
    made.control("stop")
    made.wait_for_the_engine_to_go()


def is_refused(person: Pump, job_id: str) -> None:
    status = person.settled(job_id)
    assert (status["status"], status["reason"]) == ("failed", "startup")
    assert OFF in status["error"]
    assert "retry" in status["error"]


def test_a_queued_job_does_not_run_with_bypass_once_that_is_off(made: House):
    go, ledger = made.base / "go", made.base / "ledger"
    made.start_engine()
    with made.pump() as person:
        first = running(person, person.json("claude_run_async", task=f"stub:wait={go}")["jobId"])["jobId"]
        task = f"stub:ledger={ledger}"
        bypass = {"task": task, "permissionMode": "bypassPermissions"}
        waits = person.json("claude_run_async", **bypass)["jobId"]
    stop_engine(made)
    allow_bypass(made, allowed=False)
    made.start_engine()
    with made.pump() as person:
        go.touch()
        assert person.settled(first)["status"] == "completed"
        is_refused(person, waits)
        # Nor does a retry, nor a message to it, nor a new job.
        person.json("claude_retry", jobId=waits)
        is_refused(person, waits)
        assert OFF in person.refusal("claude_run_async", **bypass)
        assert not ledger.exists()
    stop_engine(made)
    allow_bypass(made, allowed=True)
    made.start_engine()
    with made.pump() as person:
        person.json("claude_retry", jobId=waits)
        assert person.settled(waits)["status"] == "completed"
        assert ledger.exists()


def test_a_session_of_a_job_with_bypass_does_not_go_on_once_that_is_off(made: House):
    made.start_engine()
    with made.pump() as person:
        job_id = person.json("claude_run_async", task="x", permissionMode="bypassPermissions")["jobId"]
        assert person.settled(job_id)["status"] == "completed"
    stop_engine(made)
    allow_bypass(made, allowed=False)
    made.start_engine()
    with made.pump() as person:
        assert OFF in person.refusal("claude_send", jobId=job_id, task="go on")
