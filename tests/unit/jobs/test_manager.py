"""Batches through the graph, with a runner that only pretends: admission, aggregation, cancelling and resuming."""

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from jobs.client_context import ClientContext
from jobs.errors import BadInputError, NotFoundError, StoreError, TreeClosedError
from jobs.model import JobStatus, Rollup
from jobs.ports import Admission, SpawnCheck, Submission
from jobs.spec import TaskRequest
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from orchestration.limits import RecursionLimitError
from tests.contract.support import admit, admit_root, start
from tests.unit.jobs.support import LONG, Parts, parts, settle

pytestmark = pytest.mark.anyio


def trees(engine: Parts) -> list[str]:
    """Trees whose client environment is on disk."""
    return [path.parent.name for path in engine.trees.glob("*/origin.json")]


async def closed(engine: Parts) -> None:
    """Wait until no tree keeps its client's environment any more."""
    with anyio.fail_after(LONG):
        while trees(engine):  # noqa: ASYNC110 - the file's end is announced to nobody
            await anyio.sleep(0.01)


async def nothing_was_written(engine: Parts) -> None:
    assert list(await engine.store.newest_jobs(limit=10)) == []
    assert not engine.trees.exists() or list(engine.trees.iterdir()) == []


async def test_ids_come_in_the_order_of_the_tasks_and_their_rows_are_there(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run("hold a", "hold b", "hold c")
        jobs = await engine.store.jobs(ids)
        assert [job.spec.task for job in jobs] == ["hold a", "hold b", "hold c"]
        assert {(job.depth, job.root_id, job.parent_id) for job in jobs} == {(1, jobs[0].batch_id, None)}
        assert trees(engine) == [jobs[0].root_id]


async def test_a_batch_runs_to_its_end_and_its_trees_environment_goes(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run("a", "b")
        assert [job.status for job in await engine.over(*ids)] == [JobStatus.COMPLETED] * 2
        await closed(engine)


async def test_a_single_task_is_its_own_root(tmp_path: Path):
    async with parts(tmp_path) as engine:
        admission = await engine.manager.submit(["hold"], client_context=engine.client_context, as_root=True)
        (job,) = admission.jobs
        assert (job.root_id, job.depth, job.path) == (job.id, 0, job.id)
        assert trees(engine) == [job.id]


async def test_a_child_stands_below_its_parent_and_saves_no_environment_of_its_own(tmp_path: Path):
    async with parts(tmp_path) as engine:
        (parent,) = await engine.run("hold")
        (child,) = await engine.run("hold", parent=parent)
        below = await engine.job(child)
        assert (below.parent_id, below.depth, below.path) == (parent, 2, f"{(await engine.job(parent)).path}/{child}")
        assert trees(engine) == [below.root_id]


async def test_a_trees_environment_stays_until_its_last_job_is_over(tmp_path: Path):
    async with parts(tmp_path) as engine:
        (parent,) = await engine.run("hold")
        (child,) = await engine.run("hold", parent=parent)
        engine.runner.release(parent)
        await engine.over(parent)
        await settle()
        assert len(trees(engine)) == 1
        engine.runner.release(child)
        await engine.over(child)
        await closed(engine)


@pytest.mark.parametrize("task", ["fail", "raise"])
async def test_a_job_that_fails_leaves_its_siblings_alone(tmp_path: Path, task: str):
    async with parts(tmp_path) as engine:
        bad, *good = await engine.run(task, "a", "hold")
        engine.runner.release(good[-1])
        assert [job.status for job in await engine.over(*good)] == [JobStatus.COMPLETED] * 2
        assert (await engine.over(bad))[0].status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("tasks", "field"),
    [
        ([], "tasks"),
        ("one text", "tasks"),
        (["good", ""], "tasks[1]"),
        ([TaskRequest(task="x", cwd="/no/such")], "cwd"),
    ],
)
async def test_a_batch_that_cannot_be_used_leaves_nothing(tmp_path: Path, tasks: Sequence[str], field: str):
    async with parts(tmp_path) as engine:
        with pytest.raises(BadInputError) as info:
            await engine.manager.execute_batch_async(tasks, client_context=engine.client_context)
        assert info.value.field == field
        await nothing_was_written(engine)


async def test_several_tasks_cannot_be_one_root(tmp_path: Path):
    async with parts(tmp_path) as engine:
        with pytest.raises(BadInputError, match="2 tasks cannot be one root"):
            await engine.manager.submit(["a", "b"], client_context=engine.client_context, as_root=True)
        with pytest.raises(BadInputError) as info:
            await engine.manager.submit([""], client_context=engine.client_context, as_root=True)
        assert info.value.field == "task"
        await nothing_was_written(engine)


async def test_an_unknown_parent_is_not_found(tmp_path: Path):
    async with parts(tmp_path) as engine:
        with pytest.raises(NotFoundError, match="Job j-none not found"):
            await engine.run("a", parent="j-none")
        await nothing_was_written(engine)


async def test_a_batch_beyond_a_limit_leaves_nothing(tmp_path: Path):
    async with parts(tmp_path, max_jobs=2) as engine:
        with pytest.raises(RecursionLimitError, match="Too many total jobs"):
            await engine.run("a", "b", "c")
        await nothing_was_written(engine)


async def test_a_spawn_below_the_deepest_level_is_refused_and_the_parent_goes_on(tmp_path: Path):
    async with parts(tmp_path, max_depth=1) as engine:
        (parent,) = await engine.run("hold")
        with pytest.raises(RecursionLimitError, match="depth limit exceeded: 2/1"):
            await engine.run("a", parent=parent)
        assert len(await engine.store.newest_jobs(limit=10)) == 1
        engine.runner.release(parent)
        assert (await engine.over(parent))[0].status is JobStatus.COMPLETED


async def test_a_parent_that_is_over_cannot_spawn(tmp_path: Path):
    async with parts(tmp_path) as engine:
        (parent,) = await engine.run("a")
        await engine.over(parent)
        with pytest.raises(TreeClosedError, match="Finish with what you have"):
            await engine.run("b", parent=parent)


async def test_a_key_that_was_used_returns_the_first_jobs_and_runs_nothing_again(tmp_path: Path):
    async with parts(tmp_path) as engine:
        first, second = [
            await engine.manager.submit(["hold"], client_context=engine.client_context, idempotency_key="k")
            for _ in range(2)
        ]
        assert ([job.id for job in first.jobs], first.created) == ([job.id for job in second.jobs], True)
        assert not second.created
        await settle()
        assert len(engine.runner.started) == 1
        assert [path.name for path in engine.trees.iterdir()] == [first.batch.root_id]


async def test_a_key_belongs_to_one_caller(tmp_path: Path):
    async with parts(tmp_path) as engine:
        admissions = [
            await engine.manager.submit(
                ["hold"], client_context=ClientContext(cwd="/", client=name), idempotency_key="k"
            )
            for name in ("one", "other")
        ]
        assert [admission.created for admission in admissions] == [True, True]


async def test_jobs_run_in_their_slots_and_the_next_one_follows(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 1}) as engine:
        first, second = await engine.run("hold", "hold")
        await engine.reaches(first, JobStatus.RUNNING)
        await settle()
        assert (await engine.job(second)).status is JobStatus.QUEUED
        engine.runner.release(first)
        await engine.reaches(second, JobStatus.RUNNING)


