from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.claude.outcome import OutcomeReader, stopped_for
from jobs.model import JobStatus, Outcome, Reason
from tests.unit.claude.support import STREAMS, classify, frames, recorded

EXPECTED = {
    "api_400": Reason.INVALID_REQUEST,
    "api_401": Reason.AUTH,
    "api_403": Reason.AUTH,
    "api_429_apikey": Reason.RATE_LIMIT,
    "api_500": Reason.SERVER_ERROR,
    "api_529": Reason.OVERLOADED,
    "config_invalid": Reason.STARTUP,
    "json_schema_unmet": Reason.SCHEMA_UNMET,
    "max_budget": Reason.BUDGET_EXHAUSTED,
    "max_turns": Reason.MAX_TURNS,
    "no_credentials": Reason.AUTH,
    "ok": Reason.COMPLETED,
    "permission_denied": Reason.COMPLETED_WITH_DENIALS,
    "prompt_too_long": Reason.PROMPT_TOO_LONG,
    "refusal": Reason.REFUSAL,
    "retry_then_ok": Reason.COMPLETED,
    "startup_bypass_root": Reason.STARTUP,
    "two_results_background_bash": Reason.COMPLETED,
    "usage_limit_rejected_oauth": Reason.USAGE_LIMIT,
}
DONE = {"type": "result", "subtype": "success", "is_error": False, "result": "42", "num_turns": 3}
LATE = (Reason.DEADLINE, Reason.STALLED, Reason.OUTPUT_LIMIT)


def of_stream(name: str) -> Outcome:
    data, code, stderr = recorded(name)
    return classify(frames(data), exit_code=code, stderr=stderr, asked_schema=name.startswith("json_schema"))


def failure(text: str = "", error: str | None = None, **fields: Any) -> Outcome:
    stream: list[Mapping[str, Any]] = [{"type": "assistant", "error": error}] if error else []
    stream.append({"type": "result", "subtype": "success", "is_error": True, "result": text, **fields})
    return classify(stream, exit_code=1)


def test_every_recorded_stream_has_an_expectation() -> None:
    assert sorted(EXPECTED) == STREAMS


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_classified(name: str) -> None:
    outcome = of_stream(name)
    done = EXPECTED[name] in {Reason.COMPLETED, Reason.COMPLETED_WITH_DENIALS}
    assert outcome.reason is EXPECTED[name]
    assert outcome.status is (JobStatus.COMPLETED if done else JobStatus.FAILED)


