"""What every store does when a job is claimed, runs and is settled."""

import pytest

from jobs.errors import IllegalTransitionError, NotFoundError, StoreError
from jobs.model import LIVE, NEXT, JobStatus, Outcome, Reason, Usage
from jobs.ports import Store
from tests.contract.support import (
    admit,
    admit_root,
    bring_to,
    ending,
    known,
    start,
)

pytestmark = pytest.mark.anyio

RUNNING_ENDS = sorted(NEXT[JobStatus.RUNNING])


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


async def test_an_attempt_tells_what_ran_it(store: Store) -> None:
    await admit_root(store, "j1")
    claimed = await store.claim("j1", session_id="s", token_hash=None, at=2.0, cli="/bin/claude", cli_version="2.1")
    assert claimed == await store.attempt("j1", 1)
    assert claimed is not None
    assert (claimed.cli, claimed.cli_version, claimed.model) == ("/bin/claude", "2.1", None)

    done = Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, cli_version="2.1.5", model="opus")
    await store.settle("j1", 1, done, at=3.0)
    attempt = await store.attempt("j1", 1)
    assert attempt is not None
    assert (attempt.cli, attempt.cli_version, attempt.model) == ("/bin/claude", "2.1.5", "opus")


async def test_a_version_that_was_known_before_stays_where_the_cli_said_none(store: Store) -> None:
    await admit_root(store, "j1")
    await store.claim("j1", session_id="s", token_hash=None, at=2.0, cli_version="2.1")
    await store.settle("j1", 1, ending(JobStatus.FAILED), at=3.0)
    attempt = await store.attempt("j1", 1)
    assert attempt is not None
    assert (attempt.cli_version, attempt.model) == ("2.1", None)


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


@pytest.mark.parametrize(
    ("frame", "result"),
    [
        ({"type": "result", "result": "r", "n": 1}, "r"),
        ({"type": "result", "result": "other"}, "r"),
        ({"type": "result", "result": None}, "r"),
        ({"type": "result", "result": None}, None),
        ({"type": "result"}, "r"),
        ({"type": "result"}, None),
        ({"result": "c\ud800"}, "c\ud800"),
        ({"result": {"result": "r"}}, "r"),
    ],
)
async def test_a_frame_comes_back_as_it_was_whether_or_not_it_holds_the_answer(
    store: Store, frame: dict[str, object], result: str | None
) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    outcome = Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, result=result, frame=frame)
    await store.settle("j1", 1, outcome, at=3.0)
    attempt = await store.attempt("j1", 1)

    assert attempt is not None
    assert attempt.frame is not None
    assert list(attempt.frame.items()) == list(frame.items())
    assert attempt.result == (result and result.replace("\ud800", "?"))


async def test_a_job_adds_up_what_its_attempts_consumed(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    usage = Usage(cost_usd=0.25, input_tokens=10, output_tokens=3, turns=2)
    await store.settle("j1", 1, ending(JobStatus.QUEUED, usage=usage), at=3.0)
    await start(store, "j1")
    job = await store.settle("j1", 2, ending(JobStatus.COMPLETED, usage=usage), at=4.0)

    assert job.usage == Usage(cost_usd=0.5, input_tokens=20, output_tokens=6, turns=4)


async def test_text_that_no_file_can_hold_is_kept_with_question_marks(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    job = await store.settle("j1", 1, ending(JobStatus.FAILED, detail="\udfff", result="c\ud800"), at=3.0)
    attempt = await store.attempt("j1", 1)

    assert attempt is not None
    assert (attempt.result, job.excerpt, job.error) == ("c?", "c?", "?")


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
