"""What every store does when jobs are admitted, claimed, settled, cancelled and tried again."""

from dataclasses import replace

import pytest

from jobs.errors import IllegalTransitionError, NotFoundError, StoreError, TreeClosedError
from jobs.model import LIVE, NEXT, TERMINAL, JobSpec, JobStatus, Outcome, Reason, Usage
from jobs.ports import NewJob, Store
from orchestration.limits import LimitKind, RecursionLimitError, SpawnFacts, TreeLimits
from tests.contract.support import (
    admit,
    admit_root,
    anything_goes,
    bring_to,
    ending,
    event,
    ids,
    known,
    start,
    submission,
)

pytestmark = pytest.mark.anyio

RUNNING_ENDS = sorted(NEXT[JobStatus.RUNNING])
QUEUED_ENDS = sorted(NEXT[JobStatus.QUEUED] & TERMINAL)


async def test_a_batch_without_a_parent_is_the_root_of_its_jobs(store: Store) -> None:
    admission = await store.admit(submission("b1", "j1", "j2"), anything_goes)

    assert admission.fresh
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
    seen: list[SpawnFacts] = []
    await store.admit(submission("b1", "j1", "j2"), seen.append)
    await store.admit(submission("b2", "j3", "j4", parent_id="j1"), seen.append)
    await store.admit(submission("b3", "j5", parent_id="j1"), seen.append)
    await store.admit(submission("b4", "j6", parent_id="j3"), seen.append)
    await store.admit(submission("b5", "j7", single=True), seen.append)

    assert seen == [
        SpawnFacts(depth=1, asked=2, children=0, nodes=0, tree_id="b1"),
        SpawnFacts(depth=2, asked=2, children=0, nodes=2, tree_id="b1"),
        SpawnFacts(depth=2, asked=1, children=2, nodes=4, tree_id="b1"),
        SpawnFacts(depth=3, asked=1, children=0, nodes=5, tree_id="b1"),
        SpawnFacts(depth=0, asked=1, children=0, nodes=0, tree_id="j7"),
    ]


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
        await store.admit(submission("b2", "j2", "j3", parent_id="j1", caller="c", key="k"), limits.check)

    assert refused.value.kind is kind
    assert await store.batch("b2") is None
    assert ids(await store.jobs_under("b1")) == ["j1"]
    assert (await store.admit(submission("b3", "j4", parent_id="j1", caller="c", key="k"), anything_goes)).fresh


async def test_a_refused_root_leaves_no_tree(store: Store) -> None:
    with pytest.raises(RecursionLimitError):
        await store.admit(submission("b1", "j1", "j2"), TreeLimits(max_nodes=1).check)

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
    await store.requeue("j3", at=4.0)
    await start(store, "j3")

    with pytest.raises(TreeClosedError) as refused:
        await admit(store, "b4", "j4", parent_id="j3")

    assert refused.value.parent_id == "j3"


async def test_a_job_whose_retried_ancestor_runs_again_can_spawn(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.CANCELLED)
    await store.requeue("j1", at=4.0)
    await start(store, "j1")

    assert ids(await admit(store, "b2", "j2", parent_id="j1")) == ["j2"]


async def test_a_used_key_returns_the_earlier_jobs_as_they_are_now(store: Store) -> None:
    first = await store.admit(submission("b1", "j1", "j2", caller="c", key="k"), anything_goes)
    await start(store, "j1")
    again = await store.admit(submission("b2", "j3", "j4", caller="c", key="k", at=9.0), anything_goes)

    assert not again.fresh
    assert again.batch == first.batch
    assert ids(again.jobs) == ["j1", "j2"]
    assert again.jobs[0].status is JobStatus.RUNNING
    assert await store.job("j3") is None


