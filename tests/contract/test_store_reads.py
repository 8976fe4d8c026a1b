"""What every store answers when it is asked for jobs, batches, trees and sums."""

import pytest

from jobs.model import JobStatus, Usage
from jobs.ports import NewJob, Store, Submission
from jobs.spec import TASK_PREVIEW, JobSpec
from tests.contract.support import admit, admit_root, anything_goes, bring_to, ending, ids, start, submission

pytestmark = pytest.mark.anyio


async def _forest(store: Store) -> None:
    """b1 (j1 (j3 (j5), j4), j2) and j6, with something consumed by j2 and j5."""
    await admit(store, "b1", "j1", "j2")
    await admit(store, "b2", "j3", "j4", parent_id="j1")
    await admit(store, "b3", "j5", parent_id="j3")
    await admit_root(store, "j6")
    for job_id, status in (("j2", JobStatus.FAILED), ("j5", JobStatus.COMPLETED)):
        await start(store, job_id)
        usage = Usage(cost_usd=0.5, input_tokens=10, output_tokens=2, turns=1)
        await store.settle(job_id, 1, ending(status, usage=usage), at=3.0)


@pytest.mark.parametrize("name", ["x", "", "a\ud800", "%", "'"])
async def test_nothing_is_found_where_nothing_is(store: Store, name: str) -> None:
    await _forest(store)

    assert await store.job(name) is None
    assert await store.task(name) is None
    assert await store.batch(name) is None
    assert await store.tree(name) is None
    assert await store.attempt(name, 1) is None
    assert await store.caller(name) is None
    assert await store.jobs([name]) == []
    assert await store.jobs_in_batch(name) == []
    assert await store.jobs_under(name) == []


async def test_a_job_carries_the_beginning_of_a_long_task_and_the_store_has_the_whole(store: Store) -> None:
    long = "ä" * TASK_PREVIEW + "the end"
    jobs = [
        NewJob(id="j1", spec=JobSpec(task=long, cwd="/srv")),
        NewJob(id="j2", spec=JobSpec(task=long[:TASK_PREVIEW], cwd="/srv")),
    ]
    admission = await store.admit(Submission(batch_id="b1", jobs=jobs), anything_goes)
    read = await store.jobs(["j1", "j2"])
    tasks = [await store.task(job.id) for job in read]
    await store.cancel_under("b1/j1", at=2.0)
    await store.cancel_under("b1/j2", at=2.0)
    assert await store.delete_tree("b1")

    assert list(admission.jobs) == read
    assert [job.spec.task for job in read] == [long[:TASK_PREVIEW]] * 2
    assert [job.spec.task_chars for job in read] == [len(long), None]
    assert tasks == [long, long[:TASK_PREVIEW]]
    assert await store.task("j1") is None


async def test_an_empty_store_has_no_jobs(store: Store) -> None:
    assert await store.newest_jobs(limit=5) == []
    assert await store.unfinished() == []
    assert not await store.has_unfinished()


async def test_jobs_come_in_the_order_asked_and_without_the_unknown(store: Store) -> None:
    await _forest(store)

    assert ids(await store.jobs(["j6", "nobody", "j1", "j6"])) == ["j6", "j1", "j6"]
    assert await store.jobs([]) == []


async def test_a_batch_is_found_with_its_jobs_in_order(store: Store) -> None:
    admission = await store.admit(submission("b1", "j9", "j1", "j5", caller="c", key="k"), anything_goes)

    assert await store.batch("b1") == admission.batch
    assert admission.batch.idempotency_key == "k"
    assert ids(await store.jobs_in_batch("b1")) == ["j9", "j1", "j5"]


async def test_a_subtree_is_itself_and_what_is_below(store: Store) -> None:
    await _forest(store)

    assert ids(await store.jobs_under("b1")) == ["j1", "j2", "j3", "j4", "j5"]
    assert ids(await store.jobs_under("b1/j1")) == ["j1", "j3", "j4", "j5"]
    assert ids(await store.jobs_under("b1/j1/j3/j5")) == ["j5"]
    assert ids(await store.jobs_under("j6")) == ["j6"]


async def test_a_subtree_holds_no_sibling_whose_id_begins_alike(store: Store) -> None:
    await admit(store, "b1", "j1", "j10", "j1!", "j1~", "j1A")

    assert ids(await store.jobs_under("b1/j1")) == ["j1"]
    assert await store.jobs_under("b") == []


async def test_newest_jobs_are_paged_by_their_order(store: Store) -> None:
    await _forest(store)
    page = await store.newest_jobs(limit=2)

    assert ids(page) == ["j6", "j5"]
    assert ids(await store.newest_jobs(limit=3, before_seq=page[-1].seq)) == ["j4", "j3", "j2"]
    assert await store.newest_jobs(limit=3, before_seq=1) == []
    assert await store.newest_jobs(limit=0) == []


