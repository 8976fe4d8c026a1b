"""Another try for jobs that are over: all that is queued again runs, with an environment, whatever fails."""

from pathlib import Path

import anyio
import pytest

from jobs.client_context import ClientContext, ClientContextStore
from jobs.errors import BadInputError, DiskFullError, StoreError
from jobs.model import Job, JobStatus
from jobs.sessions import RetryResult, SessionService
from jobs.store.memory import MemoryStore
from tests.unit.jobs.support import LONG, Parts, parts
from tests.unit.jobs.test_manager import closed, trees

pytestmark = pytest.mark.anyio


def sessions(engine: Parts, client_contexts: ClientContextStore | None = None) -> SessionService:
    return SessionService(
        store=engine.store,
        manager=engine.manager,
        client_contexts=client_contexts or engine.client_contexts,
        event_bus=engine.event_bus,
        start_soon=engine.group.start_soon,
    )


async def failed(engine: Parts, *tasks: str) -> list[Job]:
    """Run a batch whose jobs all fail, to the end of its tree."""
    jobs = await engine.over(*await engine.run(*tasks))
    await closed(engine)
    return jobs


class FullDisk(ClientContextStore):
    """A disk that is full until it is told otherwise."""

    def __init__(self, trees: Path) -> None:
        super().__init__(trees)
        self.full = True

    async def save(self, root_id: str, client_context: ClientContext) -> None:
        if self.full:
            raise DiskFullError("keep the client's environment")
        await super().save(root_id, client_context)


async def test_a_retry_that_a_full_disk_refuses_puts_nothing_in_line_and_a_second_one_runs(tmp_path: Path):
    async with parts(tmp_path) as engine:
        jobs = await failed(engine, "fail")
        client_contexts = FullDisk(engine.trees)
        again = sessions(engine, client_contexts)
        with pytest.raises(DiskFullError):
            await again.retry(jobs, client_context=engine.client_context)
        assert (await engine.job(jobs[0].id)).status is JobStatus.FAILED
        client_contexts.full = False
        assert [job.id for job in (await again.retry(jobs, client_context=engine.client_context)).restarted] == [
            jobs[0].id
        ]
        assert (await engine.reaches(jobs[0].id, JobStatus.FAILED)).attempt == 2


class Stumbling(MemoryStore):
    """A store that fails at the second job that is queued again, or at the first."""

    def __init__(self, allowed: int) -> None:
        super().__init__()
        self.allowed = allowed

    async def requeue(self, job_id: str) -> Job | None:
        if not self.allowed:
            raise StoreError("requeue a job", "the disk is gone")
        self.allowed -= 1
        return await super().requeue(job_id)


async def test_what_was_put_back_in_line_before_the_store_failed_runs(tmp_path: Path):
    async with parts(tmp_path, store=Stumbling(1)) as engine:
        jobs = await failed(engine, "fail", "fail")
        with pytest.raises(StoreError, match="the disk is gone"):
            await sessions(engine).retry(jobs, client_context=engine.client_context)
        await engine.over(jobs[0].id)
        assert [job.attempt for job in await engine.store.jobs([job.id for job in jobs])] == [2, 1]
        await closed(engine)


async def test_a_retry_that_puts_nothing_in_line_leaves_no_environment(tmp_path: Path):
    async with parts(tmp_path, store=Stumbling(0)) as engine:
        jobs = await failed(engine, "fail")
        with pytest.raises(StoreError, match="the disk is gone"):
            await sessions(engine).retry(jobs, client_context=engine.client_context)
        await closed(engine)


class Between(MemoryStore):
    """Lets something happen just before a job is queued again."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = anyio.Event(), anyio.Event()

    async def requeue(self, job_id: str) -> Job | None:
        self.reached.set()
        await self.go_on.wait()
        return await super().requeue(job_id)


async def test_the_end_of_a_trees_last_batch_leaves_the_environment_that_a_retry_has_just_kept(tmp_path: Path):
    store = Between()
    async with parts(tmp_path, store=store) as engine:
        (job,) = await failed(engine, "fail once")
        with anyio.fail_after(LONG):
            async with anyio.create_task_group() as group:
                group.start_soon(_retry, engine, job)
                await store.reached.wait()
                group.start_soon(engine.client_contexts.forget_if_ended, store, job.root_id)
                await anyio.wait_all_tasks_blocked()
                store.go_on.set()
        await engine.reaches(job.id, JobStatus.RUNNING)
        assert trees(engine) == [job.root_id]


async def test_nothing_is_tried_again_below_a_job_that_is_being_cancelled(tmp_path: Path):
    async with parts(tmp_path) as engine:
        (parent,) = await engine.run("hold, stubborn")
        await engine.reaches(parent, JobStatus.RUNNING)
        (child,) = await engine.over(*await engine.run("fail", parent=parent))
        await engine.manager.cancel(parent)
        with pytest.raises(BadInputError, match="a job above it is being cancelled"):
            await sessions(engine).retry([child], client_context=engine.client_context)
        both = [await engine.job(parent), child]
        assert await sessions(engine).retry(both, client_context=engine.client_context) == RetryResult(
            restarted=(), live=(both[0],)
        )
        assert (await engine.job(child.id)).status is JobStatus.FAILED


async def test_a_job_that_somebody_else_has_put_in_line_meanwhile_is_named_as_live(tmp_path: Path):
    async with parts(tmp_path) as engine:
        (job,) = await failed(engine, "fail once")
        await sessions(engine).retry([job], client_context=engine.client_context)
        second = await sessions(engine).retry([job], client_context=engine.client_context)
        assert (second.restarted, [one.id for one in second.live]) == ((), [job.id])


async def _retry(engine: Parts, job: Job) -> None:
    await sessions(engine).retry([job], client_context=engine.client_context)
