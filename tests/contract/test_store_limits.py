"""What every store does when a person changes the limits of a tree, of a part of it or of a batch."""

import pytest

from jobs.model import JobStatus
from jobs.ports import NewLimits, Store
from tests.contract.support import admit, admit_root, bring_to, known

pytestmark = pytest.mark.anyio

ALL = NewLimits(budget_usd=5.0, deadline=99.0, max_jobs=7, max_concurrent=3)


async def test_a_batch_that_is_a_root_has_its_tree_limited_and_its_jobs_at_once(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")
    limited = await store.set_limits("b1", ALL, at=4.0)

    assert limited is not None
    tree = limited.tree
    assert (tree.max_budget_usd, tree.deadline, tree.max_jobs, tree.limits_at) == (5.0, 99.0, 7, 4.0)
    assert tree == await store.tree("b1")
    assert [job.spec.batch_slots for job in limited.jobs] == [3, 3]
    assert list(limited.jobs) == list(await store.jobs_in_batch("b1"))
    assert limited.jobs[0].spec.max_budget_usd is None


async def test_a_job_in_a_tree_is_limited_alone(store: Store) -> None:
    await admit_root(store, "j1")
    await admit(store, "b2", "j2", "j3", parent_id="j1")
    limited = await store.set_limits("j2", ALL, at=4.0)

    assert limited is not None
    assert (limited.tree.max_budget_usd, limited.tree.limits_at) == (None, 4.0)
    spec = (await known(store, "j2")).spec
    assert (spec.max_budget_usd, spec.deadline, spec.max_jobs, spec.subtree_slots) == (5.0, 99.0, 7, 3)
    assert (await known(store, "j3")).spec.max_budget_usd is None


async def test_a_job_that_is_a_root_and_its_tree_are_limited_together(store: Store) -> None:
    await admit_root(store, "j1", tasks={"j1": "x" * 3000})
    limited = await store.set_limits("j1", NewLimits(budget_usd=2.0), at=4.0)

    assert limited is not None
    job = await known(store, "j1")
    assert (limited.tree.max_budget_usd, job.spec.max_budget_usd) == (2.0, 2.0)
    assert await store.task("j1") == "x" * 3000


async def test_what_is_not_named_stays_as_it_was(store: Store) -> None:
    await admit(store, "b1", "j1")
    await store.set_limits("b1", ALL, at=4.0)
    limited = await store.set_limits("b1", NewLimits(max_jobs=0), at=5.0)

    assert limited is not None
    assert (limited.tree.max_budget_usd, limited.tree.max_jobs, limited.tree.limits_at) == (5.0, 0, 5.0)
    assert limited.jobs == []
    assert (await known(store, "j1")).spec.batch_slots == 3


async def test_a_job_keeps_its_state_and_a_job_that_is_over_may_be_limited_for_a_retry(store: Store) -> None:
    before = await bring_to(store, "j1", JobStatus.FAILED)
    await store.set_limits("j1", NewLimits(budget_usd=2.0), at=4.0)
    after = await known(store, "j1")

    assert (after.status, after.reason, after.attempt) == (before.status, before.reason, before.attempt)
    assert after.spec.max_budget_usd == 2.0


async def test_what_does_not_exist_is_not_limited(store: Store) -> None:
    assert await store.set_limits("j9", ALL, at=4.0) is None
    assert await store.set_limits("b9", ALL, at=4.0) is None
