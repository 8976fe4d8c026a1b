"""What every store does when jobs are submitted."""

from dataclasses import replace

import pytest

from jobs.errors import IdempotencyKeyError, NotFoundError, StoreError, TreeClosedError
from jobs.model import TERMINAL, JobStatus
from jobs.ports import AdmissionFacts, NewJob, Store
from jobs.spec import JobSpec
from orchestration.limits import LimitKind, RecursionLimitError, SpawnFacts, TreeLimits
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
    within,
)

pytestmark = pytest.mark.anyio


async def test_a_batch_without_a_parent_is_the_root_of_its_jobs(store: Store) -> None:
    admission = await store.admit(submission("b1", "j1", "j2"), anything_goes)

    assert admission.created
    assert (admission.batch.root_id, admission.batch.parent_id, admission.batch.created_at) == ("b1", None, 1.0)
    assert [(job.id, job.seq, job.root_id, job.depth, job.path) for job in admission.jobs] == [
        ("j1", 1, "b1", 1, "b1/j1"),
        ("j2", 2, "b1", 1, "b1/j2"),
    ]
    assert await store.jobs(["j1", "j2"]) == list(admission.jobs)


async def test_a_single_job_without_a_parent_is_its_own_root(store: Store) -> None:
    job = await admit_root(store, "j1")

    assert (job.root_id, job.parent_id, job.depth, job.path) == ("j1", None, 0, "j1")
    assert await store.job("j1") == job


async def test_a_child_stands_one_below_its_parent_in_the_same_tree(store: Store) -> None:
    await admit(store, "b1", "j1")
    (child,) = await admit(store, "b2", "j2", parent_id="j1")

    assert (child.root_id, child.parent_id, child.batch_id) == ("b1", "j1", "b2")
    assert (child.depth, child.path) == (2, "b1/j1/j2")


async def test_a_root_makes_a_tree_and_a_child_does_not(store: Store) -> None:
    await admit(store, "b1", "j1")
    await admit(store, "b2", "j2", parent_id="j1")
    tree = await store.tree("b1")

    assert tree is not None
    assert (tree.id, tree.created_at, tree.client) == ("b1", 1.0, "a client")
    assert await store.tree("b2") is None


async def test_a_spec_comes_back_as_it_was_given(store: Store) -> None:
    spec = JobSpec(
        task="naïve “task”\n\x00 with everything",
        cwd="/srv",
        model="m",
        permission_mode="plan",
        output_format="text",
        verbose=True,
        effort="high",
        max_budget_usd=1.5,
        timeout_seconds=60.0,
        allowed_tools=("Read", "Bash(git *)"),
        disallowed_tools=("Write",),
        append_system_prompt="be brief",
        json_schema='{"type": "object"}',
        key="k",
        depends_on=("j0",),
        resume_session="s",
        fork_session=True,
    )
    await store.admit(replace(submission("b1"), jobs=[NewJob(id="j1", spec=spec)]), anything_goes)

    assert (await known(store, "j1")).spec == spec


async def test_the_check_is_told_what_stands_in_the_tree(store: Store) -> None:
    seen: list[AdmissionFacts] = []
    await store.admit(submission("b1", "j1", "j2"), seen.append)
    await store.admit(submission("b2", "j3", "j4", parent_id="j1"), seen.append)
    await store.admit(submission("b3", "j5", parent_id="j1"), seen.append)
    await store.admit(submission("b4", "j6", parent_id="j3"), seen.append)
    await store.admit(submission("b5", "j7", as_root=True), seen.append)

    assert [facts.spawn for facts in seen] == [
        SpawnFacts(depth=1, asked=2, children=0, nodes=0, tree_id="b1"),
        SpawnFacts(depth=2, asked=2, children=0, nodes=2, tree_id="b1"),
        SpawnFacts(depth=2, asked=1, children=2, nodes=4, tree_id="b1"),
        SpawnFacts(depth=3, asked=1, children=0, nodes=5, tree_id="b1"),
        SpawnFacts(depth=0, asked=1, children=0, nodes=0, tree_id="j7"),
    ]


