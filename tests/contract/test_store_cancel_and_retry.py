"""What every store does with jobs that never ran, are cancelled, or are tried again."""

from dataclasses import replace

import pytest

from jobs.errors import IllegalTransitionError
from jobs.model import NEXT, TERMINAL, JobStatus, Outcome, Reason
from jobs.ports import Store
from tests.contract.support import (
    admit,
    admit_root,
    bring_to,
    ending,
    ids,
    start,
)

pytestmark = pytest.mark.anyio

QUEUED_ENDS = sorted(NEXT[JobStatus.QUEUED] & TERMINAL)


@pytest.mark.parametrize("status", QUEUED_ENDS)
async def test_a_job_that_waits_can_fail_without_an_attempt(store: Store, status: JobStatus) -> None:
    await admit_root(store, "j1")
    job = await store.fail_queued("j1", ending(status, detail="why"), at=3.0)

    assert job is not None
    assert (job.status, job.error, job.attempt, job.ended_at) == (status, "why", 0, 3.0)
    assert job.reason is ending(status).reason
    assert await store.job("j1") == job


@pytest.mark.parametrize("status", sorted(set(JobStatus) - set(QUEUED_ENDS)))
async def test_a_job_that_waits_takes_no_status_that_needs_an_attempt(store: Store, status: JobStatus) -> None:
    before = await admit_root(store, "j1")

    with pytest.raises(IllegalTransitionError):
        await store.fail_queued("j1", ending(status), at=3.0)

    assert await store.job("j1") == before


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.QUEUED}))
async def test_only_a_queued_job_fails_without_an_attempt(store: Store, status: JobStatus) -> None:
    before = await bring_to(store, "j1", status)

    assert await store.fail_queued("j1", ending(JobStatus.FAILED), at=9.0) is None
    assert await store.fail_queued("nobody", ending(JobStatus.FAILED), at=9.0) is None
    assert await store.job("j1") == before


