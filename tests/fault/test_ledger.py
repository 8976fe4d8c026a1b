"""The engine's account against the stubs' own bill: through kills, cancels, resumes, and budgets that run out."""

import math
import os
import sys
from pathlib import Path

import pytest

from jobs.limits.budget import BudgetError
from jobs.model import Job, JobStatus, Reason
from jobs.runner import supervise
from jobs.spec import TaskRequest
from tests.support.spending import Shop, shop
from tests.support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

ENDLESS = 100_000
CALL = 1000 * 2e-6 + 500 * 10e-6
"""US dollars of one call of the stub's."""


async def test_the_ledger_of_fifty_jobs_equals_their_bill_through_kills_cancels_and_resumes(tmp_path: Path):
    async with shop(tmp_path, max_concurrent={0: 50}, max_running=50) as market:
        task = market.task
        kinds = {
            "answers": [task(calls=3, pause=0.01)] * 20,
            "dies": [task(calls=9, pause=0.01, die=2)] * 10,
            "resumes": [task(calls=2, pause=0.01, limited=1)] * 10,
            "cancelled": [task(calls=ENDLESS, pause=0.2)] * 10,
        }
        jobs = await market.start([one for tasks in kinds.values() for one in tasks])
        for each in jobs[40:]:
            await market.speaks(each)
            await market.engine.manager.cancel(each.id)
        over = await market.engine.over(*(each.id for each in jobs))
        _report(market, over)
        assert [each.status for each in over[:20]] == [JobStatus.COMPLETED] * 20
        assert {(each.status, each.attempt) for each in over[20:30]} == {(JobStatus.COMPLETED, 2)}
        assert {(each.status, each.attempt) for each in over[30:40]} == {(JobStatus.COMPLETED, 2)}
        assert {each.status for each in over[40:]} == {JobStatus.CANCELLED}
        bill = market.till.by_session()
        for each in over:
            assert each.usage.cost_usd == pytest.approx(bill[each.session_id or ""], abs=1e-7)
        assert sum(each.usage.cost_usd for each in over) == pytest.approx(market.till.total(), abs=1e-6)

        settled = (await market.engine.store.rollup_under(jobs[0].root_id)).usage.cost_usd
        assert market.engine.store.trees.spent(jobs[0].root_id) == pytest.approx(settled, abs=1e-9)


async def test_a_tree_that_has_used_up_its_budget_ends_what_runs_and_starts_nothing_more(tmp_path: Path):
    live = 8
    async with shop(tmp_path, max_concurrent={0: live}) as market:
        budget = 20.5 * CALL
        jobs = await market.start([market.task(calls=ENDLESS, pause=0.5)] * (live + 4), usd=budget)
        over = await market.engine.over(*(each.id for each in jobs))
        _report(market, over)
        assert {(each.status, each.reason) for each in over} == {(JobStatus.FAILED, Reason.BUDGET_EXHAUSTED)}
        assert {each.attempt for each in over[live:]} == {0}, "a job was started that nothing was left for"
        assert budget <= market.till.total() <= budget + live * CALL
        assert sum(each.usage.cost_usd for each in over) == pytest.approx(market.till.total(), abs=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a job is looked at on a beat")
async def test_a_used_up_budget_is_heard_of_when_it_is_written_and_not_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("TICK", "DEAF_TICK"):
        monkeypatch.setattr(supervise, name, 3600.0)
    async with shop(tmp_path) as market:
        [job] = await market.start([TaskRequest(task=market.task(calls=ENDLESS, pause=0.5), max_budget_usd=2.5 * CALL)])
        [over] = await market.engine.over(job.id)
        assert over.reason is Reason.BUDGET_EXHAUSTED
        assert market.till.total() <= (2.5 + 1) * CALL


async def test_a_jobs_budget_ends_its_subtree_and_not_its_siblings(tmp_path: Path):
    async with shop(tmp_path, max_concurrent={0: 8}) as market:
        greedy, modest = await market.start(
            [
                TaskRequest(task=market.task(calls=ENDLESS, pause=0.3), max_budget_usd=6.5 * CALL),
                TaskRequest(task=market.task(calls=8, pause=0.3), max_budget_usd=100 * CALL),
            ]
        )
        [child] = await market.start([market.task(calls=ENDLESS, pause=0.3)], parent=greedy.id)
        over = await market.engine.over(greedy.id, child.id, modest.id)
        assert [each.reason for each in over] == [Reason.BUDGET_EXHAUSTED] * 2 + [Reason.COMPLETED]
        assert over[0].usage.cost_usd + over[1].usage.cost_usd <= 6.5 * CALL + 2 * CALL


async def test_what_a_running_job_has_spent_counts_when_its_child_is_spawned(tmp_path: Path):
    async with shop(tmp_path) as market:
        [parent] = await market.start([TaskRequest(task=market.task(calls=ENDLESS, pause=5), max_budget_usd=10 * CALL)])

        async def is_noted() -> bool:
            return market.engine.store.trees.spent(parent.path) > 0

        await until(is_noted)
        with pytest.raises(BudgetError, match="more than is left") as refused:
            await market.start([TaskRequest(task="x", max_budget_usd=10 * CALL)], parent=parent.id)
        assert "0.0680 USD of 0.0700 USD" in str(refused.value)
        await market.engine.manager.cancel(parent.id)
        await market.engine.over(parent.id)


async def test_the_cli_is_told_what_is_left_when_it_starts(tmp_path: Path):
    async with shop(tmp_path, max_concurrent={0: 1}) as market:
        record = tmp_path / "argv"
        jobs = await market.start([market.task(calls=2, argv=record)] * 2, usd=10 * CALL)
        await market.engine.over(*(each.id for each in jobs))
        told = [word for line in record.read_text().splitlines() for word in line.split() if "budget" in word]
        assert told == ["--max-budget-usd=0.0700", "--max-budget-usd=0.0560"]


async def test_a_budget_that_the_last_call_uses_up_leaves_the_answer_standing(tmp_path: Path):
    async with shop(tmp_path) as market:
        [job] = await market.start([TaskRequest(task=market.task(calls=3), max_budget_usd=3 * CALL)])
        [over] = await market.engine.over(job.id)
        assert over.status is JobStatus.COMPLETED


def _report(market: Shop, jobs: list[Job]) -> None:
    ledger = math.fsum(each.usage.cost_usd for each in jobs)
    print(f"ledger {ledger:.9f} USD, bill {market.till.total():.9f} USD, {len(jobs)} jobs, {os.cpu_count()} cores")
