"""Limits of a tree, a part of it or a batch: what is in force, what a change does at once, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from jobs.errors import BadInputError, NotFoundError
from jobs.limit_changes import AskedLimits, LimitsInForce, NotConfirmedError, NothingToLimitError
from jobs.limits.budget import BudgetError
from jobs.model import Job, JobStatus, Reason
from jobs.spec import TaskRequest
from jobs.store.memory import MemoryStore
from tests.support.waiting import until
from tests.unit.jobs.support import CLIENT_ENV, LONG, TESTS, Parts, parts

pytestmark = pytest.mark.anyio

SPENDING_STUB = TESTS / "fakes" / "spending_stub.py"
TWO_CALLS_USD = 0.014
"""US dollars of two calls that it makes, each of 1,000 tokens read and 500 written."""


async def change(engine: Parts, identity: str, *, confirmed: bool = False, **asked: float) -> LimitsInForce:
    return await engine.limits.change(identity, AskedLimits(**asked), confirmed=confirmed)  # type: ignore[arg-type]


async def root_job(engine: Parts, task: str | TaskRequest) -> Job:
    """Start a job that is the root of its tree."""
    admission = await engine.manager.submit([task], client_context=engine.client_context, as_root=True)
    return await engine.reaches(admission.jobs[0].id, JobStatus.RUNNING)


async def tree_of(engine: Parts, job_id: str) -> str:
    return (await engine.job(job_id)).root_id


async def status_of(engine: Parts, *job_ids: str) -> list[JobStatus]:
    """Return the statuses of jobs, once nothing more starts."""
    await anyio.wait_all_tasks_blocked()
    return [(await engine.job(job_id)).status for job_id in job_ids]


async def test_a_batch_without_limits_says_so_and_counts_its_jobs(tmp_path: Path):
    async with parts(tmp_path, max_running=1) as engine:
        ids = await engine.run("hold", "x", "x")
        await engine.reaches(ids[0], JobStatus.RUNNING)
        found = await engine.limits.in_force(await tree_of(engine, ids[0]))
        assert (found.counts, found.live, found.below) == ({JobStatus.RUNNING: 1, JobStatus.QUEUED: 2}, 3, 3)
        assert (found.spent_usd, found.left_usd, found.above) == (0.0, None, None)
        own = found.limits
        assert (own.budget_usd, own.deadline, own.max_jobs, own.max_concurrent) == (None, None, None, None)


async def test_a_batch_that_gets_more_slots_starts_what_waited_for_one(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run(*[TaskRequest(task="hold", batch_slots=1)] * 3)
        await engine.reaches(ids[0], JobStatus.RUNNING)
        batch = await tree_of(engine, ids[0])
        assert (await engine.limits.in_force(batch)).limits.max_concurrent == 1
        assert await status_of(engine, *ids[1:]) == [JobStatus.QUEUED] * 2

        assert (await change(engine, batch, max_concurrent=2)).limits.max_concurrent == 2
        assert await status_of(engine, *ids) == [JobStatus.RUNNING] * 2 + [JobStatus.QUEUED]


async def test_a_batch_that_gets_fewer_slots_ends_nothing_and_starts_nothing_until_there_is_room(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run(*[TaskRequest(task="hold", batch_slots=2)] * 4)
        await engine.reaches(ids[1], JobStatus.RUNNING)
        await change(engine, await tree_of(engine, ids[0]), max_concurrent=1)
        engine.runner.release(ids[0])
        await engine.over(ids[0])
        assert await status_of(engine, *ids[1:]) == [JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.QUEUED]
        engine.runner.release(ids[1])
        await engine.reaches(ids[2], JobStatus.RUNNING)


async def test_the_slots_of_a_batch_that_is_over_are_none(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run(*[TaskRequest(task="x", batch_slots=2)] * 2)
        await engine.over(*ids)
        assert (await engine.limits.in_force(await tree_of(engine, ids[0]))).limits.max_concurrent is None


async def test_the_slots_of_a_job_are_for_itself_and_all_below_it(tmp_path: Path):
    async with parts(tmp_path) as engine:
        parent = await root_job(engine, "hold")
        assert (await change(engine, parent.id, max_concurrent=2)).limits.max_concurrent == 2
        ids = await engine.run("hold", "hold", parent=parent.id)
        await engine.reaches(ids[0], JobStatus.RUNNING)
        assert await status_of(engine, *ids) == [JobStatus.RUNNING, JobStatus.QUEUED]

        found = await change(engine, parent.id, max_concurrent=3)
        assert (found.limits.max_concurrent, found.below) == (3, 2)
        assert await status_of(engine, *ids) == [JobStatus.RUNNING, JobStatus.RUNNING]


async def test_most_jobs_of_a_tree_hold_for_the_next_spawn(tmp_path: Path):
    async with parts(tmp_path) as engine:
        parent = await root_job(engine, "hold")
        await engine.run("x", "x", parent=parent.id)
        assert (await change(engine, parent.id, max_jobs=2)).limits.max_jobs == 2
        with pytest.raises(BudgetError, match="may have 2 jobs below it"):
            await engine.run("x", parent=parent.id)

        await change(engine, parent.id, max_jobs=3)
        await engine.run("x", parent=parent.id)


async def test_a_limit_that_is_not_asked_for_stays_as_it_is(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [job_id] = await engine.run("hold")
        tree = await tree_of(engine, job_id)
        before = engine.clock.now()
        await change(engine, tree, budget_usd=5.0, timeout_seconds=900.0)
        own = (await change(engine, tree, max_jobs=40)).limits
        assert (own.budget_usd, own.max_jobs) == (5.0, 40)
        assert own.deadline is not None
        assert before + 900 <= own.deadline <= engine.clock.now() + 900


async def test_of_the_limits_of_a_root_job_and_of_its_tree_the_smaller_one_is_in_force(tmp_path: Path):
    async with parts(tmp_path) as engine:
        job = await root_job(engine, TaskRequest(task="hold", max_budget_usd=2.0, subtree_seconds=600.0))
        found = await engine.limits.in_force(job.id)
        assert (found.limits.budget_usd, found.left_usd, found.above) == (2.0, 2.0, None)
        assert found.limits.deadline == job.spec.deadline
        assert (await change(engine, job.id, budget_usd=3.0)).left_usd == 3.0


async def test_what_is_left_is_that_of_the_budget_above_where_it_leaves_less(tmp_path: Path):
    async with parts(tmp_path, processes=True) as engine:
        gate = tmp_path / "gate"
        parent = (await root_job(engine, f"stub:wait={gate}")).id
        ids = await engine.run(f"stub:wait={gate}", "stub:cost=0.5", parent=parent)
        await engine.over(ids[1])
        batch = (await engine.job(ids[0])).batch_id
        await change(engine, parent, budget_usd=1.0)

        for part in (ids[0], batch):
            found = await engine.limits.in_force(part)
            assert (found.left_usd, found.above) == (0.5, f"job {parent}")
        assert (await engine.limits.in_force(batch)).spent_usd == 0.5

        found = await change(engine, ids[0], budget_usd=0.2)
        assert (found.left_usd, found.above) == (0.2, None)
        found = await change(engine, ids[0], budget_usd=0.8)
        assert (found.limits.budget_usd, found.left_usd, found.above) == (0.8, 0.5, f"job {parent}")
        gate.touch()
        await engine.over(parent, *ids)


async def test_a_budget_that_is_used_up_already_ends_what_runs_and_only_once_a_person_confirms(tmp_path: Path):
    async with parts(tmp_path, processes=True) as engine:
        parent = (await root_job(engine, f"stub:wait={tmp_path}/never")).id
        [child] = await engine.run("stub:cost=0.5", parent=parent)
        await engine.over(child)
        with pytest.raises(NotConfirmedError, match=r"0\.5000 USD have been spent already.* 1 running job ends as"):
            await change(engine, parent, budget_usd=0.3)
        assert (await engine.limits.in_force(parent)).limits.budget_usd is None
        assert await status_of(engine, parent) == [JobStatus.RUNNING]

        assert (await change(engine, parent, budget_usd=0.3, confirmed=True)).left_usd == 0.0
        [ended] = await engine.over(parent)
        assert (ended.status, ended.reason) == (JobStatus.FAILED, Reason.BUDGET_EXHAUSTED)
        # Nothing runs that it could end.
        assert (await change(engine, parent, budget_usd=0.4)).limits.budget_usd == 0.4


async def test_what_a_running_attempt_has_cost_so_far_counts_for_its_job_its_batch_and_its_tree(tmp_path: Path):
    async with parts(tmp_path, processes=True, cli=SPENDING_STUB) as made:
        # The stub keeps its task in its home.
        engine = replace(made, client_env={**CLIENT_ENV, "HOME": str(made.work)})
        parent = (await root_job(engine, f"stub:calls=0 stub:wait={tmp_path}/never")).id
        [child] = await engine.run(f"stub:calls=2 stub:wait={tmp_path}/never", parent=parent)
        batch = (await engine.job(child)).batch_id

        async def has_spent() -> bool:
            return (await engine.limits.in_force(child)).spent_usd == pytest.approx(TWO_CALLS_USD)

        await until(has_spent)
        for part in (batch, parent):
            assert (await engine.limits.in_force(part)).spent_usd == pytest.approx(TWO_CALLS_USD)
        with pytest.raises(NotConfirmedError, match=r"0\.0140 USD.* 2 running jobs end"):
            await change(engine, parent, budget_usd=0.01)
        await change(engine, parent, budget_usd=0.01, confirmed=True)
        assert {job.reason for job in await engine.over(parent, child)} == {Reason.BUDGET_EXHAUSTED}


async def test_the_budget_of_a_tree_that_is_over_counts_after_a_restart_too(tmp_path: Path):
    kept = MemoryStore()
    async with parts(tmp_path, processes=True, store=kept) as engine:
        ids = await engine.run("stub:exit=3", "stub:cost=0.5")
        tree = await tree_of(engine, ids[0])
        await change(engine, tree, budget_usd=0.7)
        await engine.over(*ids)
        before = await engine.limits.in_force(ids[0])
        assert before.left_usd == pytest.approx(0.2)
        assert before.above == f"tree {tree}"
    async with parts(tmp_path, store=kept) as engine:
        assert await engine.limits.in_force(ids[0]) == before


def test_the_question_names_how_many_jobs_would_end():
    assert "with a budget of 1.0000 USD 2 running jobs end as budget_exhausted" in str(NotConfirmedError(1.0, 3.0, 2))


async def test_a_deadline_ends_what_runs_and_what_waits(tmp_path: Path):
    async with parts(tmp_path, processes=True) as engine:
        ids = await engine.run(*[TaskRequest(task=f"stub:wait={tmp_path}/never", batch_slots=1)] * 2)
        await engine.reaches(ids[0], JobStatus.RUNNING)
        await change(engine, await tree_of(engine, ids[0]), timeout_seconds=0.2)
        assert [job.reason for job in await engine.over(*ids)] == [Reason.DEADLINE] * 2


async def test_a_deadline_ends_what_waits_while_others_still_run(tmp_path: Path):
    async with parts(tmp_path) as engine:
        ids = await engine.run(*[TaskRequest(task="hold", batch_slots=1)] * 3)
        await engine.reaches(ids[0], JobStatus.RUNNING)
        assert await status_of(engine, *ids[1:]) == [JobStatus.QUEUED] * 2
        await change(engine, await tree_of(engine, ids[0]), timeout_seconds=0.1)
        assert [job.reason for job in await engine.over(*ids[1:])] == [Reason.DEADLINE] * 2
        assert await status_of(engine, ids[0]) == [JobStatus.RUNNING]


async def test_who_follows_a_tree_is_told_of_the_new_limits_of_its_jobs(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [job_id, _] = await engine.run("hold", "hold")
        await engine.reaches(job_id, JobStatus.RUNNING)
        with engine.event_bus.subscribe([await tree_of(engine, job_id)], lambda job: job.id == job_id) as changes:
            await change(engine, job_id, budget_usd=2.5)
            with anyio.fail_after(LONG):
                assert [job.spec.max_budget_usd for job in await changes.changes()] == [2.5]


async def test_a_batch_inside_a_tree_has_slots_and_no_other_limit_and_the_refusal_says_what_has_it(tmp_path: Path):
    async with parts(tmp_path) as engine:
        parent = (await root_job(engine, "hold")).id
        ids = await engine.run("hold", "hold", parent=parent)
        batch = (await engine.job(ids[0])).batch_id
        for asked, option in (
            ({"budget_usd": 1.0}, "--budget-usd"),
            ({"timeout_seconds": 60.0}, "--timeout"),
            ({"max_jobs": 1}, "--max-jobs"),
        ):
            with pytest.raises(BadInputError) as refused:
                await change(engine, batch, max_concurrent=1, **asked)
            assert refused.value.field == option
            assert f"the job {parent} that started it" in refused.value.remedy
        assert (await engine.limits.in_force(batch)).limits.max_concurrent is None
        found = await change(engine, batch, max_concurrent=1)
        assert (found.limits.max_concurrent, found.below, found.limits.budget_usd) == (1, 2, None)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"budget_usd": 0.0}, r"--budget-usd: 0\.0 is not a number above 0"),
        ({"budget_usd": float("nan")}, "--budget-usd: nan is not"),
        ({"timeout_seconds": -1.0}, r"--timeout: -1\.0 is not"),
        ({"max_jobs": -1}, "--max-jobs: -1 is not between 0 and 7,.*`max_jobs` allows more"),
        ({"max_jobs": 8}, "--max-jobs: 8 is not between 0 and 7"),
        ({"max_concurrent": 0}, "--max-concurrent: 0 is less than 1.*`claude-jobs kill`"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_the_name_of_its_option(asked: dict[str, float], said: str):
    with pytest.raises(BadInputError, match=said):
        AskedLimits(**asked).checked(now=1.0, most_jobs=7)  # type: ignore[arg-type]


def test_a_tree_may_have_the_most_jobs_and_none():
    assert [AskedLimits(max_jobs=count).checked(1.0, 7).max_jobs for count in (0, 7)] == [0, 7]


async def test_what_has_completed_has_no_limits_to_change_and_what_failed_has(tmp_path: Path):
    async with parts(tmp_path) as engine:
        done, failed = await engine.run("x", "fail")
        await engine.over(done, failed)
        with pytest.raises(NothingToLimitError, match=f"All of {done} has completed"):
            await change(engine, done, max_jobs=3)
        assert (await change(engine, failed, budget_usd=3.0)).limits.budget_usd == 3.0
        assert (await change(engine, await tree_of(engine, done), budget_usd=4.0)).limits.budget_usd == 4.0


async def test_what_is_unknown_has_no_limits(tmp_path: Path):
    async with parts(tmp_path) as engine:
        with pytest.raises(NotFoundError):
            await engine.limits.in_force("j404")
        with pytest.raises(NotFoundError):
            await change(engine, "b404", max_jobs=3)
