"""`claude-jobs limits`: what a live tree may still use is changed by a person, from outside, and holds at once."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from server.client.connect import control
from server.client.wire import ClientError, Hello, Role
from tests.support.engines import FAKES, House, house
from tests.support.tokens import attempt_directory, pump_of_job, running, token_of
from tests.support.waiting import until_now

SPENDING = str(FAKES / "spending_stub.py")
CALL_USD = 0.007
"""US dollars of a call of 1,000 tokens read and 500 written that the spending stub makes."""


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def limits(made: House, *arguments: str) -> dict[str, Any]:
    done = made.run("limits", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def kill_the_engine(made: House) -> None:
    made.kill_engine()
    made.wait_for_the_engine_to_go()


def test_a_raised_limit_starts_what_waits_and_holds_over_the_death_of_the_engine():
    with house() as made:
        gate, ledger = made.base / "gate", made.base / "ledger"
        task = f"stub:wait={gate} stub:ledger={ledger}"
        batch = made.run("batch", "--detach", "--max-concurrent", "1", *[task] * 3).stdout.strip()
        until_now(lambda: lines_of(ledger) == 1, 30.0, "the first job")
        assert limits(made, batch)["maxConcurrent"] == 1

        limits(made, batch, "--max-concurrent", "2", "--budget-usd", "5", "--timeout", "900", "--max-jobs", "40")
        until_now(lambda: lines_of(ledger) == 2, 30.0, "the second job")
        kill_the_engine(made)
        after = limits(made, batch)
        assert (after["budgetUsd"], after["maxJobs"], after["maxConcurrent"]) == (5.0, 40, 2)
        assert (after["running"], after["queued"], after["jobsBelow"]) == (2, 1, 3)
        assert lines_of(ledger) == 2

        assert limits(made, batch, "--max-budget-usd", "6")["budgetUsd"] == 6.0
        limits(made, batch, "--max-budget-usd", "5", "--max-concurrent", "3")
        until_now(lambda: lines_of(ledger) == 3, 30.0, "the third job")
        told = made.run("limits", batch[:6]).stdout
        assert "$5.0000; $0.0000 spent, $5.0000 left" in told
        assert "40 at most, 37 more" in told
        assert "3 at most" in told
        gate.touch()


def test_a_job_and_all_below_it_may_run_fewer_at_once_and_no_job_raises_its_own_limits():
    with house() as made:
        gate, ledger = made.base / "gate", made.base / "ledger"
        with made.pump() as pump:
            parent = pump.json("claude_run_async", task=f"stub:wait={gate}")["jobId"]
            directory = attempt_directory(made, running(pump, parent))
            assert limits(made, parent, "--max-concurrent", "2")["maxConcurrent"] == 2
            tasks = [f"stub:wait={gate} stub:ledger={ledger}"] * 3
            with pump_of_job(made, directory) as job:
                batch = job.json("claude_run_batch_async", tasks=tasks)["batchId"]
            until_now(lambda: lines_of(ledger) == 1, 30.0, "the one that fits next to its parent")
            kill_the_engine(made)
            found = limits(made, parent)
            assert (found["running"], found["queued"], found["maxConcurrent"]) == (2, 2, 2)

            refused = made.run("limits", batch, "--budget-usd", "3")
            assert refused.returncode == 1
            assert f"the job {parent} that started it" in refused.stderr

            own = Hello(cwd="/", role=Role.CONTROL, token=token_of(directory))
            with pytest.raises(ClientError):
                control(made.endpoint, {"do": "limits", "id": parent, "set": {"max_concurrent": 9}}, own)
            limits(made, parent, "--max-concurrent", "4")
            until_now(lambda: lines_of(ledger) == 3, 30.0, "the others")
            gate.touch()


def test_a_budget_below_what_is_spent_says_so_and_then_ends_what_runs():
    with house(CLAUDE_JOBS_CLI=SPENDING) as made:
        gate = made.base / "gate"
        with made.pump() as pump:
            job = pump.json("claude_run_async", task=f"stub:calls=2 stub:wait={gate}")["jobId"]
            until_now(lambda: limits(made, job)["spentUsd"] >= 2 * CALL_USD - 1e-9, 30.0, "two calls")

            refused = made.run("limits", job, "--budget-usd", "0.01")
            assert refused.returncode == 1
            assert "0.0140 USD have been spent already" in refused.stderr
            assert "1 running job ends as budget_exhausted" in refused.stderr
            assert "--yes" in refused.stderr
            assert limits(made, job)["budgetUsd"] is None
            assert pump.json("claude_status", jobId=job)["status"] == "running"

            limits(made, job, "--budget-usd", "0.01", "--yes")
            ended = pump.settled(job)
            assert (ended["status"], ended["reason"]) == ("failed", "budget_exhausted")

            # What failed by its budget can be given more, and goes on.
            gate.touch()
            told = made.run("limits", job, "--budget-usd", "1")
            assert f"claude-jobs retry --subtree {job}" in told.stderr
            assert made.run("retry", job).returncode == 0
            assert pump.settled(job)["status"] == "completed"


def test_a_deadline_from_now_on_ends_what_runs_and_what_waits():
    with house() as made:
        gate = made.base / "gate"
        batch = made.run("batch", "--detach", "--max-concurrent", "1", *[f"stub:wait={gate}"] * 2).stdout.strip()
        until_now(lambda: limits(made, batch)["running"] == 1, 30.0, "the first job")
        began = time.monotonic()
        limits(made, batch, "--timeout", "1")
        waited = made.run("wait", batch)
        assert waited.returncode == 1
        assert time.monotonic() - began < 30.0
        with made.pump() as pump:
            reasons = [job["reason"] for job in pump.json("claude_list_jobs", under=batch, limit=5)]
        assert reasons == ["deadline", "deadline"]


@pytest.mark.parametrize("seconds", ["1e12", "1e300"])
def test_a_deadline_that_no_calendar_has_is_shown_as_its_end(seconds: str):
    with house() as made, made.pump() as pump:
        task = f"stub:wait={made.base}/never"
        alone = pump.json("claude_run_async", task=task, subtreeSeconds=float(seconds))["jobId"]
        batch = made.run("batch", "--detach", task).stdout.strip()
        limits(made, batch, "--timeout", seconds)
        for each in (alone, batch):
            assert limits(made, each)["deadline"].startswith(("9998-", "9999-"))
            assert "in 2" in made.run("limits", each).stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget-usd", "0"], "--budget-usd: 0.0 is not a number above 0"),
        (["--budget-usd", "nan"], "--budget-usd: nan is not a number above 0"),
        (["--timeout", "-1"], "--timeout: -1.0 is not a number above 0"),
        (["--max-jobs", "5000"], "the most jobs of a tree. The setting `max_jobs` allows more"),
        (["--max-concurrent", "0"], "--max-concurrent: 0 is less than 1"),
    ],
)
def test_a_value_that_cannot_be_is_named(idle: tuple[House, str], options: list[str], said: str):
    made, job = idle
    refused = made.run("limits", job, *options)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert limits(made, job)["budgetUsd"] is None


@pytest.fixture(scope="module")
def idle():
    """A house in which one job is over that failed, so that its limits may be changed."""
    with house() as made:
        yield made, made.run("run", "--detach", "stub:exit=3").stdout.strip()


def test_what_has_completed_and_what_is_unknown_has_no_limits_to_change(idle: tuple[House, str]):
    made, _ = idle
    over = made.run("run", "--detach", "x").stdout.strip()
    made.run("wait", over)
    refused = made.run("limits", over, "--max-jobs", "3")
    assert refused.returncode == 1
    assert f"All of {over} has completed" in refused.stderr
    unknown = made.run("limits", "jnosuch")
    assert unknown.returncode == 1
    assert "No job or batch has the id 'jnosuch'" in unknown.stderr