async def test_the_check_is_told_who_stands_above_with_the_root_first(store: Store) -> None:
    seen: list[AdmissionFacts] = []
    await admit(store, "b1", "j1")
    await admit(store, "b2", "j2", parent_id="j1")
    await admit(store, "b3", "j0", parent_id="j2")
    asked = submission("b4", "j4", parent_id="j0")
    await store.admit(asked, seen.append)
    await store.admit(submission("b5", "j5", as_root=True), seen.append)

    assert ids(seen[0].ancestors) == ["j1", "j2", "j0"]
    assert (seen[0].submission, seen[0].tree) == (asked, await store.tree("b1"))
    assert (seen[1].ancestors, seen[1].tree) == ((), await store.tree("j5"))


async def test_the_check_sees_the_budget_of_the_tree(store: Store) -> None:
    seen: list[AdmissionFacts] = []
    await store.admit(replace(submission("b1", "j1", "j2"), max_budget_usd=2.5, deadline=99.0), anything_goes)
    await store.admit(submission("b2", "j3", parent_id="j2"), seen.append)
    tree = await store.tree("b1")

    assert tree is not None
    assert (tree.max_budget_usd, tree.deadline) == (2.5, 99.0)
    assert seen[0].tree == tree


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (TreeLimits(max_depth=1), LimitKind.DEPTH),
        (TreeLimits(max_children=1), LimitKind.CHILDREN),
        (TreeLimits(max_nodes=2), LimitKind.NODES),
    ],
)
async def test_a_refused_spawn_writes_nothing(store: Store, limits: TreeLimits, kind: LimitKind) -> None:
    await admit(store, "b1", "j1")

    with pytest.raises(RecursionLimitError) as refused:
        await store.admit(submission("b2", "j2", "j3", parent_id="j1", caller="c", key="k"), within(limits))

    assert refused.value.kind is kind
    assert await store.batch("b2") is None
    assert ids(await store.jobs_under("b1")) == ["j1"]
    assert (await store.admit(submission("b3", "j4", parent_id="j1", caller="c", key="k"), anything_goes)).created


async def test_a_refused_root_leaves_no_tree(store: Store) -> None:
    with pytest.raises(RecursionLimitError):
        await store.admit(submission("b1", "j1", "j2"), within(TreeLimits(max_nodes=1)))

    assert await store.tree("b1") is None


async def test_an_unknown_parent_is_an_error_and_no_root(store: Store) -> None:
    with pytest.raises(NotFoundError):
        await store.admit(submission("b1", "j1", parent_id="nobody"), anything_goes)

    assert await store.job("j1") is None


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_a_job_that_is_over_cannot_spawn(store: Store, status: JobStatus) -> None:
    await bring_to(store, "j1", status)

    with pytest.raises(TreeClosedError) as refused:
        await admit(store, "b2", "j2", parent_id="j1")

    assert (refused.value.parent_id, refused.value.status) == ("j1", status)


