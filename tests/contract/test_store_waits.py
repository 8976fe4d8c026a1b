"""What every store keeps of a live job that does no work: which of its waits began, and that it is over."""

from dataclasses import replace

import pytest

from jobs.model import Job, JobStatus, Outcome, Reason
from jobs.ports import NewJob, Store, Submission
from jobs.spec import JobSpec
from jobs.waiting_for import WaitingFor
from tests.contract.support import admit, admit_root, anything_goes, bring_to, ending, known, start

pytestmark = pytest.mark.anyio

ASKED = Outcome(reason=Reason.COMPLETED, status=JobStatus.QUEUED)
"""How an attempt ends that asked for subtasks."""


async def _dependent(store: Store) -> Job:
    specs = {"j1": JobSpec(task="x", cwd="/"), "j2": JobSpec(task="y", cwd="/", depends_on=("j1",))}
    jobs = [NewJob(id=job_id, spec=spec) for job_id, spec in specs.items()]
    await store.admit(Submission(batch_id="b1", jobs=jobs), anything_goes)
    return await known(store, "j2")


async def test_a_job_that_depends_on_others_waits_for_them_from_its_admission_on(store: Store) -> None:
    assert (await _dependent(store)).waiting_for is WaitingFor.SIBLINGS
    assert (await known(store, "j1")).waiting_for is None


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.COMPLETED_WITH_DENIALS])
async def test_a_job_whose_attempt_asked_for_subtasks_waits_for_its_children(store: Store, reason: Reason) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    job = await store.settle("j1", 1, replace(ASKED, reason=reason), at=3.0)
    attempt = await store.attempt("j1", 1)

    assert (job.status, job.waiting_for) == (JobStatus.QUEUED, WaitingFor.CHILDREN)
    assert job == await known(store, "j1")
    assert attempt is not None
    assert attempt.asked_for_subtasks


async def test_a_job_that_goes_back_in_line_for_another_reason_waits_for_nothing_that_is_stored(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    job = await store.settle("j1", 1, ending(JobStatus.QUEUED), at=3.0)
    attempt = await store.attempt("j1", 1)

    assert job.waiting_for is None
    assert attempt is not None
    assert not attempt.asked_for_subtasks


async def test_a_wait_begins_and_ends_where_the_job_is_as_the_caller_knows_it(store: Store) -> None:
    await admit_root(store, "j1")
    begun = await store.set_waiting_for("j1", WaitingFor.CHILDREN)
    again = await store.set_waiting_for("j1", WaitingFor.SIBLINGS)
    other = await store.set_waiting_for("j1", None, was=WaitingFor.SIBLINGS)

    assert begun is not None
    assert begun.waiting_for is WaitingFor.CHILDREN
    assert (again, other) == (None, None)
    assert await known(store, "j1") == begun

    over = await store.set_waiting_for("j1", None, was=WaitingFor.CHILDREN)
    assert over == replace(begun, waiting_for=None)
    assert await known(store, "j1") == over
    assert await store.set_waiting_for("nobody", WaitingFor.CHILDREN) is None


@pytest.mark.parametrize("status", sorted(JobStatus))
@pytest.mark.parametrize("what", [WaitingFor.SIBLINGS, WaitingFor.CHILDREN, WaitingFor.PERMISSION])
async def test_a_job_waits_only_where_its_status_goes_with_it(
    store: Store, status: JobStatus, what: WaitingFor
) -> None:
    before = await bring_to(store, "j1", status)
    fits = status is (JobStatus.RUNNING if what is WaitingFor.PERMISSION else JobStatus.QUEUED)

    assert (await store.set_waiting_for("j1", what) is not None) is fits
    assert await known(store, "j1") == replace(before, waiting_for=what if fits else None)


async def test_a_claim_ends_a_wait(store: Store) -> None:
    await _dependent(store)
    await start(store, "j2")

    assert (await known(store, "j2")).waiting_for is None


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.QUEUED])
async def test_the_end_of_an_attempt_ends_its_wait_for_a_permission(store: Store, status: JobStatus) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.set_waiting_for("j1", WaitingFor.PERMISSION)
    await store.settle("j1", 1, ending(status), at=3.0)

    assert (await known(store, "j1")).waiting_for is None


async def test_a_job_that_is_cancelled_or_given_up_waits_for_nothing(store: Store) -> None:
    job = await _dependent(store)
    await store.cancel_under(job.path, at=2.0)
    assert (await known(store, "j2")).waiting_for is None

    await store.requeue("j2")
    await store.set_waiting_for("j2", WaitingFor.SIBLINGS)
    await store.fail_queued("j2", ending(JobStatus.FAILED), at=3.0)
    assert (await known(store, "j2")).waiting_for is None


async def test_a_running_job_keeps_its_wait_while_it_is_being_cancelled_and_no_subtasks_come_after(
    store: Store,
) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.set_waiting_for("j1", WaitingFor.PERMISSION)
    await store.cancel_under("j1", at=3.0)
    assert (await known(store, "j1")).waiting_for is WaitingFor.PERMISSION

    job = await store.settle("j1", 1, ASKED, at=4.0)
    assert (job.status, job.waiting_for) == (JobStatus.CANCELLED, None)


async def test_a_wait_is_read_wherever_a_job_is_read(store: Store) -> None:
    await admit(store, "b1", "j1")
    await store.set_waiting_for("j1", WaitingFor.CHILDREN)
    read = [
        *await store.jobs(["j1"]),
        *await store.jobs_in_batch("b1"),
        *await store.jobs_under("b1"),
        *await store.newest_jobs(limit=1),
        *await store.unfinished(),
        *(await store.live_rows()).jobs,
    ]

    assert [job.waiting_for for job in read] == [WaitingFor.CHILDREN] * 6