async def test_a_used_key_is_answered_before_anything_is_checked(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.admit(submission("b2", "j2", parent_id="j1", caller="j1", key="k"), anything_goes)
    await store.cancel_under("j1", at=3.0)
    refuse = TreeLimits(max_depth=-1).check

    again = await store.admit(submission("b3", "j3", parent_id="j1", caller="j1", key="k"), refuse)
    elsewhere = await store.admit(submission("b4", "j4", parent_id="nobody", caller="j1", key="k"), refuse)

    assert (ids(again.jobs), ids(elsewhere.jobs)) == (["j2"], ["j2"])


async def test_keys_of_two_callers_do_not_meet(store: Store) -> None:
    await store.admit(submission("b1", "j1", caller="c", key="k"), anything_goes)

    assert (await store.admit(submission("b2", "j2", caller="d", key="k"), anything_goes)).fresh


async def test_submissions_without_a_key_are_never_the_same(store: Store) -> None:
    await store.admit(submission("b1", "j1", caller="c"), anything_goes)

    assert (await store.admit(submission("b2", "j2", caller="c"), anything_goes)).fresh


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


async def test_a_claim_starts_an_attempt(store: Store) -> None:
    await admit_root(store, "j1")
    attempt = await store.claim("j1", session_id="s", token_hash="t", at=2.0)

    assert attempt is not None
    assert (attempt.number, attempt.session_id, attempt.token_hash, attempt.started_at) == (1, "s", "t", 2.0)
    assert await store.attempt("j1", 1) == attempt
    job = await known(store, "j1")
    assert (job.status, job.attempt, job.session_id, job.started_at) == (JobStatus.RUNNING, 1, "s", 2.0)


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.QUEUED}))
async def test_a_job_that_is_not_queued_cannot_be_claimed(store: Store, status: JobStatus) -> None:
    before = await bring_to(store, "j1", status)

    assert await store.claim("j1", session_id="other", token_hash=None, at=9.0) is None
    assert await store.job("j1") == before
    assert await store.attempt("j1", 2) is None


async def test_an_unknown_job_cannot_be_claimed(store: Store) -> None:
    assert await store.claim("nobody", session_id="s", token_hash=None, at=2.0) is None


