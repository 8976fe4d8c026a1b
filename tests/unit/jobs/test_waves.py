"""A large batch comes into the line a part at a time, and no job of it is forgotten, overtaken or held up."""

from pathlib import Path

import anyio
import pytest

from jobs import recursion_manager as waves_module
from jobs.model import JobStatus, Reason
from jobs.spec import TaskRequest
from tests.unit.jobs.support import Parts, parts

pytestmark = pytest.mark.anyio

COUNT = 23


@pytest.fixture(autouse=True)
def short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves_module, "WAVE", 3)
    monkeypatch.setattr(waves_module, "FIRST", 3)


async def statistics(engine: Parts) -> tuple[int, int]:
    """Return how many jobs run and how many wait."""
    # A wave that comes into the line at this moment is counted nowhere.
    await anyio.wait_all_tasks_blocked()
    found = await engine.recursion.statistics()
    return found.running, found.waiting


async def test_every_job_runs_in_order_and_everybody_who_waits_is_counted(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", *["x"] * (COUNT - 1))
        await engine.reaches(ids[0], JobStatus.RUNNING)
        assert await statistics(engine) == (1, COUNT - 1)
        engine.runner.release(ids[0])
        await engine.over(*ids)
        assert engine.runner.started == ids
        assert await statistics(engine) == (0, 0)


async def test_a_cancel_reaches_those_whose_wave_has_not_come(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", *["x"] * (COUNT - 1))
        await engine.reaches(ids[0], JobStatus.RUNNING)
        root = await engine.job(ids[0])
        await engine.manager.cancel_subtrees([await engine.job(one) for one in ids])
        over = await engine.over(*ids)
        assert {job.status for job in over} == {JobStatus.CANCELLED}
        assert engine.runner.started == [root.id]
        assert await statistics(engine) == (0, 0)


async def test_a_job_may_depend_on_one_of_a_later_wave(tmp_path: Path):
    async with parts(tmp_path, max_running=2, max_concurrent={0: 2}) as engine:
        tasks = [TaskRequest(task=f"x{number}", key=f"k{number}", depends_on=("k22",)) for number in range(COUNT - 1)]
        jobs = (
            await engine.manager.submit(
                [*tasks, TaskRequest(task="x", key="k22")], client_context=engine.client_context
            )
        ).jobs
        over = await engine.over(*(job.id for job in jobs))
        assert {job.status for job in over} == {JobStatus.COMPLETED}
        assert engine.runner.started[0] == jobs[-1].id


async def test_what_ran_when_an_engine_was_killed_is_adopted_first_and_all_of_it(tmp_path: Path):
    async with parts(tmp_path, max_running=2, max_concurrent={0: 2}) as engine:
        ids = await engine.run(*["hold"] * COUNT)
        await engine.reaches(ids[1], JobStatus.RUNNING)
        await engine.store.claim(ids[-1], session_id="s", token_hash=None, at=1.0)
        store = engine.store
        engine.manager.stop_admitting()
        engine.group.cancel_scope.cancel()
    async with parts(tmp_path, store=store, max_running=2, max_concurrent={0: 2}) as second:
        await second.manager.resume()
        await anyio.wait_all_tasks_blocked()
        assert second.runner.adopted == [ids[0], ids[1], ids[-1]]
        for one in ids:
            second.runner.release(one)
        await second.over(*ids)


async def test_a_deadline_of_a_job_that_stands_far_behind_is_kept(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        tasks = [*[TaskRequest(task="hold")] * (COUNT - 1), TaskRequest(task="x", subtree_seconds=0.2)]
        jobs = (await engine.manager.submit(tasks, client_context=engine.client_context)).jobs
        (late,) = await engine.over(jobs[-1].id)
        assert (late.status, late.reason) == (JobStatus.FAILED, Reason.DEADLINE)
        for job in jobs:
            engine.runner.release(job.id)
        await engine.over(*(job.id for job in jobs))
