"""The time of a tree and of a subtree: what waits is failed, what runs is ended, nothing more is spawned."""

from pathlib import Path
from typing import Any

import pytest

from jobs.limits.budget import BudgetError
from jobs.model import Job, JobStatus, Reason
from jobs.settings_sources import load_here
from jobs.spec import TaskRequest
from jobs.validation import TreeBounds, timeout_at
from tests.support.spending import shop
from tests.unit.jobs.support import TORTURE_STUB, Parts, parts

pytestmark = pytest.mark.anyio


async def bounded(engine: Parts, seconds: float, *tasks: str) -> list[Job]:
    admission = await engine.manager.submit(
        tasks, client_context=engine.client_context, bounds=TreeBounds(seconds=seconds)
    )
    return list(admission.jobs)


async def test_a_job_that_waits_is_failed_when_the_trees_time_is_over(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 1}) as engine:
        first, second = await bounded(engine, 0.2, "hold", "x")
        late = await engine.reaches(second.id, JobStatus.FAILED)
        assert late.reason is Reason.DEADLINE
        assert "before it could start" in (late.error or "")
        assert engine.runner.started == [first.id]
        engine.runner.release(first.id)
        await engine.over(first.id)


async def test_a_tree_whose_time_was_over_before_the_engine_came_back_starts_nothing(tmp_path: Path):
    async with parts(tmp_path) as engine:
        engine.throttle.of("").on_usage_limit(engine.clock.now() + 1000, "five_hour")
        [waiting] = await bounded(engine, 60.0, "x")
    async with parts(tmp_path, store=engine.store) as later:
        later.clock.moved = 100.0
        await later.manager.resume()
        [late] = await later.over(waiting.id)
        assert (late.status, late.reason, later.runner.started) == (JobStatus.FAILED, Reason.DEADLINE, [])


async def test_in_a_pause_the_deadline_of_what_waits_still_counts(tmp_path: Path):
    async with parts(tmp_path) as engine:
        engine.throttle.of("").on_usage_limit(engine.clock.now() + 1000, "five_hour")
        [waiting] = await bounded(engine, 0.1, "x")
        [late] = await engine.over(waiting.id)
        assert late.reason is Reason.DEADLINE


async def test_what_runs_is_ended_when_the_trees_time_is_over(tmp_path: Path):
    async with parts(tmp_path, processes=True, cli=TORTURE_STUB) as engine:
        [running] = await bounded(engine, 1.0, "stub:do=silent")
        [over] = await engine.over(running.id)
        assert (over.status, over.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


async def test_after_the_deadline_nothing_more_is_spawned(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [parent] = await bounded(engine, 60.0, "hold")
        await engine.reaches(parent.id, JobStatus.RUNNING)
        engine.clock.moved = 100.0
        with pytest.raises(BudgetError, match=r"The time of tree .* is over"):
            await engine.run("x", parent=parent.id)
        engine.runner.release(parent.id)
        await engine.over(parent.id)


async def test_the_time_that_a_job_is_given_bounds_what_stands_below_it_and_not_its_siblings(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 8}) as engine:
        tasks = (TaskRequest(task="hold", subtree_seconds=60.0), TaskRequest(task="hold"))
        bounded_one, free = (await engine.manager.submit(tasks, client_context=engine.client_context)).jobs
        children = [(await engine.run("hold", parent=one.id))[0] for one in (bounded_one, free)]
        deadlines = [engine.recursion.ledger.deadline(await engine.job(one)) for one in children]
        assert deadlines == [bounded_one.created_at + 60.0, None]
        more = TaskRequest(task="x", subtree_seconds=90.0)
        with pytest.raises(BudgetError, match="subtreeSeconds: 90 s is more than is left"):
            await engine.manager.submit([more], bounded_one.id, client_context=engine.client_context)
        for one in (*children, bounded_one.id, free.id):
            engine.runner.release(one)
        await engine.over(*children, bounded_one.id, free.id)


async def test_the_jobs_that_a_job_is_given_bound_what_stands_below_it(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 8}) as engine:
        [parent] = (
            await engine.manager.submit([TaskRequest(task="hold", max_jobs=2)], client_context=engine.client_context)
        ).jobs
        [child] = await engine.run("hold", parent=parent.id)
        await engine.run("x", parent=child)
        for spawner in (parent.id, child):
            with pytest.raises(BudgetError, match=r"may have 2 jobs below it, and has that many"):
                await engine.run("x", parent=spawner)
        for one in (child, parent.id):
            engine.runner.release(one)
        await engine.over(child, parent.id)


async def test_a_job_without_a_deadline_waits_for_as_long_as_it_takes(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 1}) as engine:
        first, second = await engine.run("hold", "x")
        await engine.reaches(first, JobStatus.RUNNING)
        assert engine.recursion.ledger.deadline(await engine.job(second)) is None
        engine.runner.release(first)
        assert [job.status for job in await engine.over(first, second)] == [JobStatus.COMPLETED] * 2


@pytest.mark.parametrize(
    ("scenario", "settings", "status", "reason"),
    [
        ("silent", {"silence_seconds": 0.6}, JobStatus.FAILED, Reason.STALLED),
        ("endless", {"max_output_bytes": 3_000_000}, JobStatus.FAILED, Reason.OUTPUT_LIMIT),
        ("linger", {"linger_seconds": 0.6}, JobStatus.COMPLETED, Reason.COMPLETED),
        ("silent", {"timeout_seconds": 0.8}, JobStatus.TIMEOUT, Reason.DEADLINE),
        ("ignoreterm", {"timeout_seconds": 0.8}, JobStatus.TIMEOUT, Reason.DEADLINE),
    ],
)
async def test_a_process_that_does_not_end_is_ended_for_the_right_reason(
    tmp_path: Path, scenario: str, settings: dict[str, Any], status: JobStatus, reason: Reason
):
    async with parts(tmp_path, processes=True, cli=TORTURE_STUB, **settings) as engine:
        [over] = await engine.over(*await engine.run(f"stub:do={scenario}"))
        assert (over.status, over.reason) == (status, reason)


async def test_a_silent_job_that_waits_for_its_descendants_is_left_alone(tmp_path: Path):
    async with shop(tmp_path, silence_seconds=0.5) as market:
        [job] = await market.start([market.task(calls=1, pause=2)])
        await market.speaks(job)
        async with market.engine.recursion.scheduler.parked(job.id):
            [over] = await market.engine.over(job.id)
        assert over.status is JobStatus.COMPLETED


async def test_a_time_out_that_a_job_names_is_its_own(tmp_path: Path):
    async with parts(tmp_path, processes=True, cli=TORTURE_STUB) as engine:
        request = TaskRequest(task="stub:do=silent", timeout_seconds=0.7)
        [job_id] = await engine.manager.execute_batch_async([request], client_context=engine.client_context)
        [over] = await engine.over(job_id)
        assert over.status is JobStatus.TIMEOUT


def test_the_older_servers_formula_holds_where_its_variable_is_set(tmp_path: Path):
    settings = load_here(tmp_path, {"CLAUDE_TIMEOUT_MULTIPLIER": "2"}).settings
    assert [timeout_at(depth, settings.for_trees) for depth in range(5)] == [300, 600, 1200, 1800, 1800]