async def test_a_cancel_settles_what_waits_and_marks_what_runs(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await admit(store, "b2", "j2", "j3", parent_id="j1")
    await start(store, "j2")
    changed = await store.cancel_under("j1", at=5.0)

    assert [(job.id, job.status, job.cancel_requested) for job in changed] == [
        ("j1", JobStatus.RUNNING, True),
        ("j2", JobStatus.RUNNING, True),
        ("j3", JobStatus.CANCELLED, False),
    ]
    assert (changed[2].reason, changed[2].ended_at) == (Reason.CANCELLED, 5.0)
    assert (changed[0].reason, changed[0].ended_at) == (None, None)
    assert await store.jobs(["j1", "j2", "j3"]) == list(changed)


async def test_a_cancelled_job_does_not_say_what_it_waited_for(store: Store) -> None:
    await admit(store, "b1", "j1")
    await start(store, "j1")
    limited = Outcome(reason=Reason.USAGE_LIMIT, status=JobStatus.QUEUED, detail="You've hit your session limit")
    await store.settle("j1", 1, limited, at=3.0)
    [cancelled] = await store.cancel_under("b1/j1", at=5.0)
    assert (cancelled.status, cancelled.error) == (JobStatus.CANCELLED, "It was cancelled before it could start.")
    assert await store.job("j1") == cancelled


async def test_subtrees_are_cancelled_together_and_each_job_once(store: Store) -> None:
    await admit(store, "b1", "j1", "j2", "j3")
    await start(store, "j1")
    await admit(store, "b2", "j4", parent_id="j1")
    changed = await store.cancel_under("b1/j1", "b1/j3", "b1/j1/j4", "b1/nobody", at=5.0)

    assert [(job.id, job.status, job.cancel_requested) for job in changed] == [
        ("j1", JobStatus.RUNNING, True),
        ("j3", JobStatus.CANCELLED, False),
        ("j4", JobStatus.CANCELLED, False),
    ]
    assert [job.status for job in await store.jobs(["j2"])] == [JobStatus.QUEUED]
    assert await store.cancel_under(at=6.0) == []


async def test_a_second_cancel_changes_nothing(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await admit(store, "b2", "j2", parent_id="j1")
    await store.cancel_under("j1", at=5.0)
    before = await store.jobs_under("j1")

    assert await store.cancel_under("j1", at=6.0) == []
    assert await store.jobs_under("j1") == before


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_a_cancel_leaves_alone_what_is_over(store: Store, status: JobStatus) -> None:
    before = await bring_to(store, "j1", status)

    assert await store.cancel_under("j1", at=5.0) == []
    assert await store.job("j1") == before


async def test_a_cancel_reaches_its_own_subtree_only(store: Store) -> None:
    await admit(store, "b1", "j1", "j1x", "j1-y", "j10")
    await admit(store, "b2", "j2", parent_id="j1")

    assert ids(await store.cancel_under("b1/j1", at=5.0)) == ["j1", "j2"]
    assert ids(await store.cancel_under("b", at=5.0)) == []
    assert ids(await store.cancel_under("b1", at=5.0)) == ["j1x", "j1-y", "j10"]


@pytest.mark.parametrize("status", sorted(status for status in TERMINAL if JobStatus.QUEUED in NEXT[status]))
async def test_a_job_without_an_answer_can_be_tried_again(store: Store, status: JobStatus) -> None:
    before = await bring_to(store, "j1", status)
    job = await store.requeue("j1")

    assert job == replace(
        before, status=JobStatus.QUEUED, reason=None, error=None, excerpt=None, started_at=None, ended_at=None
    )
    assert await store.job("j1") == job
    assert (await start(store, "j1")).number == 2


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED])
async def test_no_other_job_can_be_tried_again(store: Store, status: JobStatus) -> None:
    before = await bring_to(store, "j1", status)

    assert await store.requeue("j1") is None
    assert await store.requeue("nobody") is None
    assert await store.job("j1") == before


async def test_a_retry_forgets_the_cancel(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.cancel_under("j1", at=3.0)
    ended = await store.settle("j1", 1, ending(JobStatus.CANCELLED), at=4.0)
    job = await store.requeue("j1")

    assert job is not None
    assert (ended.cancel_requested, job.cancel_requested) == (True, False)
    assert await store.claim("j1", session_id="s", token_hash=None, at=6.0) is not None


async def test_no_job_is_tried_again_below_one_that_is_being_cancelled_until_that_is_over(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await admit(store, "b2", "j2", parent_id="j1")
    await start(store, "j2")
    await admit(store, "b3", "j3", parent_id="j2")
    await start(store, "j3")
    for job_id in ("j3", "j2"):
        await store.settle(job_id, 1, ending(JobStatus.FAILED), at=3.0)
    await store.cancel_under("j1", at=4.0)
    before = await store.jobs(["j2", "j3"])

    assert [await store.requeue(job_id) for job_id in ("j2", "j3")] == [None, None]
    assert await store.jobs(["j2", "j3"]) == before

    await store.settle("j1", 1, ending(JobStatus.CANCELLED), at=6.0)
    again = [await store.requeue(job_id) for job_id in ("j2", "j3")]
    assert ids([job for job in again if job is not None]) == ["j2", "j3"]


async def test_a_cancel_beside_or_below_a_job_does_not_keep_it_from_being_tried_again(store: Store) -> None:
    await admit(store, "b1", "j1", "j1x", "j10")
    await admit(store, "b2", "j2", parent_id="j10")
    for job_id in ("j1", "j1x", "j10", "j2"):
        await start(store, job_id)
    await store.settle("j10", 1, ending(JobStatus.FAILED), at=3.0)
    for path in ("b1/j1", "b1/j1x", "b1/j10/j2"):
        await store.cancel_under(path, at=4.0)

    assert await store.requeue("j10") is not None
