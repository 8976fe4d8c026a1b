"""What a job's output comes to, as its caller sees it: recorded kinds of output, replayed by a stub."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.engines import House, Pump, house

pytestmark = pytest.mark.timeout(300)

STREAMS = Path(__file__).parents[1] / "fixtures" / "streams"
AGAIN = "tries it again"


class Seen(NamedTuple):
    """What a caller is to see.

    Args:
        status: Of the job.
        reason: Of its end.
        answer: The whole answer; None where there is none.
        told: A part of what the caller reads about it, or "" where the caller reads nothing.
        again: Whether the caller is told of a retry.
    """

    status: str
    reason: str
    answer: str | None = None
    told: str = ""
    again: bool = False


DAMAGED = "A line of its output was damaged"
SEEN = {
    "answer_in_three_blocks": Seen("completed", "completed", "[1,2,3]"),
    "answer_whose_first_block_is_reported": Seen("completed", "completed", '{"a": [1,2,3,4,5]}'),
    "empty_result": Seen("completed", "completed", "the words of the message"),
    "no_result_field": Seen("completed", "completed", "the words of the message"),
    "error_subtype_without_is_error": Seen("failed", "unknown_error", told="error_during_execution", again=True),
    "max_turns_without_is_error": Seen("failed", "max_turns", told="maximum number of turns", again=True),
    "success_then_spurious_error": Seen("completed", "completed", "real", "only prompt commands are supported"),
    "credit_too_low_as_plain_text": Seen("failed", "billing", told="buys credits", again=True),
    "answer_about_a_credit_balance": Seen(
        "completed",
        "completed",
        "Credit balance is too low, says the log of 3 May; the account was topped up on 4 May.",
    ),
    "blocking_limit": Seen("failed", "prompt_too_long", told="smaller tasks"),
    "context_thrash": Seen("failed", "prompt_too_long", told="smaller tasks"),
    "bad_request": Seen("failed", "invalid_request", told="refuse the same request again"),
    "rate_limit_event_inside_result_line": Seen("completed", "completed", "whole answer", DAMAGED),
    "log_line_inside_result_line": Seen("completed", "completed", "whole answer", DAMAGED),
    "result_line_without_its_end": Seen("completed", "completed", "whole answer", "could not be read"),
    "two_objects_on_a_line": Seen("completed", "completed", "whole answer"),
    "text_before_frames": Seen("completed", "completed", "whole answer"),
    "cost_that_is_no_number": Seen("completed", "completed", "whole answer"),
    "rejected_but_overage_in_use": Seen("completed", "completed", "fine"),
    "credits_required": Seen("failed", "billing", told="buys credits", again=True),
    "answer_resumed_at_its_most_tokens": Seen("completed", "completed", '{"a": [1,2,3,4,5]}', "cut off and resumed"),
    "answer_resumed_after_a_lost_connection": Seen("completed", "completed", "one, two, three", "cut off and resumed"),
    "answer_before_an_empty_message": Seen("completed", "completed", "The whole report.", "of the message before"),
    "empty_answer": Seen("completed", "completed", "", "Its answer is empty."),
    "one_id_for_all_messages": Seen("completed", "completed", "done"),
    "same_frame_twice": Seen("completed", "completed", "done"),
    "first_block_damaged": Seen("completed", "completed", "3]", "could not be read: 1"),
    "hook_that_stops_after_a_tool": Seen("failed", "interrupted", told="a person must change it", again=True),
    "hook_that_blocks_the_prompt": Seen("failed", "interrupted", told="stopped by hook: enough", again=True),
    "paused_turn": Seen("failed", "interrupted", told="The API paused the answer", again=True),
    "full_context": Seen("failed", "prompt_too_long", told="smaller tasks"),
    "api_usage_limits": Seen("failed", "billing", told="raises the spend limit", again=True),
    "extra_usage_for_a_long_context": Seen("failed", "billing", told="buys credits", again=True),
    "refused_for_good": Seen("failed", "invalid_request", told="refuse the same request again"),
    "answer_then_work_that_fails": Seen("failed", "invalid_request", told="What it had answered: first answer"),
    "budget_met": Seen("failed", "budget_exhausted", told="new job with a larger maxBudgetUsd"),
    "tool_calls_and_no_end": Seen("failed", "truncated", told="Next I use Read.", again=True),
}


@pytest.fixture(scope="module")
def quarters() -> Iterator[House]:
    with house() as made:
        yield made


@pytest.fixture(scope="module")
def pump(quarters: House) -> Iterator[Pump]:
    with quarters.pump() as made:
        yield made


def replay(pump: Pump, stream: Path, **options: Any) -> str:
    return str(pump.json("claude_run_async", task=f"stub:replay={stream}", **options)["jobId"])


def test_every_stream_has_an_expectation():
    assert sorted(SEEN) == sorted(path.stem for path in STREAMS.glob("*.ndjson"))


@pytest.mark.parametrize("name", SEEN)
def test_a_caller_sees_what_happened(quarters: House, pump: Pump, name: str):
    seen = SEEN[name]
    job_id = replay(pump, STREAMS / f"{name}.ndjson")
    status = pump.settled(job_id)
    assert (status["status"], status["reason"], status["attempt"]) == (seen.status, seen.reason, 1), status
    said = quarters.run("result", job_id)
    if seen.answer is None:
        words = pump.refusal("claude_result", jobId=job_id)
        assert seen.told in words
        assert (AGAIN in words) is seen.again, words
        assert (said.returncode, said.stdout) == (1, "")
        assert (AGAIN in said.stderr) is seen.again, said.stderr
        # A person reads of commands and options.
        assert not any(word in said.stderr for word in ("claude_", "jobId", "maxBudgetUsd")), said.stderr
    else:
        # Strict JSON: a program that reads the reply may not know NaN.
        frame = json.loads(pump.text("claude_result", jobId=job_id), parse_constant=pytest.fail)
        assert frame["result"] == seen.answer
        # What is to be known about an answer stands wherever it is read, and is no error.
        waited = pump.json("claude_wait", jobIds=[job_id])["done"][0]
        for noted in (status, frame, waited):
            assert seen.told in noted.get("note", "")
            assert ("note" in noted) is bool(seen.told)
        assert status["error"] is None
        assert (said.returncode, seen.told in said.stderr, bool(said.stderr)) == (0, True, bool(seen.told))
        assert said.stdout == f"{seen.answer}\n"
    # Whatever became of it, no other job waits for it.
    assert "paused" not in pump.json("claude_recursion_stats")


def test_an_answer_in_text_ends_with_what_is_to_be_known_and_a_command_prints_it_alone(quarters: House, pump: Pump):
    stream = STREAMS / "answer_resumed_at_its_most_tokens.ndjson"
    note = "Its answer was cut off and resumed; the parts are joined."
    text = f'{{"a": [1,2,3,4,5]}}\n\n[{note}]'
    assert pump.text("claude_run", task=f"stub:replay={stream}", outputFormat="text") == text
    said = quarters.run("run", f"stub:replay={stream}")
    assert (said.returncode, said.stdout) == (0, '{"a": [1,2,3,4,5]}\n')
    assert note in said.stderr
    waited = quarters.run("wait", said.stderr.split()[1])
    assert (waited.returncode, note in waited.stderr) == (0, True)
    job_id = replay(pump, stream, outputFormat="text")
    pump.settled(job_id)
    assert text in pump.text("claude_result", jobIds=[job_id])


def test_a_job_whose_dependency_failed_is_not_sent_back_in_line_alone(pump: Pump):
    first = {"task": f"stub:replay={STREAMS / 'bad_request.ndjson'}", "key": "first"}
    second = {"task": "{{results.first}}", "dependsOn": ["first"]}
    ids = pump.json("claude_run_batch_async", tasks=[first, second])["jobIds"]
    assert pump.settled(ids[1])["reason"] == "dependency_failed"
    words = pump.refusal("claude_result", jobId=ids[1])
    assert f"It depends on first ({ids[0]})" in words
    assert "must complete first: try that again. After that claude_retry" in words


@pytest.mark.parametrize("is_error", [True, False])
def test_a_job_that_meets_a_session_limit_waits_for_the_reset_that_the_text_names(tmp_path: Path, is_error: bool):
    written = datetime.now(UTC)
    resets = written + timedelta(hours=2)
    said = f"You've hit your session limit · resets {resets.hour % 12 or 12}:{resets:%M}{resets:%p} (UTC)"
    said = said.replace("AM", "am").replace("PM", "pm")
    stream = tmp_path / "limit.ndjson"
    message = {"id": "8b1f0a3e-0000-4000-8000-000000000000", "content": [{"type": "text", "text": said}]}
    result = {"type": "result", "subtype": "success", "is_error": is_error, "result": said, "num_turns": 1}
    # With its time, as the CLI writes it: the hour may be one of tomorrow.
    frame = {"type": "assistant", "message": message, "timestamp": written.isoformat()}
    stream.write_text(f"{json.dumps(frame)}\n{json.dumps(result)}\n")
    with house() as made, made.pump() as pump:
        job_id = replay(pump, stream)
        waited = pump.json("claude_wait", jobIds=[job_id], timeoutSeconds=10)
        status = pump.json("claude_status", jobId=job_id)
        assert waited["pending"] == 1
        assert (status["status"], status["reason"]) == ("queued", "usage_limit"), status
        # As the machine's clock has it.
        until = datetime.fromisoformat(status["paused"].split()[2]).astimezone(UTC)
        assert timedelta(minutes=-1) < until - resets < timedelta(minutes=1)
        assert "session limit" in made.run("status", job_id).stdout