async def test_unfinished_jobs_wait_or_run(store: Store) -> None:
    await _forest(store)
    await start(store, "j4")

    assert ids(await store.unfinished()) == ["j1", "j3", "j4", "j6"]
    assert await store.has_unfinished()


async def test_a_rollup_sums_a_subtree(store: Store) -> None:
    await _forest(store)
    rollup = await store.rollup_under("b1")

    assert rollup.counts == {JobStatus.QUEUED: 3, JobStatus.FAILED: 1, JobStatus.COMPLETED: 1}
    assert rollup.usage == Usage(cost_usd=1.0, input_tokens=20, output_tokens=4, turns=2)
    assert (rollup.deepest, rollup.total, rollup.live) == (3, 5, 3)
    assert (await store.rollup_under("b1/j2")).usage.cost_usd == 0.5


async def test_a_rollup_of_a_batch_holds_what_is_below_its_jobs(store: Store) -> None:
    await _forest(store)
    rollup = await store.rollup_batch("b2")

    assert rollup.counts == {JobStatus.QUEUED: 2, JobStatus.COMPLETED: 1}
    assert (rollup.usage.cost_usd, rollup.deepest) == (0.5, 3)


async def test_a_rollup_of_nothing_is_empty(store: Store) -> None:
    for rollup in (await store.rollup_under("x"), await store.rollup_batch("x")):
        assert (rollup.counts, rollup.usage, rollup.deepest, rollup.total) == ({}, Usage(), 0, 0)


@pytest.mark.parametrize("status", [None, JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.FAILED])
@pytest.mark.parametrize("path", [None, "b1", "b1/j1", "b1/j1/j3", "j5", "b1/j"])
@pytest.mark.parametrize("before_seq", [None, 4])
async def test_the_newest_jobs_are_found_by_status_and_subtree(
    store: Store, status: JobStatus | None, path: str | None, before_seq: int | None
) -> None:
    await admit(store, "b1", "j1", "j2")
    await start(store, "j1")
    await admit(store, "b2", "j3", "j4", parent_id="j1")
    await start(store, "j3")
    await admit_root(store, "j5")
    everything = await store.newest_jobs(limit=9)
    asked = [
        job.id
        for job in everything
        if (before_seq is None or job.seq < before_seq)
        and status in {None, job.status}
        and (path is None or f"{job.path}/".startswith(f"{path}/"))
    ]

    assert ids(await store.newest_jobs(limit=9, before_seq=before_seq, status=status, path=path)) == asked
    assert ids(await store.newest_jobs(limit=1, before_seq=before_seq, status=status, path=path)) == asked[:1]


async def test_everything_of_the_trees_that_live_is_read_and_nothing_else(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")
    await start(store, "j1")
    await admit(store, "b2", "j3", parent_id="j1")
    await start(store, "j3")
    await store.record_launch("j3", 1, pid=4711, pid_start=0.5)
    await store.cancel_under("b1/j2", at=3.0)
    await bring_to(store, "j8", JobStatus.COMPLETED)
    await admit_root(store, "j9")
    rows = await store.live_rows()

    assert sorted(tree.id for tree in rows.trees) == ["b1", "j9"]
    assert ids(rows.jobs) == ["j1", "j2", "j3", "j9"]
    assert rows.jobs == await store.jobs(["j1", "j2", "j3", "j9"])
    assert sorted((attempt.job_id, attempt.pid or 0) for attempt in rows.attempts) == [("j1", 0), ("j3", 4711)]


@pytest.mark.parametrize(
    ("beginning", "limit", "path", "expected"),
    [
        ("", 9, None, ["b-j6", "j6", "b3", "j5", "b2", "j4", "j3", "b1", "j2"]),
        ("j", 2, None, ["j6", "j5"]),
        ("b", 2, None, ["b-j6", "b3"]),
        ("j1", 9, None, ["j1"]),
        ("j", 9, "b1/j1/j3", ["j5", "j3"]),
        ("", 9, "b1/j1/j3", ["b3", "j5", "b2", "j3"]),
        ("j1", 9, "b1/j2", []),
        ("x", 9, None, []),
        ("%", 9, None, []),
        ("a\ud800", 9, None, []),
    ],
)
async def test_ids_are_found_by_how_they_begin(
    store: Store, beginning: str, limit: int, path: str | None, expected: list[str]
) -> None:
    await _forest(store)

    assert await store.ids_from(beginning, limit=limit, path=path) == expected[:limit]