async def test_a_token_belongs_to_one_attempt(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")
    await start(store, "j1", token_hash="t")

    with pytest.raises(StoreError):
        await start(store, "j2", token_hash="t")

    assert (await known(store, "j2")).status is JobStatus.QUEUED
    assert await store.caller("t") == await known(store, "j1")


async def test_two_attempts_may_be_without_a_token(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")

    assert [(await start(store, job_id)).token_hash for job_id in ("j1", "j2")] == [None, None]


async def test_a_claim_clears_what_the_last_attempt_left(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.settle("j1", 1, ending(JobStatus.QUEUED, detail="limit", result="half"), at=3.0)
    attempt = await start(store, "j1", at=4.0)

    job = await known(store, "j1")
    assert attempt.number == job.attempt == 2
    assert (job.reason, job.error, job.excerpt, job.started_at) == (None, None, None, 4.0)


async def test_a_token_names_its_job_while_the_attempt_runs(store: Store) -> None:
    await admit_root(store, "j1")
    await start(store, "j1", token_hash="t1")
    assert await store.caller("t1") == await known(store, "j1")

    await store.settle("j1", 1, ending(JobStatus.QUEUED), at=3.0)
    assert await store.caller("t1") is None

    await start(store, "j1", token_hash="t2")
    assert await store.caller("t1") is None
    assert await store.caller("t2") == await known(store, "j1")
    assert await store.caller("t3") is None


async def test_a_launch_is_kept_with_its_attempt(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.record_launch("j1", 1, pid=4711, pid_start=12.5)
    attempt = await store.attempt("j1", 1)

    assert attempt is not None
    assert (attempt.pid, attempt.pid_start) == (4711, 12.5)


async def test_a_launch_of_an_unknown_attempt_is_ignored(store: Store) -> None:
    await store.record_launch("nobody", 1, pid=4711, pid_start=12.5)

    assert await store.attempt("nobody", 1) is None


async def test_events_come_back_in_order_and_paged(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    first = [event("j1", 20), event("j1", 0, text="naïve"), event("j1", 10)]
    await store.record_events("j1", 1, first, 30)
    await store.settle("j1", 1, ending(JobStatus.QUEUED), at=3.0)
    await start(store, "j1")
    await store.record_events("j1", 2, [event("j1", 0, attempt=2)], 5)

    everything = await store.events("j1")
    assert [(item.attempt, item.offset) for item in everything] == [(1, 0), (1, 10), (1, 20), (2, 0)]
    assert everything[0] == first[1]
    assert await store.events("j1", limit=2) == list(everything[:2])
    assert await store.events("j1", after=(1, 10)) == list(everything[2:])
    assert await store.events("j1", after=(2, 0)) == []
    assert await store.events("nobody") == []


async def test_events_before_the_stored_offset_are_left_out(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.record_events("j1", 1, [event("j1", 0)], 10)
    await store.record_events("j1", 1, [event("j1", 0, text="again"), event("j1", 5), event("j1", 10)], 20)

    assert [(item.offset, item.text) for item in await store.events("j1")] == [(0, ""), (10, "")]


async def test_an_event_at_the_stored_offset_is_kept_once(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.record_events("j1", 1, [event("j1", 10, text="first")], 10)
    await store.record_events("j1", 1, [event("j1", 10, text="second")], 10)

    assert [item.text for item in await store.events("j1")] == ["first"]


async def test_an_offset_never_moves_back(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    for offset in (20, 10):
        await store.record_events("j1", 1, [], offset)

    attempt = await store.attempt("j1", 1)
    assert attempt is not None
    assert attempt.offset == 20


async def test_a_late_reader_of_an_old_attempt_writes_nothing(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.settle("j1", 1, ending(JobStatus.QUEUED), at=3.0)
    await start(store, "j1")
    await store.record_events("j1", 1, [event("j1", 0)], 10)
    await store.record_events("nobody", 1, [event("nobody", 0)], 10)

    old = await store.attempt("j1", 1)
    assert old is not None
    assert (old.offset, await store.events("j1"), await store.events("nobody")) == (0, [], [])


async def test_the_last_lines_of_a_settled_attempt_are_still_kept(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.COMPLETED)
    await store.record_events("j1", 1, [event("j1", 0)], 10)

    assert len(await store.events("j1")) == 1


@pytest.mark.parametrize("status", RUNNING_ENDS)
async def test_a_running_job_settles_into_every_status_that_has_an_arrow(store: Store, status: JobStatus) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    job = await store.settle("j1", 1, ending(status, detail="why"), at=3.0)

    assert (job.status, job.reason, job.error, job.session_id) == (
        status,
        ending(status).reason,
        "why",
        "session of j1",
    )
    assert (job.started_at, job.ended_at) == ((None, None) if status in LIVE else (2.0, 3.0))
    assert await store.job("j1") == job


async def test_a_running_job_does_not_settle_into_running(store: Store) -> None:
    before = await bring_to(store, "j1", JobStatus.RUNNING)

    with pytest.raises(IllegalTransitionError):
        await store.settle("j1", 1, ending(JobStatus.RUNNING), at=3.0)

    assert await store.job("j1") == before


@pytest.mark.parametrize("requested", sorted(JobStatus))
@pytest.mark.parametrize("current", sorted(set(JobStatus) - {JobStatus.RUNNING}))
async def test_a_job_that_does_not_run_cannot_be_settled(
    store: Store, current: JobStatus, requested: JobStatus
) -> None:
    before = await bring_to(store, "j1", current)

    with pytest.raises(IllegalTransitionError) as refused:
        await store.settle("j1", before.attempt, ending(requested), at=4.0)

    assert (refused.value.current, refused.value.requested) == (current, requested)
    assert await store.job("j1") == before


async def test_an_attempt_that_was_followed_by_another_cannot_settle_the_job(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.settle("j1", 1, ending(JobStatus.QUEUED), at=3.0)
    await start(store, "j1")
    before = await known(store, "j1")

    with pytest.raises(IllegalTransitionError, match="attempt 2"):
        await store.settle("j1", 1, ending(JobStatus.COMPLETED), at=4.0)

    assert await store.job("j1") == before


async def test_an_unknown_job_cannot_be_settled(store: Store) -> None:
    with pytest.raises(NotFoundError):
        await store.settle("nobody", 1, ending(JobStatus.COMPLETED), at=3.0)


async def test_a_settled_attempt_keeps_everything_but_its_token(store: Store) -> None:
    await admit_root(store, "j1")
    await start(store, "j1", token_hash="t")
    frame = {"type": "result", "usage": {"input_tokens": 3}, "odd": "\ud800", "list": [1, None, 0.5]}
    outcome = Outcome(
        reason=Reason.SCHEMA_UNMET, status=JobStatus.FAILED, detail="d", result="r" * 600, frame=frame, exit_code=1
    )
    job = await store.settle("j1", 1, outcome, at=3.0)
    attempt = await store.attempt("j1", 1)

    assert attempt is not None
    assert (attempt.status, attempt.reason, attempt.exit_code) == (JobStatus.FAILED, Reason.SCHEMA_UNMET, 1)
    assert (attempt.result, attempt.frame, attempt.ended_at) == ("r" * 600, frame, 3.0)
    assert (attempt.token_hash, attempt.session_id) == (None, "session of j1")
    assert job.excerpt == "r" * 500


async def test_a_job_adds_up_what_its_attempts_consumed(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    usage = Usage(cost_usd=0.25, input_tokens=10, output_tokens=3, turns=2)
    await store.settle("j1", 1, ending(JobStatus.QUEUED, usage=usage), at=3.0)
    await start(store, "j1")
    job = await store.settle("j1", 2, ending(JobStatus.COMPLETED, usage=usage), at=4.0)

    assert job.usage == Usage(cost_usd=0.5, input_tokens=20, output_tokens=6, turns=4)


async def test_text_that_no_file_can_hold_is_kept_with_question_marks(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.record_events("j1", 1, [event("j1", 0, text="a\ud800b")], 10)
    job = await store.settle("j1", 1, ending(JobStatus.FAILED, detail="\udfff", result="c\ud800"), at=3.0)
    attempt = await store.attempt("j1", 1)

    assert attempt is not None
    assert (attempt.result, job.excerpt, job.error) == ("c?", "c?", "?")
    assert [item.text for item in await store.events("j1")] == ["a?b"]


async def test_a_job_whose_cancel_was_ordered_does_not_go_back_in_line(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.cancel_under("j1", at=3.0)
    job = await store.settle("j1", 1, ending(JobStatus.QUEUED, detail="limit"), at=4.0)
    attempt = await store.attempt("j1", 1)

    assert (job.status, job.reason, job.started_at, job.ended_at) == (
        JobStatus.CANCELLED,
        Reason.CANCELLED,
        2.0,
        4.0,
    )
    assert attempt is not None
    assert (attempt.status, attempt.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)


async def test_a_job_that_answers_although_its_cancel_was_ordered_is_completed(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.cancel_under("j1", at=3.0)

    assert (await store.settle("j1", 1, ending(JobStatus.COMPLETED), at=4.0)).status is JobStatus.COMPLETED


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
    job = await store.requeue("j1", at=5.0)

    assert job == replace(
        before, status=JobStatus.QUEUED, reason=None, error=None, excerpt=None, started_at=None, ended_at=None
    )
    assert await store.job("j1") == job
    assert (await start(store, "j1")).number == 2


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COMPLETED])
async def test_no_other_job_can_be_tried_again(store: Store, status: JobStatus) -> None:
    before = await bring_to(store, "j1", status)

    assert await store.requeue("j1", at=5.0) is None
    assert await store.requeue("nobody", at=5.0) is None
    assert await store.job("j1") == before


async def test_a_retry_forgets_the_cancel(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.cancel_under("j1", at=3.0)
    ended = await store.settle("j1", 1, ending(JobStatus.CANCELLED), at=4.0)
    job = await store.requeue("j1", at=5.0)

    assert job is not None
    assert (ended.cancel_requested, job.cancel_requested) == (True, False)
    assert await store.claim("j1", session_id="s", token_hash=None, at=6.0) is not None
