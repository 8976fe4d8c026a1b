"""The small words: what a job is told about itself, its token, and its ids."""

import pytest

from jobs.ids import TOKEN_PREFIX, contains, hash_token, is_batch_id, new_batch_id, new_job_id, new_token
from jobs.model import Reason
from jobs.prompts.briefing import initial_briefing, resume_message
from jobs.spec import JobSpec
from orchestration.limits import TreeLimits
from tests.unit.jobs.support import job

LIMITS = TreeLimits(max_depth=3, max_children=7)


def test_a_job_is_told_who_it_is_and_what_is_left_to_it():
    words = initial_briefing(job("jme", depth=1), LIMITS)
    assert all(part in words for part in ("jme", "depth 1", "2 more levels", "at most 7 children"))


def test_a_job_above_the_deepest_level_is_told_of_one_level():
    assert "1 more level," in initial_briefing(job("jme", depth=2), LIMITS)


@pytest.mark.parametrize("depth", [3, 4])
def test_a_job_at_the_deepest_level_is_told_to_work_itself(depth: int):
    words = initial_briefing(job("jme", depth=depth), LIMITS)
    assert "do all of the work yourself" in words
    assert "spawn" not in words


@pytest.mark.parametrize("depth", [1, 3])
def test_a_job_is_told_what_it_may_still_spend(depth: int):
    poor = job("jme", depth=depth, spec=JobSpec(task="x", cwd="/", max_budget_usd=0.25))
    assert "0.2500 USD" in initial_briefing(poor, LIMITS)
    assert "USD" not in initial_briefing(job("jme", depth=depth), LIMITS)


def test_a_job_is_told_how_many_jobs_it_may_have_below_it():
    bound = job("jme", depth=1, spec=JobSpec(task="x", cwd="/", max_jobs=4))
    assert "at most 7 children, 4 jobs in all below you)" in initial_briefing(bound, LIMITS)


def test_a_job_that_may_have_no_jobs_below_it_is_told_to_work_itself():
    words = initial_briefing(job("jme", depth=1, spec=JobSpec(task="x", cwd="/", max_jobs=0, max_budget_usd=1)), LIMITS)
    assert "You may not spawn jobs: do all of the work yourself. You may spend" in words


@pytest.mark.parametrize("reason", [Reason.LOST, Reason.SIGNAL, None])
def test_a_job_that_was_cut_off_is_told_to_check_before_it_repeats(reason: Reason | None):
    assert "Check before you repeat it" in resume_message(reason)


@pytest.mark.parametrize("reason", [Reason.USAGE_LIMIT, Reason.RATE_LIMIT, Reason.OVERLOADED])
def test_a_job_that_was_paused_is_told_to_go_on(reason: Reason):
    assert "paused" in resume_message(reason)


def test_tokens_differ_and_their_hash_does_not_hold_them():
    one, other = new_token(), new_token()
    assert one != other
    assert one.startswith(TOKEN_PREFIX)
    assert len(hash_token(one)) == 64
    assert hash_token(one) == hash_token(one) != hash_token(other)
    assert one not in hash_token(one)


def test_ids_tell_a_batch_from_a_job():
    assert [is_batch_id(new_batch_id()), is_batch_id(new_job_id())] == [True, False]
    assert len(new_job_id()) == len(new_batch_id()) == 17


@pytest.mark.parametrize(
    ("path", "other", "below"),
    [("a/b", "a/b", True), ("a/b", "a/b/c", True), ("a/b", "a/bc", False), ("a/b", "a", False)],
)
def test_a_path_contains_itself_and_what_is_below_it(path: str, other: str, below: bool):
    assert contains(path, other) is below


@pytest.mark.parametrize("reason", [Reason.AUTH, Reason.BILLING, Reason.MODEL_NOT_FOUND, Reason.INVALID_REQUEST])
def test_a_job_whose_request_was_refused_is_not_told_that_it_was_cut_off(reason: Reason):
    assert "refused your last request" in resume_message(reason)
    assert "You were cut off" not in resume_message(reason)