@pytest.mark.parametrize("name", STREAMS)
def test_a_truncated_stream_is_never_completed(name: str) -> None:
    data, _, _ = recorded(name)
    lines = data.splitlines(keepends=True)
    for count in range(len(lines)):
        for code in (None, 0, 1, 137, 143):
            outcome = classify(frames(b"".join(lines[:count])), exit_code=code)
            assert outcome.status is JobStatus.FAILED, (count, code)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_inside_its_last_line_is_never_completed(name: str) -> None:
    data, _, _ = recorded(name)
    tail = len(data.splitlines()[-1])
    for missing in range(2, tail + 1, max(1, tail // 25)):
        assert classify(frames(data[:-missing]), exit_code=0).status is JobStatus.FAILED


def test_the_last_of_two_results_counts_and_consumption_is_summed() -> None:
    outcome = of_stream("two_results_background_bash")
    assert outcome.frame is not None
    assert outcome.frame["result_index"] == 1
    assert outcome.usage.cost_usd == pytest.approx(0.00066)
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.turns) == (30, 60, 3)


def test_a_resumed_session_counts_only_its_own_consumption() -> None:
    model = {"inputTokens": 10, "cacheReadInputTokens": 5, "outputTokens": 20, "costUSD": 0.25}
    frame = DONE | {"total_cost_usd": 7.0, "model_usage_since_last_result": {"sonnet": model}}
    usage = classify([frame], exit_code=0).usage
    assert (usage.cost_usd, usage.input_tokens, usage.output_tokens) == (0.25, 15, 20)


def test_an_older_cli_without_figures_since_the_last_result_is_not_counted_twice() -> None:
    first = DONE | {"total_cost_usd": 1.0, "usage": {"input_tokens": 10, "output_tokens": 1}}
    second = DONE | {"total_cost_usd": 1.5, "usage": {"input_tokens": 20, "output_tokens": 2}}
    usage = classify([first, second], exit_code=0).usage
    assert (usage.cost_usd, usage.input_tokens, usage.output_tokens) == (1.5, 30, 3)


def test_a_spent_budget_is_reported_though_its_token_counts_are_zero_at_the_top() -> None:
    assert of_stream("max_budget").usage.cost_usd == pytest.approx(2.4)


def test_an_answer_in_full_is_kept() -> None:
    assert classify([DONE], exit_code=0).result == "42"


def test_a_failure_has_no_result_and_says_why() -> None:
    outcome = of_stream("no_credentials")
    assert outcome.result is None
    assert "Not logged in" in outcome.detail


def test_denied_tools_are_named() -> None:
    assert of_stream("permission_denied").detail == "Not permitted: Write. allowedTools permits more."


def test_a_low_credit_balance_is_a_matter_of_billing() -> None:
    assert failure("Credit balance is too low", "invalid_request", api_error_status=400).reason is Reason.BILLING


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (failure(error="billing_error"), Reason.BILLING),
        (failure(error="max_output_tokens"), Reason.MAX_OUTPUT_TOKENS),
        (failure(error="server_error"), Reason.CONNECTION),
        (failure(error="overloaded"), Reason.OVERLOADED),
        (failure(api_error_status=502), Reason.SERVER_ERROR),
        (failure(api_error_status=404), Reason.MODEL_NOT_FOUND),
        (failure(api_error_status=413), Reason.REQUEST_TOO_LARGE),
        (failure(terminal_reason="aborted_tools"), Reason.INTERRUPTED),
        (failure("No conversation found with session ID: x"), Reason.NO_SESSION),
        (failure("Session ID x is already in use."), Reason.SESSION_IN_USE),
        (failure("nobody knows"), Reason.UNKNOWN_ERROR),
    ],
)
def test_a_failure_is_told_apart(outcome: Outcome, reason: Reason) -> None:
    assert outcome.reason is reason
    assert outcome.status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("code", "stderr", "reason"),
    [
        (None, "", Reason.LOST),
        (0, "", Reason.TRUNCATED),
        (0, "error: unknown option", Reason.STARTUP),
        *((code, "", Reason.LOST) for code in (129, 134, 136, 137, 139, 143)),
        *((code, "", Reason.SIGNAL) for code in (130, 131)),
        (127, "claude-jobs: 7: claude: not found", Reason.STARTUP),
        (126, "Permission denied", Reason.STARTUP),
        (1, "error: unknown option", Reason.STARTUP),
        (1, "Error: Session ID 1 is already in use.", Reason.SESSION_IN_USE),
    ],
)
def test_a_process_without_a_result_is_told_by_its_exit(code: int | None, stderr: str, reason: Reason) -> None:
    outcome = classify([], exit_code=code, stderr=stderr)
    assert outcome.reason is reason
    assert stderr in outcome.detail
    assert outcome.detail


def test_a_crash_after_the_work_began_is_no_startup_failure() -> None:
    assert classify([{"type": "system", "subtype": "init"}], exit_code=1).reason is Reason.UNKNOWN_ERROR


@pytest.mark.parametrize("reason", LATE)
def test_an_answer_that_came_before_we_ended_a_late_process_stands(reason: Reason) -> None:
    outcome = classify([DONE], exit_code=143, stop_reason=reason)
    assert outcome.reason is Reason.COMPLETED
    assert outcome.result == "42"


