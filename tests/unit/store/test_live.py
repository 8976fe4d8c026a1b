"""The memory in front of the database says what the database says, whatever is cancelled, refused or pruned."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from jobs import live_trees
from jobs.limits.budget import BudgetError, Ledger
from jobs.model import JobStatus, Outcome, Reason, Usage
from jobs.ports import NewJob, Submission
from jobs.recursion_manager import RecursionManager
from jobs.scheduler import Scheduler
from jobs.spec import JobSpec
from jobs.store.live import LiveStore
from jobs.store.sqlite import SqliteStore
from orchestration.limits import TreeLimits
from tests.contract.support import admit, admit_root, ending, ids, known, start
from tests.unit.jobs.support import OpenGate

pytestmark = pytest.mark.anyio

LIMITS = TreeLimits(max_depth=9, max_children=999, max_nodes=999)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "jobs.db") as opened:
        yield opened


def asking(number: int, **spec: float) -> Submission:
    job = NewJob(id=f"jchild{number}", spec=JobSpec(task="x", cwd="/", **spec))  # type: ignore[arg-type]
    return Submission(batch_id=f"bchild{number}", jobs=[job], parent_id="jroot")


async def rooted(database: SqliteStore, **bounds: float) -> tuple[LiveStore, RecursionManager]:
    """A running root with a budget for what is below it."""
    store = LiveStore(database)
    manager = RecursionManager(LIMITS, store, Scheduler(LIMITS, 9, OpenGate()), ledger=Ledger(store.trees))
    spec = JobSpec(task="x", cwd="/", **bounds)  # type: ignore[arg-type]
    await manager.admit(Submission(batch_id="broot", jobs=[NewJob(id="jroot", spec=spec)], as_root=True))
    await start(store, "jroot")
    return store, manager


@pytest.mark.parametrize(
    ("bounds", "asked", "fit"), [({"max_budget_usd": 1.0}, {"max_budget_usd": 0.3}, 3), ({"max_jobs": 4}, {}, 4)]
)
async def test_spawns_that_come_together_never_pass_a_budget_together(
    database: SqliteStore, bounds: dict[str, float], asked: dict[str, float], fit: int
):
    store, manager = await rooted(database, **bounds)
    refused: list[BudgetError] = []

    async def spawn(number: int) -> None:
        try:
            await manager.admit(asking(number, **asked))
        except BudgetError as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(spawn, number)
    assert (len(refused), len(await store.jobs_under("jroot"))) == (10 - fit, 1 + fit)
    assert await database.jobs_under("jroot") == await store.jobs_under("jroot")


async def test_a_spawn_that_is_not_written_gives_back_what_it_had_reserved(database: SqliteStore):
    _, manager = await rooted(database, max_budget_usd=1.0)
    await manager.admit(asking(1, max_budget_usd=0.5))
    with pytest.raises(Exception, match="UNIQUE"):
        await manager.admit(asking(1, max_budget_usd=0.4))
    await manager.admit(asking(2, max_budget_usd=0.5))


async def test_a_caller_that_is_cancelled_in_the_middle_of_a_write_leaves_memory_as_the_database(database: SqliteStore):
    store = LiveStore(database)
    await admit(store, "b1", *(f"j{number}" for number in range(20)))
    for number in range(20):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(start, store, f"j{number}")
                for _ in range(number % 5):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
    assert await store.jobs_under("b1") == await database.jobs_under("b1")
    assert await store.rollup_under("b1") == await database.rollup_under("b1")


async def test_trees_that_are_over_leave_memory_and_are_answered_all_the_same(
    database: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_trees, "KEPT_JOBS", 2)
    store = LiveStore(database)
    for number in range(5):
        await admit_root(store, f"j{number}")
        await start(store, f"j{number}", token_hash=f"t{number}")
        await store.settle(f"j{number}", 1, ending(JobStatus.FAILED), at=3.0)
    assert [f"j{number}" in store.trees for number in range(5)] == [False, False, False, True, True]
    assert ids(await store.jobs([f"j{number}" for number in range(5)])) == [f"j{number}" for number in range(5)]
    assert (await store.rollup_under("j0")).counts == {JobStatus.FAILED: 1}
    assert await store.caller("t0") is None
    again = await store.requeue("j0")
    assert again is not None
    assert ids(await store.unfinished()) == ["j0"]
    await start(store, "j0", token_hash="t9")
    caller = await store.caller("t9")
    assert caller is not None
    assert caller.id == "j0"


async def test_a_new_engine_knows_what_runs_what_waits_and_who_may_call(database: SqliteStore):
    first = LiveStore(database)
    await admit(first, "b1", "j1", "j2")
    attempt = await start(first, "j1", token_hash="secret")
    await first.settle("j1", attempt.number, ending(JobStatus.QUEUED), at=3.0)
    await start(first, "j1", token_hash="another")
    await admit(first, "b2", "j3", parent_id="j1")
    second = await LiveStore.over(database)
    assert await second.jobs_under("b1") == await first.jobs_under("b1")
    assert await second.attempt("j1", 2) == await first.attempt("j1", 2)
    assert await second.caller("another") == await known(first, "j1")
    assert await second.caller("secret") is None
    assert await second.rollup_batch("b2") == await first.rollup_batch("b2")


async def test_what_follows_an_attempt_is_decided_without_a_look_at_the_database(tmp_path: Path):
    asked = Outcome(
        reason=Reason.COMPLETED,
        status=JobStatus.QUEUED,
        result="half a pair: \udc80",
        frame={"result": "x", "structured_output": {"subtasks": ["one"]}},
        usage=Usage(cost_usd=0.5, turns=2),
        exit_code=0,
    )
    async with SqliteStore.open(tmp_path / "jobs.db") as database:
        store = LiveStore(database)
        await admit_root(store, "j1")
        await start(store, "j1", token_hash="secret")
        await store.record_launch("j1", 1, pid=7, pid_start=1.0)
        await store.settle("j1", 1, asked, at=3.0)
        kept = await database.attempt("j1", 1)
        assert await store.caller("secret") is None
    # The database is closed.
    assert kept is not None
    assert await store.attempt("j1", 1) == kept


async def test_a_tree_that_was_deleted_is_nowhere(database: SqliteStore):
    store = LiveStore(database)
    await admit_root(store, "j1")
    await start(store, "j1")
    await store.settle("j1", 1, ending(JobStatus.COMPLETED), at=3.0)
    assert await store.delete_tree("j1")
    assert await store.job("j1") is None
    assert await store.requeue("j1") is None
    assert await store.jobs_under("j1") == []
    assert "j1" not in store.trees


async def test_a_tree_that_is_tried_again_stays_in_memory_though_another_one_ends_at_that_moment(
    database: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_trees, "KEPT_JOBS", 3)
    store = LiveStore(database)
    await admit(store, "b1", "j1", "j2")
    await admit(store, "b2", "j3", "j4")
    for job_id in ("j1", "j2", "j3"):
        await store.fail_queued(job_id, ending(JobStatus.FAILED), at=1.0)

    async def end_the_other() -> None:
        await store.fail_queued("j4", ending(JobStatus.FAILED), at=2.0)

    async with anyio.create_task_group() as group:
        group.start_soon(end_the_other)
        group.start_soon(store.requeue, "j1")
    assert await store.unfinished() == await database.unfinished()
    assert ids(await store.unfinished()) == ["j1"]
    await start(store, "j1", token_hash="token")
    assert await store.caller("token") == await database.caller("token")
