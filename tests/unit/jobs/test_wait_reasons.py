"""What a job waits for, with until when and why; and whether anything goes on before that."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.model import JobStatus
from jobs.permissions.approvals import Approvals
from jobs.spec import TaskRequest
from jobs.wait_reasons import WaitReasons
from jobs.waiting_for import Wait, WaitingFor
from tests.unit.jobs.support import Parts, parts, settle

pytestmark = pytest.mark.anyio

HOUR = 3600.0


def reasons(engine: Parts, approvals: Approvals | None = None) -> WaitReasons:
    asked = approvals or Approvals("person", 60.0, lambda: 0.0)
    return WaitReasons(engine.recursion, engine.store.trees, asked, lambda: 1000.0)


async def wait_of(engine: Parts, job_id: str) -> Wait | None:
    return reasons(engine).of(await engine.job(job_id))


async def hold_of(engine: Parts, job_id: str) -> Wait | None:
    return reasons(engine).hold_of(await engine.job(job_id))


async def test_a_job_that_works_or_is_over_waits_for_nothing(tmp_path: Path):
    async with parts(tmp_path) as engine:
        held, over = await engine.run("hold", "x")
        await engine.reaches(held, JobStatus.RUNNING)
        await engine.over(over)
        assert [await wait_of(engine, one) for one in (held, over)] == [None, None]
        assert [await hold_of(engine, one) for one in (held, over)] == [None, None]


async def test_a_dependent_job_names_at_most_three_open_siblings(tmp_path: Path):
    async with parts(tmp_path) as engine:
        tasks: list[Any] = [*["hold"] * 5, "x", TaskRequest(task="last", depends_on=list(range(6)))]
        jobs = await engine.manager.submit(tasks, client_context=engine.client_context)
        ids = [job.id for job in jobs.jobs]
        await engine.over(ids[5])
        found = await wait_of(engine, ids[6])
        assert found == Wait(what=WaitingFor.SIBLINGS, because=f"{', '.join(ids[:3])} and 2 more")
        for name in ids[1:5]:
            engine.runner.release(name)
        await engine.over(*ids[1:5])
        assert await wait_of(engine, ids[6]) == Wait(what=WaitingFor.SIBLINGS, because=ids[0])
        engine.runner.release(ids[0])


async def test_a_job_behind_a_usage_limit_says_which_and_until_when(tmp_path: Path):
    async with parts(tmp_path, max_running=1) as engine:
        until = engine.clock.now() + HOUR
        engine.throttle.of("").on_usage_limit(until, "the five-hour limit is reached")
        [job_id] = await engine.run("x")
        await settle()
        found = await wait_of(engine, job_id)
        assert found is not None
        assert (found.what, found.because) == (WaitingFor.LIMIT, "the five-hour limit is reached")
        assert found.until is not None
        assert until <= found.until <= until + 10
        assert await hold_of(engine, job_id) == found


async def test_a_job_that_waits_for_held_jobs_is_held_and_for_one_that_works_is_not(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [parent] = await engine.run("hold")
        await engine.reaches(parent, JobStatus.RUNNING)
        [child] = await engine.run("hold", parent=parent)
        await engine.reaches(child, JobStatus.RUNNING)
        async with engine.scheduler.parked(parent):
            assert await wait_of(engine, parent) == Wait(
                what=WaitingFor.CHILDREN, because="1 live below it, 1 of them running"
            )
            assert await hold_of(engine, parent) is None
            engine.throttle.of("").on_usage_limit(engine.clock.now() + HOUR, "a limit")
            [other] = await engine.run("x", parent=parent)
            await settle()
            # The running child works on.
            assert await hold_of(engine, parent) is None
            engine.runner.release(child)
            await engine.over(child)
            # Its end lifted the limit, and it is met again.
            engine.throttle.of("").on_usage_limit(engine.clock.now() + HOUR, "another limit")
            [last] = await engine.run("x", parent=parent)
            await settle()
            hold = await hold_of(engine, parent)
            assert hold is not None
            assert hold == await hold_of(engine, last)
            assert await engine.job(other)
        engine.runner.release(parent)


async def test_a_job_that_a_person_paused_is_held_without_an_end(tmp_path: Path):
    async with parts(tmp_path, max_running=1) as engine:
        first, second = await engine.run("hold", "x")
        await engine.reaches(first, JobStatus.RUNNING)
        await engine.pausing.pause([(await engine.job(second)).path])
        hold = await hold_of(engine, second)
        assert hold == Wait(what=WaitingFor.PAUSE, because="paused by a person")
        limit = Wait(what=WaitingFor.LIMIT, until=1.0)
        assert hold.earlier(limit) is limit.earlier(hold) is limit
        engine.runner.release(first)


async def test_what_a_job_paused_is_not_held_for_it_may_resume_it(tmp_path: Path):
    async with parts(tmp_path, max_running=1) as engine:
        first, second = await engine.run("hold", "x")
        await engine.reaches(first, JobStatus.RUNNING)
        path = (await engine.job(second)).path
        await engine.pausing.pause([path], by_job=first)
        wait = await wait_of(engine, second)
        assert wait is not None
        assert wait.what is WaitingFor.PAUSE
        assert await hold_of(engine, second) is None
        await engine.pausing.pause([path])
        assert await hold_of(engine, second) is not None
        engine.runner.release(first)


async def test_a_job_that_asks_for_a_permission_says_for_what_without_secrets(tmp_path: Path):
    key = "sk-ant-api03-" + "a1B2" * 10
    async with parts(tmp_path) as engine:
        [job_id] = await engine.run("hold")
        await engine.reaches(job_id, JobStatus.RUNNING)
        approvals = Approvals("person", 60.0, lambda: 0.0)
        job = await engine.store.set_waiting_for(job_id, WaitingFor.PERMISSION)
        assert job is not None
        async with anyio.create_task_group() as group:
            group.start_soon(approvals.ask, job, "Bash", {"command": f"curl -H 'x-api-key: {key}' example.com"})
            await settle()
            found = reasons(engine, approvals).of(job)
            assert found == Wait(
                what=WaitingFor.PERMISSION, until=1060.0, because="Bash: curl -H 'x-api-key: [redacted]' example.com"
            )
            # A person may answer at any moment.
            assert reasons(engine, approvals).hold_of(job) is None
            [request] = approvals.open_to(None)
            approvals.answer(request.id, None, allow=False)
        engine.runner.release(job_id)