@pytest.mark.parametrize("reason", LATE)
def test_an_answer_stands_though_a_background_task_kept_the_process(reason: Reason) -> None:
    waiting: list[Mapping[str, Any]] = [{"type": "system", "subtype": "background_tasks_changed", "tasks": [{}]}, DONE]
    assert classify(waiting, exit_code=143, stop_reason=reason).reason is Reason.COMPLETED
    assert classify(waiting, exit_code=143).reason is Reason.LOST
    assert classify(waiting, exit_code=0).reason is Reason.TRUNCATED


def test_a_background_task_that_was_stopped_with_the_process_does_not_undo_the_answer() -> None:
    begun = {"type": "system", "subtype": "background_tasks_changed", "tasks": [{}]}
    stopped = {"type": "system", "subtype": "task_notification", "status": "stopped"}
    cleared = {"type": "system", "subtype": "background_tasks_changed", "tasks": []}
    assert (
        classify([begun, DONE, stopped, cleared], exit_code=143, stop_reason=Reason.STALLED).reason is Reason.COMPLETED
    )


@pytest.mark.parametrize("reason", LATE)
def test_work_that_went_on_after_an_answer_was_cut_off(reason: Reason) -> None:
    assert classify([DONE, {"type": "assistant"}], exit_code=143, stop_reason=reason).reason is reason


@pytest.mark.parametrize(
    ("note", "code", "reason"),
    [
        ("deadline", 143, Reason.DEADLINE),
        ("output_limit", None, Reason.OUTPUT_LIMIT),
        ("deadline", 0, None),
        ("completed", 143, None),
        ("\ufffd", 143, None),
        (None, 143, None),
    ],
)
def test_what_an_engine_noted_before_it_ended_a_process_counts_if_it_came_to_that(
    note: str | None, code: int | None, reason: Reason | None
) -> None:
    assert stopped_for(note, code) is reason


def test_a_cancel_wins_over_an_answer_and_keeps_its_text() -> None:
    outcome = classify([DONE], exit_code=0, stop_reason=Reason.CANCELLED)
    assert outcome.status is JobStatus.CANCELLED
    assert outcome.result == "42"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.DEADLINE, JobStatus.TIMEOUT),
        (Reason.STALLED, JobStatus.FAILED),
        (Reason.OUTPUT_LIMIT, JobStatus.FAILED),
        (Reason.CANCELLED, JobStatus.CANCELLED),
    ],
)
def test_a_process_that_we_ended_says_why_we_did(reason: Reason, status: JobStatus) -> None:
    outcome = classify([], exit_code=143, stop_reason=reason)
    assert (outcome.reason, outcome.status) == (reason, status)
    assert outcome.detail.startswith("It was ")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_names = ["subtype", "status", "error", "message", "tasks", "result", "is_error", "num_turns"]
_names += ["errors", "usage", "total_cost_usd", "permission_denials", "terminal_reason", "rate_limit_info"]
_names += ["api_error_status", "model_usage_since_last_result", "stop_reason", "startup_failure_reason"]
_frames = st.builds(
    lambda kind, subtype, fields: {"subtype": subtype, **fields, "type": kind},
    st.sampled_from(["result", "assistant", "system", "user", "rate_limit_event", "?"]) | _json,
    st.sampled_from(["init", "task_notification", "background_tasks_changed"]) | _json,
    st.dictionaries(st.sampled_from(_names), _json, max_size=6),
)


@given(stream=st.lists(_frames, max_size=6), code=st.none() | st.integers(0, 255))
def test_frames_of_any_shape_lead_to_an_outcome(stream: list[dict[str, Any]], code: int | None) -> None:
    outcome = classify(list(stream), exit_code=code)
    assert outcome.status in {JobStatus.COMPLETED, JobStatus.FAILED}
    assert outcome.usage.cost_usd >= 0


def test_a_reader_keeps_nothing_of_what_it_does_not_need() -> None:
    reader = OutcomeReader()
    for index in range(1000):
        reader.feed({"type": "user", "message": {"content": "x" * 1000}, "index": index})
    held = [value for value in vars(reader).values() if isinstance(value, dict | list) and value]
    assert held == []
