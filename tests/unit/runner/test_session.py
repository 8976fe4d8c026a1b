"""Which attempt the next one goes on from, and how often one follows: with attempts between that never came to work."""

from pathlib import Path
from typing import Any

import pytest

from jobs.model import Attempt, Job, JobStatus, Outcome, Reason, Usage
from jobs.ports import NewJob, NewLimits, Store, Submission
from jobs.prompts.briefing import Prompts
from jobs.runner.launch_plan import LaunchPlanner
from jobs.runner.retry_policy import (
    MAX_LAUNCH_FAILURES,
    MAX_LIMITED,
    MAX_REFUSED,
    MAX_SUBTASK_REQUESTS,
    MAX_TRANSIENT,
    RetryPolicy,
)
from jobs.spec import JobSpec
from jobs.store.memory import MemoryStore
from orchestration.limits import TreeLimits
from tests.unit.jobs.support import Parts, admit_anything, known, parts, preparation_of

pytestmark = pytest.mark.anyio

ANSWERED = Usage(turns=1)
ASKED = "00000000-0000-4000-8000-00000000000a"
SUBTASKS = {"structured_output": {"subtasks": ["a", "b"]}}


class Past:
    """A job whose attempts a test writes by itself.

    Args:
        store: Where it stands.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    async def of(cls, store: Store, **spec: Any) -> "Past":
        asked = JobSpec(task="the task itself", cwd="/", **spec)
        submission = Submission(batch_id="b1", jobs=[NewJob(id="j1", spec=asked)], as_root=True)
        await store.admit(submission, admit_anything)
        return cls(store)

    async def begins(self, session: str) -> Attempt:
        attempt = await self.store.claim("j1", session_id=session, token_hash=None, at=1.0)
        assert attempt is not None
        return attempt

    async def had(self, session: str, reason: Reason, **outcome: Any) -> None:
        """One more attempt that another followed."""
        attempt = await self.begins(session)
        ended = Outcome(reason=reason, status=JobStatus.QUEUED, **outcome)
        await self.store.settle("j1", attempt.number, ended, at=2.0)

    async def job(self) -> Job:
        return await known(self.store, "j1")


def launch_planner(here: Parts) -> LaunchPlanner:
    return preparation_of(here.settings, here.store, here.client_contexts)


NEVER_HEARD = [Reason.LOST, Reason.STARTUP, Reason.SESSION_IN_USE, Reason.CANCELLED]


@pytest.mark.parametrize("reason", NEVER_HEARD)
async def test_an_attempt_that_came_to_nothing_does_not_take_the_session_of_the_one_before(
    tmp_path: Path, reason: Reason
):
    async with parts(tmp_path, processes=True) as here:
        past = await Past.of(here.store)
        await past.had("s1", Reason.USAGE_LIMIT, usage=ANSWERED)
        await past.had("s2", reason)
        session = await launch_planner(here).session(await past.job())
        assert (session.id, session.continues) == ("s1", "s1")
        prompt = await Prompts(here.store, TreeLimits()).compose(await past.job(), session.resumed)
        assert "paused by a limit" in prompt.text


async def test_a_session_that_is_gone_is_not_looked_for_again(tmp_path: Path):
    async with parts(tmp_path, processes=True) as here:
        past = await Past.of(here.store)
        await past.had("s1", Reason.LOST, usage=ANSWERED)
        await past.had("s1", Reason.NO_SESSION, frame={"num_turns": 0})
        await past.had("s2", Reason.LOST)
        session = await launch_planner(here).session(await past.job())
        assert (session.continues, session.resumed) == (None, None)
        assert session.id not in {"s1", "s2"}


@pytest.mark.parametrize("fork", [False, True])
async def test_a_message_to_a_session_is_told_again_where_the_attempt_was_lost_before_the_model_answered(
    tmp_path: Path, fork: bool
):
    async with parts(tmp_path, processes=True) as here:
        past = await Past.of(here.store, resume_session=ASKED, fork_session=fork)
        first = await launch_planner(here).session(await past.job())
        attempt = await past.begins(first.id)
        directory = launch_planner(here).path(await past.job(), attempt.number)
        directory.mkdir(parents=True, mode=0o700)
        (directory / "lock").write_text("shim 1\n")
        await here.store.settle("j1", 1, Outcome(reason=Reason.LOST, status=JobStatus.QUEUED), at=2.0)
        session = await launch_planner(here).session(await past.job())
        assert session.continues == ASKED
        prompt = await Prompts(here.store, TreeLimits()).compose(await past.job(), session.resumed)
        assert prompt.text == "the task itself"


async def follows(
    past: Past, reason: Reason, *, session: str = "s1", never_ran: frozenset[int] = frozenset(), **outcome: Any
) -> bool:
    """Whether another attempt follows one that ends like this."""
    attempt = await past.begins(session)
    status = JobStatus.COMPLETED if reason is Reason.COMPLETED else JobStatus.FAILED
    ended = Outcome(reason=reason, status=status, **outcome)
    retry_policy = RetryPolicy(past.store, max_depth=5)
    decided = await retry_policy.decide(await past.job(), attempt, ended, ran=lambda one: one.number not in never_ran)
    return decided.status is JobStatus.QUEUED


@pytest.mark.parametrize("between", [Reason.OVERLOADED, Reason.CONNECTION, Reason.NO_SESSION])
async def test_a_reason_in_between_does_not_begin_the_count_of_lost_attempts_anew(between: Reason):
    past = await Past.of(MemoryStore())
    await past.had("s1", Reason.LOST, usage=ANSWERED)
    await past.had("s1", between, usage=ANSWERED)
    assert not await follows(past, Reason.LOST, usage=ANSWERED)


@pytest.mark.parametrize(
    ("reason", "most"),
    [
        (Reason.RATE_LIMIT, MAX_LIMITED),
        (Reason.OVERLOADED, MAX_LIMITED),
        (Reason.SERVER_ERROR, MAX_TRANSIENT),
        (Reason.CONNECTION, MAX_TRANSIENT),
    ],
)
async def test_a_job_meets_trouble_that_passes_so_often_and_then_fails(reason: Reason, most: int):
    for earlier, another in ((most - 1, True), (most, False)):
        past = await Past.of(MemoryStore())
        for _ in range(earlier):
            await past.had("s1", reason, usage=ANSWERED)
        assert await follows(past, reason, usage=ANSWERED) is another


async def test_trouble_before_a_job_asked_for_subtasks_is_not_counted_after():
    past = await Past.of(MemoryStore(), can_decompose=True)
    for _ in range(MAX_TRANSIENT):
        await past.had("s1", Reason.CONNECTION, usage=ANSWERED)
    await past.had("s1", Reason.COMPLETED, frame=SUBTASKS)
    assert await follows(past, Reason.CONNECTION, usage=ANSWERED)


@pytest.mark.parametrize(("deeper", "status"), [(0, JobStatus.COMPLETED), (1, JobStatus.QUEUED)])
async def test_a_job_at_the_deepest_level_asks_for_no_subtasks(deeper: int, status: JobStatus):
    past = await Past.of(MemoryStore(), can_decompose=True)
    attempt, job = await past.begins("s1"), await past.job()
    ended = Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, frame=SUBTASKS)
    decided = await RetryPolicy(past.store, max_depth=job.depth + deeper).decide(job, attempt, ended)
    assert decided.status is status


async def test_a_session_that_is_gone_again_is_not_replaced_again():
    past = await Past.of(MemoryStore())
    await past.had("s1", Reason.OVERLOADED, usage=ANSWERED)
    await past.had("s1", Reason.NO_SESSION)
    await past.had("s2", Reason.OVERLOADED, usage=ANSWERED)
    assert not await follows(past, Reason.NO_SESSION)


async def test_an_attempt_that_was_paid_for_ran_whatever_its_files_say():
    past = await Past.of(MemoryStore())
    await past.had("s1", Reason.LOST, usage=ANSWERED)
    assert not await follows(past, Reason.LOST, usage=ANSWERED, never_ran=frozenset({1, 2}))


async def test_a_job_that_is_claimed_again_and_again_without_a_process_fails_at_last():
    past = await Past.of(MemoryStore())
    never_ran = frozenset(range(1, MAX_LAUNCH_FAILURES + 2))
    for _ in range(MAX_LAUNCH_FAILURES - 1):
        await past.had("s1", Reason.LOST)
    assert await follows(past, Reason.LOST, never_ran=never_ran)
    past = await Past.of(MemoryStore())
    for _ in range(MAX_LAUNCH_FAILURES):
        await past.had("s1", Reason.LOST)
    assert not await follows(past, Reason.LOST, never_ran=never_ran)


async def test_an_attempt_that_never_ran_does_not_use_up_the_resume_of_a_lost_one():
    past = await Past.of(MemoryStore())
    await past.had("s1", Reason.LOST)
    assert await follows(past, Reason.LOST, never_ran=frozenset({1}))


async def test_an_attempt_that_never_ran_does_not_begin_the_count_of_lost_ones_anew():
    past = await Past.of(MemoryStore())
    await past.had("s1", Reason.LOST, usage=ANSWERED)
    await past.had("s1", Reason.LOST)
    assert not await follows(past, Reason.LOST, never_ran=frozenset({2}))


async def test_a_retry_on_request_begins_the_count_of_refusals_anew():
    past = await Past.of(MemoryStore())
    retry_policy, refused = RetryPolicy(past.store, 5), Outcome(reason=Reason.STARTUP, status=JobStatus.FAILED)
    for _ in range(MAX_REFUSED):
        attempt = await past.begins("s1")
        again = await retry_policy.of_refusal(attempt, refused)
        assert (await past.store.settle("j1", attempt.number, again, at=2.0)).status is JobStatus.QUEUED
    attempt = await past.begins("s1")
    assert await retry_policy.of_refusal(attempt, refused) == refused
    await past.store.settle("j1", attempt.number, refused, at=2.0)
    await past.store.requeue("j1")
    assert (await retry_policy.of_refusal(await past.begins("s1"), refused)).status is JobStatus.QUEUED


async def test_divisions_count_whatever_comes_between_them():
    past = await Past.of(MemoryStore(), can_decompose=True)
    for _ in range(MAX_SUBTASK_REQUESTS):
        await past.had("s1", Reason.COMPLETED, frame=SUBTASKS)
        await past.had("s1", Reason.USAGE_LIMIT, usage=ANSWERED)
    assert not await follows(past, Reason.COMPLETED, frame=SUBTASKS)


async def test_a_message_to_a_session_that_is_gone_fails_at_every_retry():
    past = await Past.of(MemoryStore(), resume_session=ASKED)
    await past.had(ASKED, Reason.NO_SESSION, frame={"num_turns": 0})
    assert not await follows(past, Reason.NO_SESSION, session=ASKED, frame={"num_turns": 0})


@pytest.mark.parametrize(
    ("raised_at", "left", "goes_on"), [(None, 3.0, False), (0.5, 3.0, False), (9.0, 3.0, True), (9.0, 0.0, False)]
)
async def test_an_attempt_that_met_the_budget_of_its_launch_goes_on_where_that_was_raised_since(
    raised_at: float | None, left: float, goes_on: bool
):
    past = await Past.of(MemoryStore())
    attempt = await past.begins("s1")
    if raised_at is not None:
        await past.store.set_limits("j1", NewLimits(budget_usd=9.0), at=raised_at)
    ended = Outcome(reason=Reason.BUDGET_EXHAUSTED, status=JobStatus.FAILED)
    decided = await RetryPolicy(past.store, 5, lambda _: left).decide(await past.job(), attempt, ended)
    assert (decided.status is JobStatus.QUEUED) is goes_on
