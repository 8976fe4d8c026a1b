import pytest

from jobs.model import Reason
from server.mcp.advice import advice_on

FAILS_AGAIN = {
    Reason.SCHEMA_UNMET,
    Reason.BUDGET_EXHAUSTED,
    Reason.MAX_OUTPUT_TOKENS,
    Reason.PROMPT_TOO_LONG,
    Reason.REQUEST_TOO_LARGE,
    Reason.MODEL_NOT_FOUND,
    Reason.INVALID_REQUEST,
    Reason.REFUSAL,
    Reason.UNMANAGED_CLAUDE,
    Reason.OUTPUT_LIMIT,
}
NEEDS_SOMETHING_FIRST = {
    Reason.AUTH,
    Reason.BILLING,
    Reason.DEPENDENCY_FAILED,
    Reason.INTERRUPTED,
    Reason.SESSION_IN_USE,
    Reason.STARTUP,
}


@pytest.mark.parametrize("reason", Reason)
def test_nobody_is_told_to_repeat_what_would_fail_again(reason: Reason) -> None:
    advice = advice_on("j1", reason)
    assert ("claude_retry with jobId 'j1'" in advice) is (reason not in FAILS_AGAIN)
    assert advice.startswith("claude_retry") is (reason not in FAILS_AGAIN | NEEDS_SOMETHING_FIRST)
    assert advice.endswith(".")


def test_who_met_a_budget_is_told_of_both_budgets_that_it_can_be() -> None:
    advice = advice_on("j1", Reason.BUDGET_EXHAUSTED)
    assert "new job with a larger maxBudgetUsd" in advice
    assert "new tree with a larger treeBudgetUsd" in advice


def test_who_ran_out_of_time_is_told_what_to_do_where_the_time_of_the_tree_is_over() -> None:
    assert "submit what is left as a new tree" in advice_on("j1", Reason.DEADLINE)


def test_a_job_without_a_reason_can_be_tried_again() -> None:
    assert advice_on("j1", None) == "claude_retry with jobId 'j1' tries it again."
