"""What every store does with trees that are over, with sessions, and with sums over everything."""

from dataclasses import replace

import pytest

from jobs.errors import NotFoundError
from jobs.model import Job, JobStatus, Usage
from jobs.ports import EndedTree, Store
from tests.contract.support import (
    admit,
    admit_root,
    anything_goes,
    bring_to,
    ending,
    ids,
    known,
    start,
    submission,
)

pytestmark = pytest.mark.anyio

USAGE = Usage(cost_usd=0.5, input_tokens=10, output_tokens=2, turns=1)


async def _end(store: Store, job_id: str, at: float) -> None:
    attempt = await start(store, job_id, token_hash=f"token of {job_id}")
    await store.settle(job_id, attempt.number, ending(JobStatus.COMPLETED, usage=USAGE, result="r"), at=at)


async def _family(store: Store) -> None:
    """b1 (j1 (j2 (j4), j3)), every job spawned by a running parent, and all over in the end."""
    await store.admit(submission("b1", "j1", caller="c", key="k"), anything_goes)
    await admit(store, "b2", "j2", "j3", parent_id="j1")
    await admit(store, "b3", "j4", parent_id="j2")
    for at, job_id in enumerate(("j4", "j3", "j2", "j1"), start=10):
        await _end(store, job_id, float(at))


async def test_a_claim_notes_whose_settings_the_attempt_loads(store: Store) -> None:
    await admit_root(store, "j1")
    attempt = await store.claim("j1", session_id="s", token_hash=None, at=1.0, setting_sources="user,project")

    assert attempt is not None
    assert attempt.setting_sources == "user,project"
    assert await store.attempt("j1", 1) == attempt


async def test_an_attempt_keeps_what_it_consumed_itself(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.settle("j1", 1, ending(JobStatus.QUEUED, usage=USAGE), at=3.0)
    await start(store, "j1")
    more = replace(USAGE, turns=5)
    await store.settle("j1", 2, ending(JobStatus.FAILED, usage=more), at=4.0)
    attempts = [await store.attempt("j1", number) for number in (1, 2)]

    assert [attempt and attempt.usage for attempt in attempts] == [USAGE, more]


async def test_a_rollup_of_everything_sums_every_tree(store: Store) -> None:
    assert (await store.rollup_all()).total == 0
    await _family(store)
    await admit_root(store, "j9")
    rollup = await store.rollup_all()

    assert rollup.counts == {JobStatus.COMPLETED: 4, JobStatus.QUEUED: 1}
    assert rollup.usage == Usage(cost_usd=2.0, input_tokens=40, output_tokens=8, turns=4)
    assert rollup.deepest == 3


async def test_a_tree_has_ended_when_its_last_job_has(store: Store) -> None:
    await _family(store)
    await bring_to(store, "j8", JobStatus.RUNNING)
    await admit_root(store, "j9")

    assert await store.ended_trees(before=13.0) == []
    assert await store.ended_trees(before=13.5) == [EndedTree(id="b1", ended_at=13.0, jobs=4)]


async def test_the_tree_that_ended_first_comes_first(store: Store) -> None:
    for job_id, at in (("j1", 5.0), ("j3", 4.0), ("j2", 4.0)):
        await admit_root(store, job_id)
        await _end(store, job_id, at)

    assert [tree.id for tree in await store.ended_trees(before=9.0)] == ["j2", "j3", "j1"]


async def test_a_forgotten_tree_leaves_nothing_and_nothing_else_is_touched(store: Store) -> None:
    await _family(store)
    await admit(store, "b7", "j7")
    other = await known(store, "j7")

    assert await store.delete_tree("b1")
    for batch_id in ("b1", "b2", "b3"):
        assert await store.batch(batch_id) is None
    for job_id in ("j1", "j2", "j3", "j4"):
        assert (await store.job(job_id), await store.attempt(job_id, 1)) == (None, None)
    assert await store.tree("b1") is None
    assert await store.ended_trees(before=99.0) == []
    assert await store.newest_jobs(limit=9) == [other]
    assert not await store.delete_tree("b1")


async def test_ids_keys_and_tokens_of_a_forgotten_tree_may_be_used_again(store: Store) -> None:
    await _family(store)
    await store.delete_tree("b1")

    assert (await store.admit(submission("b1", "j1", caller="c", key="k"), anything_goes)).created
    assert (await start(store, "j1", token_hash="token of j1")).number == 1
    with pytest.raises(NotFoundError):
        await admit(store, "b9", "j9", parent_id="j2")


async def test_a_tree_with_a_live_job_is_not_forgotten(store: Store) -> None:
    await _family(store)
    await bring_to(store, "j9", JobStatus.RUNNING)
    before: list[Job] = list(await store.newest_jobs(limit=9))

    assert not await store.delete_tree("j9")
    assert not await store.delete_tree("j4")
    assert not await store.delete_tree("nobody")
    assert list(await store.newest_jobs(limit=9)) == before
    assert ids(before) == ["j9", "j4", "j3", "j2", "j1"]


async def test_a_tree_that_a_retry_revived_is_not_forgotten(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.FAILED)
    await store.requeue("j1")

    assert await store.ended_trees(before=99.0) == []
    assert not await store.delete_tree("j1")


async def test_sums_follow_what_is_claimed_settled_retried_and_forgotten(store: Store) -> None:
    await _family(store)
    await bring_to(store, "j9", JobStatus.RUNNING)
    await store.settle("j9", 1, ending(JobStatus.FAILED, usage=USAGE), at=20.0)
    await store.requeue("j9")
    assert (await store.rollup_all()).counts == {JobStatus.COMPLETED: 4, JobStatus.QUEUED: 1}
    assert (await store.rollup_all()).usage.turns == 5
    await store.delete_tree("b1")
    await store.shrink()
    rollup = await store.rollup_all()

    assert (rollup.counts, rollup.usage, rollup.deepest) == ({JobStatus.QUEUED: 1}, USAGE, 0)