async def test_a_job_that_is_being_cancelled_cannot_spawn(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.cancel_under("j1", at=3.0)

    with pytest.raises(TreeClosedError):
        await admit(store, "b2", "j2", parent_id="j1")


@pytest.mark.parametrize("ancestor", [JobStatus.QUEUED, JobStatus.RUNNING])
async def test_a_retried_job_below_a_cancelled_ancestor_cannot_spawn(store: Store, ancestor: JobStatus) -> None:
    await bring_to(store, "j1", ancestor)
    await admit(store, "b2", "j2", parent_id="j1")
    await admit(store, "b3", "j3", parent_id="j2")
    await store.cancel_under("j1", at=3.0)
    if ancestor is JobStatus.RUNNING:
        # It ended otherwise before its cancel reached it.
        await store.settle("j1", 1, ending(JobStatus.FAILED), at=4.0)
    await store.requeue("j3")
    await start(store, "j3")

    with pytest.raises(TreeClosedError) as refused:
        await admit(store, "b4", "j4", parent_id="j3")

    assert refused.value.parent_id == "j3"


async def test_a_job_whose_retried_ancestor_runs_again_can_spawn(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.CANCELLED)
    await store.requeue("j1")
    await start(store, "j1")

    assert ids(await admit(store, "b2", "j2", parent_id="j1")) == ["j2"]


async def test_a_used_key_returns_the_earlier_jobs_as_they_are_now(store: Store) -> None:
    first = await store.admit(submission("b1", "j1", "j2", caller="c", key="k"), anything_goes)
    await start(store, "j1")
    again = await store.admit(submission("b2", "j3", "j4", caller="c", key="k", at=9.0), anything_goes)

    assert not again.created
    assert again.batch == first.batch
    assert ids(again.jobs) == ["j1", "j2"]
    assert again.jobs[0].status is JobStatus.RUNNING
    assert await store.job("j3") is None


async def test_a_used_key_is_answered_before_anything_is_checked(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.admit(submission("b2", "j2", parent_id="j1", caller="j1", key="k"), anything_goes)
    await store.cancel_under("j1", at=3.0)

    def refuse(facts: AdmissionFacts) -> None:
        TreeLimits(max_depth=-1).check(facts.spawn)

    again = await store.admit(submission("b3", "j3", parent_id="j1", caller="j1", key="k"), refuse)
    elsewhere = await store.admit(submission("b4", "j4", parent_id="nobody", caller="j1", key="k"), refuse)

    assert (ids(again.jobs), ids(elsewhere.jobs)) == (["j2"], ["j2"])


async def test_a_key_that_was_used_for_another_request_is_refused_with_the_earlier_jobs(store: Store) -> None:
    await store.admit(submission("b1", "j1", "j2", caller="c", key="k", digest="one"), anything_goes)
    with pytest.raises(IdempotencyKeyError) as refused:
        await store.admit(submission("b2", "j3", caller="c", key="k", digest="other"), anything_goes)
    assert (refused.value.key, refused.value.batch_id, refused.value.job_ids) == ("k", "b1", ("j1", "j2"))
    assert ids(await store.newest_jobs(limit=9)) == ["j2", "j1"]
    again = await store.admit(submission("b3", "j4", "j5", caller="c", key="k", digest="one"), anything_goes)
    assert (ids(again.jobs), again.created) == (["j1", "j2"], False)


async def test_without_a_digest_a_key_alone_tells_that_a_request_is_the_same(store: Store) -> None:
    await store.admit(submission("b1", "j1", caller="c", key="k"), anything_goes)
    await store.admit(submission("b2", "j2", caller="c", key="l", digest="one"), anything_goes)
    assert not (await store.admit(submission("b3", "j3", caller="c", key="k", digest="one"), anything_goes)).created
    assert not (await store.admit(submission("b4", "j4", caller="c", key="l"), anything_goes)).created


async def test_keys_of_two_callers_do_not_meet(store: Store) -> None:
    await store.admit(submission("b1", "j1", caller="c", key="k"), anything_goes)

    assert (await store.admit(submission("b2", "j2", caller="d", key="k"), anything_goes)).created


async def test_submissions_without_a_key_are_never_the_same(store: Store) -> None:
    await store.admit(submission("b1", "j1", caller="c"), anything_goes)

    assert (await store.admit(submission("b2", "j2", caller="c"), anything_goes)).created


async def test_an_empty_key_is_a_key(store: Store) -> None:
    await store.admit(submission("b1", "j1", caller="c"), anything_goes)
    await store.admit(submission("b2", "j2", caller="c", key=""), anything_goes)

    assert ids((await store.admit(submission("b3", "j3", caller="c", key=""), anything_goes)).jobs) == ["j2"]


@pytest.mark.parametrize("second", [("b1", "j9"), ("b9", "j1"), ("b9", "j8", "j8")])
async def test_an_id_is_admitted_once_and_all_or_none(store: Store, second: tuple[str, ...]) -> None:
    before = await admit(store, "b1", "j1")

    with pytest.raises(StoreError):
        await store.admit(submission(*second), anything_goes)

    assert await store.newest_jobs(limit=10) == list(before)
    assert await store.tree("b9") is None