async def test_cancelling_ends_a_subtree_queued_and_running_and_leaves_the_rest(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 2, 2: 1}) as engine:
        top, beside = await engine.run("hold", "hold")
        running, queued = await engine.run("hold", "hold", parent=top)
        await engine.reaches(running, JobStatus.RUNNING)
        assert {job.id for job in await engine.manager.cancel(top)} == {top, running, queued}
        assert [job.status for job in await engine.over(top, running, queued)] == [JobStatus.CANCELLED] * 3
        assert queued not in engine.runner.started
        assert (await engine.job(beside)).status is JobStatus.RUNNING
        await settle()
        assert (engine.scheduler.running(), engine.scheduler.waiting()) == (1, 0)


async def test_a_cancelled_job_leaves_the_line_at_once_and_not_when_its_turn_comes(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 1}) as engine:
        first, queued = await engine.run("hold", "hold")
        await engine.reaches(first, JobStatus.RUNNING)
        await settle()
        assert engine.scheduler.waiting() == 1
        await engine.manager.cancel(queued)
        await settle()
        assert (engine.scheduler.running(), engine.scheduler.waiting()) == (1, 0)


async def test_cancelling_closes_the_subtree_to_spawns_at_once(tmp_path: Path):
    async with parts(tmp_path) as engine:
        (top,) = await engine.run("hold stubborn")
        await engine.reaches(top, JobStatus.RUNNING)
        await engine.manager.cancel(top)
        with pytest.raises(TreeClosedError):
            await engine.run("a", parent=top)


