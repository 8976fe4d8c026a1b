"""A daily and a monthly budget of an account: what is refused, what waits, who is told, and what lets it go on."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engines import House, Pump, house
from tests.support.waiting import until_now

SECONDS = 60.0


@pytest.fixture
def made() -> Iterator[House]:
    with house(ANTHROPIC_API_KEY="sk-ant-api03-a-key-that-no-file-may-hold") as made:
        yield made


def configure(made: House, text: str) -> None:
    made.paths.config.write_text(text)
    made.run("settings")


def waits_for_the_budget(pump: Pump, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def waits() -> bool:
        found.update(pump.json("claude_status", jobId=job_id))
        return bool(found["status"] == "queued" and "paused" in found)

    until_now(waits, SECONDS, "the job that the budget holds back")
    return found


@pytest.mark.parametrize("which", ["daily", "monthly"])
def test_a_used_up_budget_refuses_and_tells_over_a_crash_and_goes_on_when_it_is_raised(made: House, which: str):
    made.start_engine()
    with made.pump() as pump:
        # What was spent before the budget was set counts too.
        pump.settled(pump.json("claude_run_async", task="stub:cost=3")["jobId"])
        configure(made, f"{which}_budget_usd = 5.0\n")
        tasks = ["stub:cost=3", "stub:say=later"]
        first, second = pump.json("claude_run_batch_async", tasks=tasks, maxConcurrent=1)["jobIds"]
        assert pump.settled(first)["status"] == "completed"
        waiting = waits_for_the_budget(pump, second)
        assert waiting["waitingFor"] == "limit"
        assert f"the {which} budget of 5.0000 USD is used up" in waiting["paused"]
        assert re.search(r"paused until \d{4}-\d\d-\d\dT00:00:00", waiting["paused"])

        refused = pump.refusal("claude_run_async", task="x")
        assert f"the {which} budget of 5.0000 USD is used up, with 6.00" in refused
        assert "Finish with what you have, without spawning" in refused
        assert f"{which}_budget_usd" in refused

    made.kill_engine()
    made.wait_for_the_engine_to_go()

    told = made.run("run", "x")
    assert told.returncode == 1
    assert "Wait, or raise that setting" in told.stderr
    figures = "spent $6.00 of $5.00 today" if which == "daily" else "$6.00 of $5.00 this month"
    for command in (("engine", "status"), ("dashboard",)):
        shown = made.run(*command).stdout
        assert figures in shown, command
        assert f"the {which} budget of 5.0000 USD is used up" in shown
    assert f"setting {which}_budget_usd" in made.run("doctor").stdout
    assert "raise that setting in `config.toml`" in made.run("engine", "status").stdout
    [row] = json.loads(made.run("dashboard", "--json").stdout)["spending"]
    assert (row["todayUsd"], row[f"{which}BudgetUsd"]) == (6.0, 5.0)

    configure(made, f"{which}_budget_usd = 9.0\n")
    with made.pump() as pump:
        assert pump.settled(second)["status"] == "completed"
        pump.settled(pump.json("claude_run_async", task="x")["jobId"])


def test_another_account_goes_on_and_a_repeated_submission_is_still_answered(made: House):
    made.start_engine()
    configure(made, "daily_budget_usd = 1.0\n")
    with made.pump() as pump, made.pump({"ANTHROPIC_API_KEY": "another-key"}) as other:
        asked = {"task": "stub:cost=2", "idempotencyKey": "once"}
        first = pump.json("claude_run_async", **asked)["jobId"]
        pump.settled(first)
        assert "the daily budget" in pump.refusal("claude_run_async", task="x")
        assert pump.json("claude_run_async", **asked)["jobId"] == first
        assert other.settled(other.json("claude_run_async", task="x")["jobId"])["status"] == "completed"
    shown = made.run("engine", "status").stdout
    assert len(re.findall(r"account [0-9a-f]{8}.* spent", shown)) == 2


def test_pruning_gives_no_money_back(made: House):
    made.start_engine()
    configure(made, "monthly_budget_usd = 1.0\n")
    with made.pump() as pump:
        job = pump.json("claude_run_async", task="stub:cost=2")["jobId"]
        pump.settled(job)
        assert job in made.run("prune", job).stdout
        assert "the monthly budget" in pump.refusal("claude_run_async", task="x")
