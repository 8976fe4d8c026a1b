"""What it all cost, and one tree: what is stored, and what running attempts have used so far."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.activity import Activity
from jobs.errors import NotFoundError
from jobs.limits.account_budgets import AccountFigures
from jobs.model import Job, JobStatus, Usage
from jobs.spending import local_day
from jobs.store.live import LiveStore
from jobs.store.sqlite import SqliteStore
from server.feed import costs
from server.feed.costs import Costs, CostSources
from tests.contract.support import admit, admit_root, ending, start
from tests.unit.feed.world import Hands

pytestmark = pytest.mark.anyio

NOON = 1_800_000_000.0


class Till:
    """Costs over a real store, with running attempts and accounts that a test sets."""

    def __init__(self, database: SqliteStore, store: LiveStore) -> None:
        self.store = store
        self.clock = Hands()
        self.clock.at = NOON
        self.running: dict[str, Activity] = {}
        self.figures: list[AccountFigures] = []
        self.costs = Costs(
            CostSources(
                store=store,
                sums=database,
                figures=lambda: self.figures,
                account_names=self._names,
                activity_of=lambda job: self.running.get(job.id),
                clock=self.clock,
            )
        )

    async def _names(self) -> Mapping[str, str]:
        return {"01234567": "me@example.org"}

    def runs(self, job_id: str, model: str | None, usage: Usage) -> None:
        self.running[job_id] = Activity(doing="thinking", last_output_at=1.0, usage=usage, model=model)

    async def end(self, job_id: str, cost_usd: float, model: str, *, at: float = NOON) -> Job:
        attempt = await start(self.store, job_id)
        outcome = ending(JobStatus.COMPLETED, usage=Usage(cost_usd=cost_usd, input_tokens=10, output_tokens=1))
        outcome = replace(outcome, model=model, account="0123456789abcdef")
        return await self.store.settle(job_id, attempt.number, outcome, at=at)


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with SqliteStore.open(tmp_path / "jobs.db") as database:
        yield Till(database, await LiveStore.over(database))


async def test_costs_have_running_attempts_by_depth_model_and_tree(till: Till) -> None:
    await admit_root(till.store, "j1")
    await start(till.store, "j1")
    await admit(till.store, "b2", "j2", "j3", parent_id="j1")
    await till.end("j2", 0.5, "haiku")
    await start(till.store, "j3")
    till.runs("j1", "opus", Usage(cost_usd=1.0, input_tokens=7, output_tokens=3))
    till.runs("j3", "haiku", Usage(cost_usd=0.25, input_tokens=5, output_tokens=2))

    found = await till.costs.all()
    assert found["ok"] is True
    assert found["totalUsd"] == 1.75
    assert found["depths"] == [
        {"depth": 0, "jobs": 1, "costUsd": 1.0, "inputTokens": 7, "outputTokens": 3},
        {"depth": 1, "jobs": 2, "costUsd": 0.75, "inputTokens": 15, "outputTokens": 3},
    ]
    assert found["models"] == [
        {"model": "opus", "attempts": 1, "costUsd": 1.0, "inputTokens": 7, "outputTokens": 3},
        {"model": "haiku", "attempts": 2, "costUsd": 0.75, "inputTokens": 15, "outputTokens": 3},
    ]
    [tree] = found["trees"]
    assert tree == {"rootId": "j1", "title": "task of j1", "jobs": 3, "costUsd": 1.75, "createdAt": 1.0}
    one = await till.costs.of_tree("j1")
    assert one == {
        "ok": True,
        "rootId": "j1",
        "title": "task of j1",
        "costUsd": 1.75,
        "depths": found["depths"],
        "models": found["models"],
    }


async def test_a_tree_that_only_runs_is_among_the_dearest_where_it_is(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "MOST_TREES", 2)
    for number, cost in enumerate((0.25, 0.5, 0.75)):
        await admit_root(till.store, f"j{number}")
        await till.end(f"j{number}", cost, "opus")
    await admit_root(till.store, "j9")
    await start(till.store, "j9")
    till.runs("j9", "opus", Usage(cost_usd=0.6))
    assert [tree["rootId"] for tree in (await till.costs.all())["trees"]] == ["j2", "j9"]


async def test_days_and_accounts_say_what_was_spent_and_may_be(till: Till) -> None:
    await admit(till.store, "b1", "j1", "j2", "j3")
    await till.end("j1", 0.5, "opus")
    await till.end("j2", 0.25, "opus", at=NOON - 3 * 86_400)
    await till.end("j3", 9.0, "opus", at=NOON - 60 * 86_400)
    till.figures = [
        AccountFigures(account="0123456789abcdef", today=0.75, month=1.0, daily=5.0, monthly=None),
        AccountFigures(account="ffff56789abcdef0", today=0.0, month=0.25, daily=5.0, monthly=None),
    ]
    found = await till.costs.all()
    assert found["days"] == [
        {"day": local_day(NOON - 3 * 86_400), "costUsd": 0.25},
        {"day": local_day(NOON), "costUsd": 0.75},
    ]
    assert found["accounts"] == [
        {"account": "me@example.org", "dayUsd": 0.75, "dayBudgetUsd": 5.0, "monthUsd": 1.0},
        {"account": "ffff5678", "dayUsd": 0.0, "dayBudgetUsd": 5.0, "monthUsd": 0.25},
    ]


async def test_the_costs_of_all_are_read_again_after_some_seconds(till: Till) -> None:
    await admit_root(till.store, "j1")
    before = await till.costs.all()
    await till.end("j1", 0.5, "opus")
    assert await till.costs.all() is before
    till.clock.at += costs.KEPT_SECONDS
    assert (await till.costs.all())["totalUsd"] == 0.5


async def test_a_tree_that_is_not_there_has_no_costs(till: Till) -> None:
    with pytest.raises(NotFoundError):
        await till.costs.of_tree("nobody")
