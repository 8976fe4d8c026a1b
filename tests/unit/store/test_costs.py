"""Sums of what is stored by depth, model and tree, and that they read no row of a job or an attempt."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.costs import DepthCost, ModelCost
from jobs.model import JobStatus, Usage
from jobs.ports import Submission
from jobs.store.queries import SQL
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, admit_root, ending, start, submission

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "jobs.db") as opened:
        yield opened


def used(cents: int) -> Usage:
    return Usage(cost_usd=cents / 100, input_tokens=10 * cents, output_tokens=cents)


async def attempt(
    store: SqliteStore, job_id: str, cents: int, model: str | None, status: JobStatus = JobStatus.COMPLETED
) -> None:
    claimed = await start(store, job_id, at=2.0)
    outcome = replace(ending(status, usage=used(cents), result="r" * 5000), model=model)
    await store.settle(job_id, claimed.number, outcome, at=5.0 + cents)


async def two_trees(store: SqliteStore) -> None:
    await admit_root(store, "j1")
    await attempt(store, "j1", 25, "opus", JobStatus.QUEUED)
    await start(store, "j1")
    await admit(store, "b2", "j2", "j3", parent_id="j1")
    await attempt(store, "j2", 50, "haiku")
    await attempt(store, "j3", 100, "opus", JobStatus.FAILED)
    await admit(store, "b9", "j8", "j9", tasks={"j8": "the first\nof two"})
    await attempt(store, "j9", 200, None)
    await attempt(store, "j8", 0, "haiku")


async def test_costs_by_depth_are_those_of_all_attempts_that_are_over(store: SqliteStore) -> None:
    await two_trees(store)
    assert await store.depth_costs() == [
        DepthCost(depth=0, jobs=1, usage=used(25)),
        DepthCost(depth=1, jobs=4, usage=used(350)),
    ]
    assert await store.depth_costs("j1") == [
        DepthCost(depth=0, jobs=1, usage=used(25)),
        DepthCost(depth=1, jobs=2, usage=used(150)),
    ]
    assert await store.depth_costs("nobody") == []


async def test_costs_by_model_leave_out_attempts_that_run(store: SqliteStore) -> None:
    await two_trees(store)
    assert await store.model_costs() == [
        ModelCost(model=None, attempts=1, usage=used(200)),
        ModelCost(model="opus", attempts=2, usage=used(125)),
        ModelCost(model="haiku", attempts=2, usage=used(50)),
    ]
    assert await store.model_costs("j1") == [
        ModelCost(model="opus", attempts=2, usage=used(125)),
        ModelCost(model="haiku", attempts=1, usage=used(50)),
    ]


async def test_the_dearest_trees_come_first_with_title_and_end_and_others_on_request(store: SqliteStore) -> None:
    await two_trees(store)
    both = await store.tree_costs(limit=5)
    assert [(tree.root_id, tree.jobs, tree.cost_usd, tree.ended_at) for tree in both] == [
        ("b9", 2, 2.0, 205.0),
        ("j1", 3, 1.75, None),
    ]
    assert [tree.title for tree in both] == ["the first\nof two", "task of j1"]
    assert await store.tree_costs(limit=1) == both[:1]
    assert await store.tree_costs(limit=1, also=["j1", "nobody", "b9"]) == both


async def test_a_tree_keeps_its_budget_in_its_costs(store: SqliteStore) -> None:
    await store.admit(replace(submission("b1", "j1"), max_budget_usd=3.0), lambda _: None)
    [tree] = await store.tree_costs(limit=5)
    assert (tree.max_budget_usd, tree.cost_usd, tree.created_at) == (3.0, 0.0, 1.0)


async def test_the_budget_of_a_root_job_is_that_of_its_tree_and_one_of_a_batchs_job_is_not(store: SqliteStore) -> None:
    def with_budget(asked: Submission) -> Submission:
        jobs = [replace(job, spec=replace(job.spec, max_budget_usd=2.0)) for job in asked.jobs]
        return replace(asked, jobs=jobs)

    await store.admit(with_budget(submission("b1", "j1", as_root=True)), lambda _: None)
    await store.admit(with_budget(submission("b2", "j2")), lambda _: None)
    found = await store.tree_costs(limit=5)
    assert {tree.root_id: tree.max_budget_usd for tree in found} == {"j1": 2.0, "b2": None}


@pytest.mark.parametrize(
    "name", ["depth_costs", "depth_costs_of_tree", "model_costs", "model_costs_of_tree", "tree_costs"]
)
async def test_sums_are_made_in_indexes(store: SqliteStore, tmp_path: Path, name: str) -> None:
    await two_trees(store)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        values: object = {"limit": 5, "also": "[]"} if name == "tree_costs" else ("j1",) * SQL[name].count("?")
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values)]  # type: ignore[arg-type]
    sums = [step for step in plan if "_costs" in step]
    assert sums
    assert all("COVERING INDEX" in step for step in sums), plan