async def test_a_process_that_will_not_end_does_not_hold_up_its_canceller(tmp_path: Path):
    async with parts(tmp_path) as engine:
        jobs = await engine.run("hold", "hold", "hold")
        for job_id in jobs:
            await engine.reaches(job_id, JobStatus.RUNNING)
        released = anyio.Event()
        runner_cancel = engine.runner.cancel

        async def slow(job_id: str) -> None:
            await released.wait()
            await runner_cancel(job_id)

        engine.runner.cancel = slow
        for job_id in jobs:
            with anyio.fail_after(60):
                await engine.manager.cancel(job_id)
        released.set()
        await engine.over(*jobs)


async def test_cancelling_twice_and_cancelling_what_is_over_change_nothing(tmp_path: Path):
    async with parts(tmp_path) as engine:
        done, held = await engine.run("a", "hold stubborn")
        await engine.over(done)
        await engine.reaches(held, JobStatus.RUNNING)
        assert list(await engine.manager.cancel(done)) == []
        assert len(await engine.manager.cancel(held)) == 1
        assert list(await engine.manager.cancel(held)) == []
        engine.runner.release(held)
        assert (await engine.over(held))[0].status is JobStatus.CANCELLED


async def test_cancelling_an_unknown_job_is_not_found(tmp_path: Path):
    async with parts(tmp_path) as engine:
        with pytest.raises(NotFoundError):
            await engine.manager.cancel("j-none")


async def test_a_request_that_is_cancelled_after_its_submission_does_not_stop_the_jobs(tmp_path: Path):
    async with parts(tmp_path) as engine:
        with anyio.CancelScope() as request:
            ids = await engine.run("hold", "hold")
            request.cancel()
            await anyio.sleep_forever()
        for job_id in ids:
            await engine.reaches(job_id, JobStatus.RUNNING)
            engine.runner.release(job_id)
        assert [job.status for job in await engine.over(*ids)] == [JobStatus.COMPLETED] * 2


class SlowStore(MemoryStore):
    """Stops between the commit and the answer, as a database on another thread does."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.answer = anyio.Event(), anyio.Event()

    async def admit(self, submission: Submission, check: SpawnCheck) -> Admission:
        admission = await super().admit(submission, check)
        self.written.set()
        await self.answer.wait()
        return admission


async def test_a_request_that_is_cancelled_as_its_rows_are_written_leaves_jobs_that_run(tmp_path: Path):
    store = SlowStore()
    async with parts(tmp_path, store=store) as engine, anyio.create_task_group() as group:
        with anyio.fail_after(60):
            group.start_soon(engine.run, "hold")
            await store.written.wait()
            group.cancel_scope.cancel()
            store.answer.set()
            with anyio.CancelScope(shield=True):
                (job,) = await store.unfinished()
                await engine.reaches(job.id, JobStatus.RUNNING)
                assert trees(engine) == [job.root_id]


class FailingStore(MemoryStore):
    """A database whose disk is full."""

    async def admit(self, submission: Submission, check: SpawnCheck) -> Admission:
        raise StoreError("admit jobs", "the disk is full")


async def test_a_store_that_refuses_a_batch_leaves_no_environment(tmp_path: Path):
    async with parts(tmp_path, store=FailingStore()) as engine:
        with pytest.raises(StoreError, match="the disk is full"):
            await engine.run("a")
        await nothing_was_written(engine)


class ForgetfulStore(LiveStore):
    """A store that fails when a tree is summed up."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.asked = anyio.Event()

    async def rollup_under(self, path: str) -> Rollup:
        self.asked.set()
        raise StoreError("read", "the disk is gone")


async def test_a_tree_that_cannot_be_cleared_away_does_not_end_the_engine(tmp_path: Path):
    store = ForgetfulStore()
    async with parts(tmp_path, store=store) as engine:
        await engine.over(*await engine.run("a"))
        with anyio.fail_after(60):
            await store.asked.wait()
        await settle()
        assert [job.status for job in await engine.over(*await engine.run("b"))] == [JobStatus.COMPLETED]


async def past(*holding: str) -> MemoryStore:
    """A store that an engine left in the middle of its work: one root, three children, one of them over.

    Args:
        holding: Jobs that go on until they are released.
    """
    store = MemoryStore()
    tasks = dict.fromkeys(holding, "hold")
    await admit_root(store, "jroot", tasks=tasks)
    await start(store, "jroot")
    await admit(store, "b2", "jrunning", "jqueued", "jdone", parent_id="jroot", tasks=tasks)
    await start(store, "jrunning")
    await store.cancel_under("jroot/jdone", at=1.0)
    return store


