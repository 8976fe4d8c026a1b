"""Pause and resume: what starts, what goes on, and in which order, without processes."""

from pathlib import Path

import anyio
import pytest

from jobs import recursion_manager as waves_module
from jobs.errors import BadInputError
from jobs.event_bus import PauseChange
from jobs.model import JobStatus, Reason
from jobs.paused import EVERYTHING
from jobs.spec import TaskRequest
from jobs.waiting_for import Wait, WaitingFor
from tests.unit.jobs.support import Parts, parts

pytestmark = pytest.mark.anyio

ALL = [EVERYTHING]


async def path_of(engine: Parts, job_id: str) -> str:
    return (await engine.job(job_id)).path


async def quiet(engine: Parts) -> list[str]:
    """Return what was started, once nothing more starts."""
    await anyio.wait_all_tasks_blocked()
    return list(engine.runner.started)


async def test_nothing_of_a_paused_tree_starts_and_new_work_outside_it_does(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", "x", "x")
        await engine.reaches(ids[0], JobStatus.RUNNING)
        tree = (await engine.job(ids[0])).root_id
        result = await engine.pausing.pause([tree])
        assert (result.queued, result.running, result.was_paused, result.ends_running) == (2, 1, False, False)
        engine.runner.release(ids[0])
        await engine.over(ids[0])
        others = await engine.run("x", "x")
        await engine.over(*others)
        assert await quiet(engine) == [ids[0], *others]
        wait = engine.recursion.wait_of(await engine.job(ids[1]))
        assert wait == Wait(what=WaitingFor.PAUSE, because=f"paused by a person, with {tree}")

        resumed = await engine.pausing.resume([tree])
        assert (resumed.queued, resumed.still, [row.path for row in resumed.lifted]) == (2, None, [tree])
        await engine.over(*ids)
        assert await quiet(engine) == [ids[0], *others, ids[1], ids[2]]


async def test_what_a_job_spawns_below_a_paused_path_is_paused_from_its_start_on(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [parent] = await engine.run("hold")
        await engine.reaches(parent, JobStatus.RUNNING)
        await engine.pausing.pause([await path_of(engine, parent)])
        children = await engine.run("x", "x", parent=parent)
        assert await quiet(engine) == [parent]

        await engine.pausing.resume(ALL)
        await engine.over(*children)


async def test_jobs_come_back_before_those_that_came_later_and_in_their_order(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        [parent] = await engine.run("hold")
        await engine.reaches(parent, JobStatus.RUNNING)
        async with engine.scheduler.parked(parent):
            first = await engine.run("hold", parent=parent)
            await engine.reaches(first[0], JobStatus.RUNNING)
            early = await engine.run("x", "x", parent=parent)
            await anyio.wait_all_tasks_blocked()
            await engine.pausing.pause([await path_of(engine, one) for one in early])
            late = await engine.run("x", parent=parent)
            await anyio.wait_all_tasks_blocked()
            await engine.pausing.resume([await path_of(engine, parent)])
            engine.runner.release(first[0])
            await engine.over(*early, *late)
            assert await quiet(engine) == [parent, *first, *early, *late]


async def test_everything_can_be_paused_before_there_is_anything_and_a_resume_of_everything_lifts_all(tmp_path: Path):
    async with parts(tmp_path) as engine:
        assert (await engine.pausing.pause(ALL)).queued == 0
        ids = await engine.run("x", "x")
        assert await quiet(engine) == []
        await engine.pausing.pause([await path_of(engine, ids[0])])

        assert (await engine.pausing.resume(ALL)).queued == 2
        await engine.over(*ids)


async def test_a_part_of_what_is_paused_stays_paused_and_the_reply_names_what_to_resume(tmp_path: Path):
    async with parts(tmp_path) as engine:
        await engine.pausing.pause(ALL)
        [job_id] = await engine.run("x")
        result = await engine.pausing.resume([await path_of(engine, job_id)])
        assert (result.lifted, result.queued) == ([], 0)
        assert result.still is not None
        assert result.still.path == EVERYTHING
        assert await quiet(engine) == []


async def test_pausing_twice_changes_nothing_and_says_since_when(tmp_path: Path):
    async with parts(tmp_path) as engine:
        await engine.pausing.pause(ALL)
        [job_id] = await engine.run("x")
        first = await engine.store.paused()
        engine.clock.moved = 60.0
        for paths in (ALL, [await path_of(engine, job_id)]):
            again = await engine.pausing.pause(paths)
            assert (again.was_paused, again.since) == (True, first[0].since)
        assert await engine.store.paused() == first


async def test_what_is_over_cannot_be_paused_and_what_is_not_paused_can_be_resumed_in_vain(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [job_id] = await engine.run("x")
        await engine.over(job_id)
        with pytest.raises(BadInputError, match="over"):
            await engine.pausing.pause([await path_of(engine, job_id)])
        result = await engine.pausing.resume([await path_of(engine, job_id)])
        assert (result.lifted, result.queued, result.still) == ([], 0, None)
        assert await engine.store.paused() == []


async def test_running_jobs_end_for_a_pause_now_and_go_on_after_it(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run("hold a", "hold b")
        await engine.reaches(ids[1], JobStatus.RUNNING)
        result = await engine.pausing.pause([await path_of(engine, ids[0])], now=True)
        assert (result.running, result.ends_running) == (1, True)
        queued = await engine.reaches(ids[0], JobStatus.QUEUED)
        assert queued.reason is Reason.INTERRUPTED
        assert await quiet(engine) == ids
        assert (await engine.job(ids[1])).status is JobStatus.RUNNING

        await engine.pausing.resume(ALL)
        await engine.over(ids[0])
        assert await quiet(engine) == [*ids, ids[0]]


async def test_a_pause_without_now_can_be_made_one_with_it(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run("hold")
        await engine.reaches(ids[0], JobStatus.RUNNING)
        path = [await path_of(engine, ids[0])]
        await engine.pausing.pause(path)
        assert (await engine.job(ids[0])).status is JobStatus.RUNNING
        assert not (await engine.pausing.pause(path, now=True)).was_paused
        await engine.reaches(ids[0], JobStatus.QUEUED)


async def test_a_job_lifts_the_pauses_of_jobs_and_leaves_those_of_a_person(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", "x", "x")
        await engine.reaches(ids[0], JobStatus.RUNNING)
        by_person, by_job = [await path_of(engine, one) for one in ids[1:]]
        await engine.pausing.pause([by_person])
        await engine.pausing.pause([by_job, by_person], by_job="j9")
        assert [(row.path, row.by_job) for row in await engine.store.paused()] == [(by_person, None), (by_job, "j9")]
        result = await engine.pausing.resume([by_person, by_job], by_job="j9")
        assert ([row.path for row in result.lifted], result.persons) == ([by_job], True)
        assert result.still is not None
        assert result.still.path == by_person


async def test_a_cancel_reaches_paused_jobs_at_once_also_those_of_a_batch_too_large_for_one_wave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(waves_module, "FIRST", 3)
    async with parts(tmp_path) as engine:
        await engine.pausing.pause(ALL)
        ids = await engine.run(*["x"] * 20)
        await anyio.wait_all_tasks_blocked()
        assert engine.recursion.waves.held_back
        tree = (await engine.job(ids[0])).root_id
        await engine.manager.cancel_subtrees([await engine.job(one) for one in ids])
        assert {job.status for job in await engine.over(*ids)} == {JobStatus.CANCELLED}
        assert await quiet(engine) == []
        assert not engine.recursion.waves.held_back
        assert not (engine.trees / tree / "origin.json").exists()


async def test_no_job_of_a_large_paused_batch_comes_near_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(waves_module, "FIRST", 3)
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", *["x"] * 22)
        await engine.reaches(ids[0], JobStatus.RUNNING)
        await engine.pausing.pause(ALL)
        engine.runner.release(ids[0])
        await engine.over(ids[0])
        assert await quiet(engine) == ids[:1]
        assert engine.scheduler.waiting() == 0

        await engine.pausing.resume(ALL)
        await engine.over(*ids)
        assert await quiet(engine) == ids


async def test_paused_jobs_of_a_large_batch_keep_the_others_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(waves_module, "FIRST", 3)
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", *["x"] * 22)
        await engine.reaches(ids[0], JobStatus.RUNNING)
        await anyio.wait_all_tasks_blocked()
        paused = [*ids[1:6], ids[20]]
        await engine.pausing.pause([await path_of(engine, one) for one in paused])
        engine.runner.release(ids[0])
        others = [one for one in ids if one not in paused]
        await engine.over(*others)
        assert await quiet(engine) == others

        await engine.pausing.resume(ALL)
        await engine.over(*ids)


async def test_the_time_of_a_tree_goes_on_in_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(waves_module, "FIRST", 3)
    async with parts(tmp_path) as engine:
        await engine.pausing.pause(ALL)
        tasks = [TaskRequest(task="x", subtree_seconds=0.2)] * 9
        for count in (2, 9):
            jobs = (await engine.manager.submit(tasks[:count], client_context=engine.client_context)).jobs
            over = await engine.over(*(job.id for job in jobs))
            assert {(job.status, job.reason) for job in over} == {(JobStatus.FAILED, Reason.DEADLINE)}


async def test_a_pause_is_there_after_a_restart_and_what_ran_is_adopted(tmp_path: Path):
    async with parts(tmp_path, max_running=1, max_concurrent={0: 1}) as engine:
        ids = await engine.run("hold", "x", "x")
        await engine.reaches(ids[0], JobStatus.RUNNING)
        await engine.pausing.pause(ALL)
        store = engine.store
        engine.manager.stop_admitting()
        engine.group.cancel_scope.cancel()
    async with parts(tmp_path, store=store) as second:
        await second.manager.resume()
        await anyio.wait_all_tasks_blocked()
        assert second.runner.adopted == ids[:1]
        second.runner.release(ids[0])
        await second.over(ids[0])
        assert await quiet(second) == []
        await second.pausing.resume(ALL)
        await second.over(*ids)
        assert await quiet(second) == ids[1:]


async def test_each_pause_that_begins_or_ends_is_announced_once(tmp_path: Path):
    heard: list[PauseChange] = []
    async with parts(tmp_path) as engine:
        engine.event_bus.observe_pauses(heard.append)
        await engine.pausing.pause(ALL)
        await engine.pausing.pause(ALL)
        await engine.pausing.resume(ALL)
        await engine.pausing.resume(ALL)
    assert [(change.began, [row.path for row in change.pauses]) for change in heard] == [(True, ALL), (False, ALL)]