async def test_a_new_engine_adopts_what_runs_starts_what_waits_and_leaves_what_is_over(tmp_path: Path):
    async with parts(tmp_path, store=await past()) as engine:
        assert await engine.manager.resume() == 3
        done = await engine.over("jroot", "jrunning", "jqueued", "jdone")
        assert [job.status for job in done] == [JobStatus.COMPLETED] * 3 + [JobStatus.CANCELLED]
        assert (sorted(engine.runner.adopted), engine.runner.started) == (["jroot", "jrunning"], ["jqueued"])


async def test_what_runs_already_is_adopted_although_the_machine_is_full(tmp_path: Path):
    async with parts(tmp_path, store=await past("jroot", "jrunning"), max_running=1, max_concurrent={0: 1}) as engine:
        await engine.manager.resume()
        await settle()
        assert sorted(engine.runner.adopted) == ["jroot", "jrunning"]
        for job_id in ("jroot", "jrunning"):
            engine.runner.release(job_id)
        await engine.over("jroot", "jrunning", "jqueued")


async def test_a_new_engine_forgets_the_environments_that_nobody_needs_any_more(tmp_path: Path):
    """What an engine leaves that is killed after its last job's end, or between an environment and its tree's rows."""
    store = await past()
    await admit_root(store, "jover")
    await store.cancel_under("jover", at=1.0)
    async with parts(tmp_path, store=store) as engine:
        for root_id in ("jroot", "jover", "jnever", "jlost"):
            await engine.client_contexts.save(root_id, engine.client_context)
        transcripts = [engine.trees / root_id / "j1" / "1" / "out" for root_id in ("jover", "jlost")]
        for transcript in transcripts:
            transcript.parent.mkdir(parents=True)
            transcript.touch()
        await engine.manager.resume()
        assert trees(engine) == ["jroot"]
        assert [path.exists() for path in transcripts] == [True, True]
        assert not (engine.trees / "jnever").exists()


async def test_an_engine_that_leaves_forgets_the_environments_of_trees_that_are_over_and_no_others(tmp_path: Path):
    """A batch may not get to do so itself; and a tree whose rows are not there yet may be admitted in a moment."""
    store = await past()
    await admit_root(store, "jover")
    await store.cancel_under("jover", at=1.0)
    async with parts(tmp_path, store=store) as engine:
        for root_id in ("jroot", "jover", "jnotyet"):
            await engine.client_contexts.save(root_id, engine.client_context)
        await engine.manager.forget_ended_trees()
        assert sorted(trees(engine)) == ["jnotyet", "jroot"]


async def test_environments_that_cannot_be_cleared_away_do_not_keep_a_new_engine_from_its_jobs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with parts(tmp_path, store=await past()) as engine:
        for root_id in ("jstuck", "jover"):
            (engine.trees / root_id).mkdir(parents=True)
        (engine.trees / "jstuck" / "origin.json").mkdir()
        (engine.trees / "jover" / "origin.json").touch()
        assert await engine.manager.resume() == 3
        await engine.over("jroot")
        assert trees(engine) == ["jstuck"]
        assert "jstuck" in caplog.text


async def test_an_empty_store_has_nothing_to_resume(tmp_path: Path):
    async with parts(tmp_path) as engine:
        assert await engine.manager.resume() == 0


async def test_the_figures_tell_what_is_live_at_which_depth(tmp_path: Path):
    async with parts(tmp_path, max_concurrent={0: 1}) as engine:
        first, _ = await engine.run("hold", "hold")
        await engine.reaches(first, JobStatus.RUNNING)
        (child,) = await engine.run("hold", parent=first)
        await engine.reaches(child, JobStatus.RUNNING)
        figures = await engine.recursion.statistics()
        root = (await engine.job(first)).root_id
        assert (figures.live_by_depth, figures.live_by_root) == ({1: 2, 2: 1}, {root: 3})
        assert (figures.running, figures.waiting, figures.limits) == (2, 1, engine.settings.tree_limits)


async def test_a_parent_that_waits_lets_its_child_run_on_a_machine_of_one(tmp_path: Path):
    async with parts(tmp_path, max_running=1) as engine:
        (parent,) = await engine.run("hold")
        await engine.reaches(parent, JobStatus.RUNNING)
        (child,) = await engine.run("a", parent=parent)
        await settle()
        assert (await engine.job(child)).status is JobStatus.QUEUED
        async with engine.recursion.scheduler.parked(parent):
            await engine.over(child)
        assert engine.scheduler.running() == 1
