"""One table: what the CLI can report, and what becomes of it.

The kinds are those of the types and strings of Claude Code 2.1.332, of the recorded streams beside this file, and of
public reports about older versions.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.claude.failure_table import API_ERROR, TERMINAL_REASON
from jobs.claude.ndjson import LINE_LIMIT, Line, LineDecoder
from jobs.claude.outcome import OutcomeReader
from jobs.claude.rate_limits import rate_limit_signal
from jobs.model import JobStatus, Outcome, Reason
from jobs.runner.retry_policy import LIMITS, TRANSIENT
from tests.unit.claude.support import STREAMS, frames, recorded

Frame = Mapping[str, Any] | str


EXPECTED_FIELDS = (
    "overageStatus",
    "isUsingOverage",
    "errorCode",
    "rateLimitType",
    "resetsAt",
    "startup_failure_reason",
    "structured_output",
    "errors",
    "tasks",
    "status",
    "parent_tool_use_id",
)
"""Fields that are read and that no recorded frame has."""


def fields_of(value: Any) -> Iterator[str]:
    """Every name in a frame, at any depth."""
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from fields_of(one)
    yield from value if isinstance(value, dict) else ()


def with_values(value: Any, values: Mapping[str, Any]) -> Any:
    """A frame with other values, at any depth; fields that it lacks are added to each object that has several."""
    if isinstance(value, list):
        return [with_values(one, values) for one in value]
    if not isinstance(value, dict):
        return value
    whole = {name: with_values(one, values) for name, one in value.items() if name not in values}
    return {**whole, **values} if len(value) > 1 else whole


class Row(NamedTuple):
    """A stream and what is to become of it.

    Args:
        stream: Frames, or lines as they stand in the output.
        reason: How the attempt ended.
        answer: The whole answer; None for a failure.
        told: A part of the detail. "" with an answer means that there is no detail.
        code: The process's exit code.
        schema: An answer by a JSON schema was asked for.
    """

    stream: tuple[Frame, ...]
    reason: Reason
    answer: str | None = None
    told: str = ""
    code: int | None = 0
    schema: bool = False


def says(*words: str, id: str = "msg_1", **fields: Any) -> Mapping[str, Any]:  # noqa: A002 - the field's own name
    content = [{"type": "text", "text": word} if word else {"type": "thinking", "thinking": "…"} for word in words]
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"id": id, "model": "claude-sonnet-5-5", "content": content, "usage": usage}
    return {"type": "assistant", "message": message, "parent_tool_use_id": None, "session_id": "s", **fields}


def own(words: str, error: str | None = None, **fields: Any) -> Mapping[str, Any]:
    """A message of the CLI itself, as released versions mark it."""
    message = {"id": UUID, "model": "<synthetic>", "content": [{"type": "text", "text": words}]}
    marks = {"error": error, "is_api_error_message": True} if error else {}
    return {"type": "assistant", "message": message, "session_id": "s", **marks, **fields}


def unmarked(words: str) -> Mapping[str, Any]:
    """A message of the CLI without any mark, as older versions and gateways show it."""
    return says(words, id=UUID)


def result(words: str | None = "done", **fields: Any) -> Mapping[str, Any]:
    frame = {"type": "result", "subtype": "success", "is_error": False, "result": words, "num_turns": 1}
    return {**frame, "stop_reason": "end_turn", "terminal_reason": "completed", "session_id": "s", **fields}


def fails(words: str = "", **fields: Any) -> Mapping[str, Any]:
    return result(words, **{"is_error": True, "stop_reason": "stop_sequence", "terminal_reason": "api_error", **fields})


def aborts(subtype: str, *errors: str, **fields: Any) -> Mapping[str, Any]:
    return result(None, **{"subtype": subtype, "is_error": True, "errors": list(errors), **fields})


def limit(**info: Any) -> Mapping[str, Any]:
    return {"type": "rate_limit_event", "rate_limit_info": info, "session_id": "s"}


def calls(id: str = "msg_2", argument: Any = None) -> Mapping[str, Any]:  # noqa: A002 - the field's own name
    """A message that only calls a tool."""
    return {**says(), "message": {"id": id, "content": [{**TOOL, "input": {"frame": argument}}]}}


def spoken(words: str) -> Mapping[str, Any]:
    """What the CLI tells the model between two of its messages."""
    content = [{"type": "text", "text": words}]
    return {"type": "user", "message": {"role": "user", "content": content}, "isSynthetic": True, "session_id": "s"}


def said_by_a_tool(words: str) -> Mapping[str, Any]:
    content = [{"type": "tool_result", "tool_use_id": "t", "content": words}, {"type": "text", "text": words}]
    return {"message": {"role": "user", "content": content}}


def printed(**fields: Any) -> Mapping[str, Any]:
    """What a log, a hook or a tool may hold: it looks like a frame, and is not of this session."""
    return {"type": "result", "subtype": "success", "is_error": False, "num_turns": 3, "result": "FAKE", **fields}


def line(frame: Mapping[str, Any]) -> str:
    return json.dumps(frame, ensure_ascii=False)


UUID = "166a5dd2-ce6c-40af-8110-2838211e9b99"
TOOL = {"type": "tool_use", "id": "t", "name": "Write", "input": {}}
INIT = {"type": "system", "subtype": "init", "session_id": "s"}
NOTICE = {"type": "system", "subtype": "task_notification", "status": "completed"}
BROKEN = line(result("whole answer")).split("answer")[0]
REST = line(result("whole answer")).split("whole ")[1]
EVENT = line(limit(status="allowed"))
THRASH = "Autocompact is thrashing: the context refilled to the limit within 3 turns of the previous compact."
SESSION_LIMIT = "You've hit your session limit · resets 3:40pm (Asia/Kolkata)"
BUY = "You've used your included usage. Buy usage credits to continue."
LOW = "Credit balance is too low"
LENGTHY = "a long answer, " * 10_000
FULL = "API Error: The model has reached its context window limit."
FILTERED = "API Error: 400 Output blocked by content filtering policy"
LONG = "API Error: Request rejected (429) · Extra usage is required for long context requests."
ACCOUNT = "API Error: 400 You have reached your specified API usage limits. You will regain access on 2027-01-01."
ANSWERED = {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "t"}]}, "session_id": "s"}
RESUME = "Output token limit hit. Resume directly — no apology, no recap of what you were doing."
CUT_OFF = {"type": "stream_event", "event": {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}}
RECONNECT = "Your response above was cut off mid-stream. Resume directly from where it stops — no apology, no recap."
AGAIN = (
    "Your response above was cut off mid-stream and only your next message is delivered. Write the complete response "
    "again from the start."
)
DOWNLOADS = "You've reached your download limit. Upgrade to go on."

ANSWERS = {
    "one block": Row((says("done"), result()), Reason.COMPLETED, "done"),
    "three blocks, the last reported": Row(
        (says("[1,"), says("2,"), says("3]"), result("3]")), Reason.COMPLETED, "[1,2,3]"
    ),
    "two blocks, the first reported": Row((says("[1,"), says("2]"), result("[1,")), Reason.COMPLETED, "[1,2]"),
    "two blocks in one frame": Row((says("[1,", "2]"), result("2]")), Reason.COMPLETED, "[1,2]"),
    "a thought between": Row((says("one"), says("", "two"), result("two")), Reason.COMPLETED, "one\n\ntwo"),
    "an empty result": Row((says("words"), result("")), Reason.COMPLETED, "words"),
    "no result field": Row((says("words"), result(None)), Reason.COMPLETED, "words"),
    "a last message without a text": Row(
        (says("words"), calls(), result("")), Reason.COMPLETED, "words", "the answer is the text of the message before"
    ),
    "an empty message after the last call": Row(
        (says("words"), calls("msg_1"), ANSWERED, says("", id="msg_2"), result("")),
        Reason.COMPLETED,
        "words",
        "the answer is the text of the message before",
    ),
    "no text at all": Row((says(""), result("")), Reason.COMPLETED, "", "Its answer is empty."),
    "cut off at its most tokens, and resumed without a word": Row(
        (says("[1,"), CUT_OFF, says("2]", id="msg_2"), result("2]")),
        Reason.COMPLETED,
        "[1,2]",
        "cut off and resumed",
    ),
    "cut off at its most tokens in a subagent": Row(
        (says("x"), {**CUT_OFF, "parent_tool_use_id": "toolu_1"}, says("y", id="msg_2"), result("y")),
        Reason.COMPLETED,
        "y",
    ),
    "cut off at its most tokens, and resumed": Row(
        (says("[1,"), spoken(RESUME), says("2]", id="msg_2"), result("2]")),
        Reason.COMPLETED,
        "[1,2]",
        "cut off and resumed",
    ),
    "cut off twice, the second time with its connection": Row(
        (
            says("[1,", "2,"),
            spoken(RESUME),
            says("3,", id="msg_2"),
            own("API Error: Connection lost mid-response.", "server_error"),
            spoken(RECONNECT),
            says("4", id="msg_3"),
            says("]", id="msg_3"),
            result("]"),
        ),
        Reason.COMPLETED,
        "[1,2,3,4]",
        "cut off and resumed",
    ),
    "cut off while it thought": Row(
        (says(""), spoken(RESUME), says("x", id="msg_2"), result("x")), Reason.COMPLETED, "x"
    ),
    "cut off, and begun again": Row(
        (says("[1,"), spoken(AGAIN), says("[1]", id="msg_2"), result("[1]")), Reason.COMPLETED, "[1]"
    ),
    "a hook that wants more": Row(
        (says("x"), spoken("Stop hook feedback: Resume directly"), says("y", id="msg_2"), result("y")),
        Reason.COMPLETED,
        "y",
    ),
    "a tool that prints what the CLI says": Row(
        (says("x"), calls("msg_1"), {**ANSWERED, **said_by_a_tool(RESUME)}, says("y", id="msg_2"), result("y")),
        Reason.COMPLETED,
        "y",
    ),
    "one id for all messages": Row(
        (says("x", id="1"), calls("1"), ANSWERED, says("y", id="1"), result("y")), Reason.COMPLETED, "y"
    ),
    "no id for any message": Row((says("[1,", id=""), says("2]", id=""), result("2]")), Reason.COMPLETED, "[1,2]"),
    "one frame twice": Row((says("x", uuid=UUID), says("x", uuid=UUID), result("x")), Reason.COMPLETED, "x"),
    "a last message with a text and a call": Row(
        (says("words"), calls("msg_1"), result("")), Reason.COMPLETED, "words"
    ),
    "a message before begins like it": Row(
        (says("OK, I start by reading the files."), calls(), says("OK", id="msg_3"), result("OK")),
        Reason.COMPLETED,
        "OK",
    ),
    "a message before begins like it, and the last is missing": Row(
        (says("OK, I start by reading the files."), result("OK")), Reason.COMPLETED, "OK"
    ),
    "a message before begins like it, and the last is damaged": Row(
        (
            says("OK, I start by reading the files."),
            calls(),
            line(says("OK", id="msg_3"))[:60],
            result("OK"),
        ),
        Reason.COMPLETED,
        "OK",
        "could not be read: 1",
    ),
    "a message before holds it": Row(
        (says("I will now compute 2+2=4 and more"), calls(), result("4")), Reason.COMPLETED, "4"
    ),
    "the last message holds it": Row((says("It is 2+2=4 and more"), result("4")), Reason.COMPLETED, "4"),
    "a block of the last message is damaged": Row(
        (says("one"), line(says("two"))[:60], says("three"), result("three")),
        Reason.COMPLETED,
        "three",
        "could not be read: 1",
    ),
    "the first block of the last message is damaged": Row(
        (says("Look."), calls(), ANSWERED, line(says("one", id="msg_3"))[:80], says("two", id="msg_3"), result("two")),
        Reason.COMPLETED,
        "two",
        "could not be read: 1",
    ),
    "a damaged line before the last message": Row(
        (line(says("Look."))[:60], calls(), ANSWERED, says("one", id="msg_3"), says("two", id="msg_3"), result("two")),
        Reason.COMPLETED,
        "onetwo",
    ),
    "a part of a message on its way is damaged": Row(
        (
            says("one"),
            line({"type": "stream_event", "event": {"type": "content_block_delta"}, "session_id": "s"})[:60],
            says("two"),
            result("two"),
        ),
        Reason.COMPLETED,
        "onetwo",
    ),
    "a gateway's model in words of the CLI": Row(
        (says(DOWNLOADS, id="chatcmpl-7f3a9c"), result(DOWNLOADS)), Reason.COMPLETED, DOWNLOADS
    ),
    "a printed failure after the answer": Row(
        (says("real"), result("real"), f"[hook] {line(printed(is_error=True, result=LOW))}"), Reason.COMPLETED, "real"
    ),
    "a printed answer after the answer": Row(
        (says("real"), result("real"), f"[DEBUG] hook input: {line(printed())}"), Reason.COMPLETED, "real"
    ),
    "a printed answer that is cut short": Row(
        (says("real"), result("real"), f"[DEBUG] {line(printed())[:80]}"),
        Reason.COMPLETED,
        "real",
        "could not be read: 1",
    ),
    "the message before is not part of it": Row(
        (says("Look."), says("42", id="msg_2"), result("42")), Reason.COMPLETED, "42"
    ),
    "a subagent's words are not the job's": Row(
        (says("42"), says("no", parent_tool_use_id="t"), result("")), Reason.COMPLETED, "42"
    ),
    "a result that the frames do not have": Row((says("I am done."), result('{"a":1}')), Reason.COMPLETED, '{"a":1}'),
    "no frames before": Row((result("42"),), Reason.COMPLETED, "42"),
    "denied tools": Row(
        (says("done"), result(permission_denials=[{"tool_name": "Write"}])),
        Reason.COMPLETED_WITH_DENIALS,
        "done",
        "Not permitted: Write. allowedTools permits more.",
    ),
    "a schema": Row(
        (says("x"), result('{"a":1}', structured_output={"a": 1})), Reason.COMPLETED, '{"a":1}', schema=True
    ),
    "a schema that is not met": Row((says("x"), result("x")), Reason.SCHEMA_UNMET, "x", "schema", schema=True),
    "a hook that ends the work": Row(
        (says("x"), result("x", terminal_reason="stop_hook_prevented")), Reason.COMPLETED, "x"
    ),
    "an error of the API that the CLI got over": Row(
        (says("x"), own("API Error: 500", "server_error"), result("x")), Reason.COMPLETED, "x"
    ),
    "an allowed limit": Row(
        (limit(status="allowed", overageStatus="rejected"), says("x"), result("x")), Reason.COMPLETED, "x"
    ),
    "a limit with extra usage": Row(
        (limit(status="rejected", isUsingOverage=True), says("x"), result("x")), Reason.COMPLETED, "x"
    ),
    "a limit that the job outlived": Row((limit(status="rejected"), says("x"), result("x")), Reason.COMPLETED, "x"),
    "words about credits": Row(
        (says(f"{LOW}: so says the log."), result(f"{LOW}: so says the log.")),
        Reason.COMPLETED,
        f"{LOW}: so says the log.",
    ),
    "those very words, of the model": Row((says(LOW), result(LOW)), Reason.COMPLETED, LOW),
    "words about a limit": Row(
        (unmarked("You've hit your stride."), result("You've hit your stride.")),
        Reason.COMPLETED,
        "You've hit your stride.",
    ),
    "words about a limit and more": Row(
        (unmarked(f"{SESSION_LIMIT}\nThat is what it printed."), result(f"{SESSION_LIMIT}\nThat is what it printed.")),
        Reason.COMPLETED,
        f"{SESSION_LIMIT}\nThat is what it printed.",
    ),
    "an error of a turn that never was": Row(
        (
            says("real"),
            result("real"),
            NOTICE,
            INIT,
            aborts("error_during_execution", "only prompt commands", num_turns=0),
        ),
        Reason.COMPLETED,
        "real",
        "After its answer the CLI reported: only prompt commands",
        code=1,
    ),
    "a success of a turn that never was": Row(
        (says("real"), result("real"), result("", num_turns=0)), Reason.COMPLETED, "real"
    ),
    "two results": Row((says("a"), result("a"), NOTICE, says("b", id="msg_2"), result("b")), Reason.COMPLETED, "b"),
    "a damaged result": Row(
        (says("whole answer"), BROKEN + EVENT, REST), Reason.COMPLETED, "whole answer", "has been repaired"
    ),
    "a damaged result with a log line": Row(
        (says("whole answer"), f"{BROKEN}[WARN] x", REST), Reason.COMPLETED, "whole answer", "has been repaired"
    ),
    "a damaged result without its end": Row(
        (says("whole answer"), BROKEN + EVENT), Reason.COMPLETED, "whole answer", "could not be read; the answer is"
    ),
    "a damaged message": Row(
        (
            INIT,
            line(says("whole answer")).split("answer")[0] + EVENT,
            line(says("whole answer")).split("whole ")[1],
            result("whole answer"),
        ),
        Reason.COMPLETED,
        "whole answer",
        "has been repaired",
    ),
    "a damaged result that is put together": Row(
        (says("whole answer"), line(result("whole answer"))[:20], line(result("whole answer"))[20:]),
        Reason.COMPLETED,
        "whole answer",
        "has been repaired",
    ),
    "two objects on a line": Row((INIT, line(says("x")) + line(result("x"))), Reason.COMPLETED, "x"),
    "text before a frame": Row(
        (
            f"\x1b[2J\x1b[H{line(INIT)}",
            f"\x1b[2J\x1b[H{line(says('x'))}",
            f"Warning: no sandbox {line(result('x'))}",
        ),
        Reason.COMPLETED,
        "x",
    ),
    "an escape sequence within a result": Row(
        (says("whole answer"), BROKEN + "\x1b[0m" + REST), Reason.COMPLETED, "whole answer", "damaged"
    ),
    "an escape sequence within a message": Row(
        (line(says("done")).replace("done", "do\x1b[0mne"), result("done")), Reason.COMPLETED, "done", "damaged"
    ),
    "text before and behind a long result": Row(
        (INIT, says(LENGTHY), f"\x1b[2J{line(result(LENGTHY))} [WARN] x"), Reason.COMPLETED, LENGTHY
    ),
    "a cost that is no number": Row((says("x"), result("x", total_cost_usd=float("nan"))), Reason.COMPLETED, "x"),
}

FAILURES = {
    # The subtype.
    "max turns": Row(
        (says("x"), aborts("error_max_turns", "Reached 3", terminal_reason="max_turns")),
        Reason.MAX_TURNS,
        told="Reached 3",
    ),
    "max turns, no error": Row(
        (says("x"), aborts("error_max_turns", is_error=False)), Reason.MAX_TURNS, told="error_max_turns"
    ),
    "max budget": Row(
        (aborts("error_max_budget_usd", "Reached", terminal_reason="budget_exhausted"),), Reason.BUDGET_EXHAUSTED
    ),
    "max budget, no error": Row((aborts("error_max_budget_usd", is_error=False),), Reason.BUDGET_EXHAUSTED),
    "schema retries": Row((aborts("error_max_structured_output_retries", "no"),), Reason.SCHEMA_UNMET, schema=True),
    "an execution error": Row((says("x"), aborts("error_during_execution", "boom")), Reason.UNKNOWN_ERROR, told="boom"),
    "an execution error, no error": Row(
        (says("x"), aborts("error_during_execution", is_error=False)),
        Reason.UNKNOWN_ERROR,
        told="error_during_execution",
    ),
    "an error of a later version": Row(
        (says("x"), aborts("error_of_2027", is_error=False)), Reason.UNKNOWN_ERROR, told="error_of_2027"
    ),
    "a turn that could not be set up": Row(
        (aborts("error_during_execution", "params", num_turns=0, terminal_reason="turn_setup_failed"),),
        Reason.UNKNOWN_ERROR,
        told="params",
    ),
    "an error after work that followed an answer": Row(
        (says("a"), result("a"), NOTICE, says("b", id="msg_2"), aborts("error_during_execution", "boom", num_turns=0)),
        Reason.UNKNOWN_ERROR,
        told="boom",
    ),
    "a failed start": Row(
        (aborts("error_during_execution", "bad file", startup_failure_reason="config_file_invalid"),),
        Reason.STARTUP,
        told="bad file",
    ),
    "no session": Row(
        (aborts("error_during_execution", "No conversation found with session ID: s", num_turns=0),), Reason.NO_SESSION
    ),
    "a success of no turn": Row((result("", num_turns=0),), Reason.TRUNCATED, "", "without a turn"),
    "a prompt that a hook blocks": Row(
        (
            INIT,
            {**INIT, "subtype": "informational", "prevent_continuation": True},
            result("No such prompts", num_turns=0),
        ),
        Reason.INTERRUPTED,
        told="No such prompts",
    ),
    "a success of no turn, in words": Row(
        (result("/x is unknown", num_turns=0),), Reason.TRUNCATED, told="/x is unknown"
    ),
    "work after an answer that fails": Row(
        (says("a"), result("a"), NOTICE, own("API Error: 400 bad"), fails("API Error: 400 bad", api_error_status=400)),
        Reason.INVALID_REQUEST,
        told="What it had answered: a",
    ),
    # The terminal reason.
    "a hook that stopped the work": Row(
        (says("Look."), calls("msg_1"), ANSWERED, result("", terminal_reason="hook_stopped", stop_reason="tool_use")),
        Reason.INTERRUPTED,
        told="A hook of the settings stopped the work before its end.",
    ),
    "blocking limit": Row(
        (own("Prompt is too long", "invalid_request"), fails("Prompt is too long", terminal_reason="blocking_limit")),
        Reason.PROMPT_TOO_LONG,
    ),
    "blocking limit, no error": Row(
        (own("Prompt is too long"), result("Prompt is too long", terminal_reason="blocking_limit")),
        Reason.PROMPT_TOO_LONG,
    ),
    "thrash": Row(
        (own(THRASH, "invalid_request"), fails(THRASH, terminal_reason="rapid_refill_breaker")), Reason.PROMPT_TOO_LONG
    ),
    "thrash by its kind": Row(
        (own(THRASH, "invalid_request"), fails(THRASH, api_error="autocompact_thrashing")), Reason.PROMPT_TOO_LONG
    ),
    "thrash by its words": Row(
        (own(THRASH, "invalid_request"), fails(THRASH, terminal_reason=None)), Reason.PROMPT_TOO_LONG
    ),
    "interrupted": Row(
        (says("x"), aborts("error_during_execution", terminal_reason="aborted_streaming")), Reason.INTERRUPTED
    ),
    "interrupted, no error": Row((says("x"), result("x", terminal_reason="aborted_streaming")), Reason.INTERRUPTED),
    "a tool that a hook put off": Row(
        (
            says("x"),
            result(
                "", stop_reason="tool_deferred", terminal_reason="tool_deferred", deferred_tool_use={"name": "Bash"}
            ),
        ),
        Reason.INTERRUPTED,
        told="tool_deferred",
    ),
    "an image": Row((fails("bad image", terminal_reason="image_error"),), Reason.REQUEST_TOO_LARGE),
    # The stop reason.
    "a refusal": Row((fails("flagged", stop_reason="refusal"),), Reason.REFUSAL),
    "a refusal, no error": Row((says("I will not."), result("I will not.", stop_reason="refusal")), Reason.REFUSAL),
    "a cut answer, no error": Row(
        (says("once upon"), result("once upon", stop_reason="max_tokens")), Reason.MAX_OUTPUT_TOKENS, told="once upon"
    ),
    "a paused turn": Row(
        (says("half"), result("half", stop_reason="pause_turn")),
        Reason.INTERRUPTED,
        told="The API paused the answer before its end.",
    ),
    "a full context": Row(
        (own(FULL, "max_output_tokens"), fails(FULL, api_error="max_output_tokens")), Reason.PROMPT_TOO_LONG
    ),
    "a cut answer by its kind": Row((fails("x", api_error="max_output_tokens"),), Reason.MAX_OUTPUT_TOKENS),
    # The API's answer.
    "408": Row((own("x", "unknown"), fails("x", api_error_status=408)), Reason.SERVER_ERROR),
    "409": Row((own("x", "unknown"), fails("x", api_error_status=409)), Reason.SERVER_ERROR),
    "422": Row((own("x", "unknown"), fails("x", api_error_status=422)), Reason.INVALID_REQUEST),
    "451": Row((own("x", "unknown"), fails("x", api_error_status=451)), Reason.INVALID_REQUEST),
    "an answer that a filter blocked": Row(
        (own(FILTERED, "unknown"), fails(FILTERED, api_error_status=400)), Reason.REFUSAL
    ),
    "400": Row(
        (own("API Error: 400 bad", "invalid_request"), fails("API Error: 400 bad", api_error_status=400)),
        Reason.INVALID_REQUEST,
    ),
    "401": Row(
        (own("Not logged in", "authentication_failed"), fails("Not logged in", api_error_status=401)), Reason.AUTH
    ),
    "402": Row((fails("pay", api_error_status=402),), Reason.BILLING),
    "413": Row((fails("large", api_error_status=413),), Reason.REQUEST_TOO_LARGE),
    "429": Row((own("API Error: 429", "rate_limit"), fails("API Error: 429", api_error_status=429)), Reason.RATE_LIMIT),
    "500": Row(
        (own("API Error: 500", "server_error"), fails("API Error: 500", api_error_status=500)), Reason.SERVER_ERROR
    ),
    "529": Row((own("API Error: 529", "overloaded"), fails("API Error: 529", api_error_status=529)), Reason.OVERLOADED),
    "no connection": Row(
        (own("API Error: unreachable", "server_error"), fails("API Error: unreachable")), Reason.CONNECTION
    ),
    "a cut answer": Row(
        (own("API Error: over 32000", "max_output_tokens"), fails("API Error: over 32000")), Reason.MAX_OUTPUT_TOKENS
    ),
    "an error that denies being one": Row(
        (own("API Error: 500 x", "server_error"), result("API Error: 500 x", api_error_status=500)), Reason.SERVER_ERROR
    ),
    "an untrusted certificate": Row(
        (own("x", "server_error"), fails("x", api_error="tls_untrusted_ca")), Reason.INVALID_REQUEST
    ),
    # Limits and credits.
    "a usage limit": Row(
        (
            limit(status="rejected", resetsAt=2e9),
            own(SESSION_LIMIT, "rate_limit"),
            fails(SESSION_LIMIT, api_error_status=429),
        ),
        Reason.USAGE_LIMIT,
    ),
    "a usage limit without its event": Row(
        (own(SESSION_LIMIT, "rate_limit"), fails(SESSION_LIMIT, api_error_status=429)), Reason.USAGE_LIMIT
    ),
    "a usage limit by its kind": Row(
        (fails("No more.", api_error="usage_limit_reached", api_error_status=429),), Reason.USAGE_LIMIT
    ),
    "a usage limit in the message": Row(
        (
            own("No.", "rate_limit", api_error_params={"rate_limit_info": {"status": "rejected"}}),
            fails("No.", api_error_status=429),
        ),
        Reason.USAGE_LIMIT,
    ),
    "a usage limit as plain text": Row(
        (unmarked(SESSION_LIMIT), result(SESSION_LIMIT)), Reason.USAGE_LIMIT, told="resets 3:40pm"
    ),
    "a usage limit after work": Row((says("Look."), own(SESSION_LIMIT), result(SESSION_LIMIT)), Reason.USAGE_LIMIT),
    "a usage limit of an older version": Row(
        (unmarked("Claude AI usage limit reached|1795900000"), result("Claude AI usage limit reached|1795900000")),
        Reason.USAGE_LIMIT,
    ),
    "a 500 while extra usage is in use": Row(
        (limit(status="rejected", overageStatus="allowed"), fails("API Error: 500", api_error_status=500)),
        Reason.SERVER_ERROR,
    ),
    "credits required": Row(
        (
            limit(status="rejected", errorCode="credits_required"),
            own(BUY, "rate_limit"),
            fails(BUY, api_error_status=429),
        ),
        Reason.BILLING,
    ),
    "credits required, without the event": Row(
        (own(BUY, "rate_limit"), fails(BUY, api_error_status=429)), Reason.BILLING
    ),
    "a long context on an API key": Row((own(LONG, "rate_limit"), fails(LONG, api_error_status=429)), Reason.BILLING),
    "the limits of an API account": Row(
        (own(ACCOUNT, "unknown"), fails(ACCOUNT, api_error_status=400)), Reason.BILLING
    ),
    "a spend cap by its kind": Row(
        (
            own("You've hit your monthly spend limit.", "rate_limit"),
            fails("You've hit your monthly spend limit.", api_error="usage_limit_reached", api_error_status=429),
        ),
        Reason.BILLING,
    ),
    "credits for a long context": Row(
        (own("x", "rate_limit", api_error="long_context_credits_required"), fails("x", api_error_status=429)),
        Reason.BILLING,
    ),
    "credits that a limit's reset replaces": Row(
        (
            limit(status="rejected", errorCode="credits_required", rateLimitType="five_hour", resetsAt=2e9),
            fails("x", api_error_status=429),
        ),
        Reason.USAGE_LIMIT,
    ),
    "a low balance": Row((own(LOW, "billing_error"), fails(LOW, api_error_status=400)), Reason.BILLING),
    "a low balance as plain text": Row((unmarked(LOW), result(LOW)), Reason.BILLING, told=LOW),
    "a low balance in the API's words": Row(
        (fails("API Error: 400 Your credit balance is too low to access the Anthropic API.", api_error_status=400),),
        Reason.BILLING,
    ),
    "a spend limit": Row(
        (unmarked("You've hit your monthly spend limit."), result("You've hit your monthly spend limit.")),
        Reason.BILLING,
    ),
    "out of extra usage, until a reset": Row(
        (
            own("You're out of extra usage · resets 5pm (UTC)", "rate_limit"),
            fails("You're out of extra usage · resets 5pm (UTC)"),
        ),
        Reason.USAGE_LIMIT,
    ),
    # No result, or none that can be read.
    "no result": Row((says("half"),), Reason.TRUNCATED, told="Its last words were: half"),
    "a damaged result and a signal": Row((says("half"), BROKEN), Reason.LOST, code=143),
    "a damaged failure": Row(
        (says("half"), BROKEN.replace("false", "true")), Reason.TRUNCATED, told="could not be read: 1"
    ),
    "a damaged result and nothing before": Row((BROKEN,), Reason.TRUNCATED, told="could not be read"),
    "a damaged result and message": Row(
        (says("old"), line(says("new")).split("new")[0], BROKEN), Reason.TRUNCATED, told="Its last words were: old"
    ),
    "a damaged result after a damaged message": Row(
        (says("old"), line(says("new", id="msg_2"))[:60], calls("msg_3"), BROKEN),
        Reason.TRUNCATED,
        told="words were: old",
    ),
    "no result but a printed one": Row((says("half"), f"debug: saw {line(printed())}"), Reason.TRUNCATED, told="half"),
    "no result but one in the arguments of a damaged call": Row(
        (says("half"), line(calls("msg_2", printed()))[:-40]), Reason.TRUNCATED, told="could not be read: 1"
    ),
    "no result but one of another session in a damaged call": Row(
        (says("half"), line(calls("msg_2", printed(session_id="z")))[:-40]), Reason.TRUNCATED, told="be read: 1"
    ),
    "a damaged result for a schema": Row((says("x"), BROKEN), Reason.TRUNCATED, told="could not be read", schema=True),
}

PASSES = LIMITS | TRANSIENT | {Reason.LOST, Reason.NO_SESSION}
"""Reasons after which another attempt follows by itself."""

TRIED_AGAIN = {
    "408",
    "409",
    "429",
    "500",
    "529",
    "no connection",
    "no session",
    "an error that denies being one",
    "a damaged result and a signal",
    "a 500 while extra usage is in use",
    "credits that a limit's reset replaces",
    "out of extra usage, until a reset",
    *(name for name in FAILURES if name.startswith("a usage limit")),
}


def outcome_of(row: Row, limit: int = LINE_LIMIT) -> Outcome:
    decoder, reader = LineDecoder(limit=limit), OutcomeReader()
    output = "".join(f"{one if isinstance(one, str) else line(one)}\n" for one in row.stream)
    for read in [*decoder.feed(output.encode()), *decoder.close()]:
        reader.take(read)
    return reader.conclude(exit_code=row.code, asked_schema=row.schema)


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ANSWERS.items()])
def test_an_answer_is_what_the_model_said(row: Row) -> None:
    outcome = outcome_of(row)
    assert (outcome.reason, outcome.result) == (row.reason, row.answer)
    assert outcome.status is (JobStatus.FAILED if row.reason is Reason.SCHEMA_UNMET else JobStatus.COMPLETED)
    assert row.told in outcome.detail
    assert bool(row.told) is bool(outcome.detail)
    assert outcome.frame is not None
    assert outcome.frame["result"] == row.answer


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_whatever_it_says_of_itself(name: str) -> None:
    row = FAILURES[name]
    outcome = outcome_of(row)
    assert (outcome.reason, outcome.status) == (row.reason, JobStatus.FAILED)
    assert not outcome.result
    assert row.told in outcome.detail
    assert outcome.detail
    assert (outcome.reason in PASSES) is (name in TRIED_AGAIN)


@pytest.mark.parametrize("terminal_reason", TERMINAL_REASON)
def test_no_success_ends_with_a_terminal_reason_of_the_table(terminal_reason: str) -> None:
    outcome = outcome_of(Row((says("x"), result("x", terminal_reason=terminal_reason)), Reason.COMPLETED))
    assert outcome.status is JobStatus.FAILED


@pytest.mark.parametrize("kind", API_ERROR)
def test_a_typed_error_counts_for_more_than_its_status(kind: str) -> None:
    outcome = outcome_of(
        Row((own("x", "rate_limit"), fails("x", api_error=kind, api_error_status=429)), Reason.COMPLETED)
    )
    assert outcome.reason is API_ERROR[kind]


def test_a_cost_that_is_no_number_is_reckoned_from_the_calls() -> None:
    assert outcome_of(ANSWERS["a cost that is no number"]).usage.cost_usd == pytest.approx(0.00007)


@pytest.mark.parametrize("name", STREAMS)
def test_a_line_that_was_cut_off_at_its_end_is_no_answer(name: str) -> None:
    data, _, _ = recorded(name)
    tail = len(data.splitlines()[-1])
    for missing in range(2, tail + 1, max(1, tail // 25)):
        decoder, reader = LineDecoder(), OutcomeReader()
        for read in [*decoder.feed(data[:-missing]), *decoder.close()]:
            reader.take(read)
        assert reader.conclude(exit_code=0).status is JobStatus.FAILED


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            Row((says("short"), result("short", usage={"iterations": ["x" * 9000]})), Reason.COMPLETED, "short"),
            "the answer is",
        ),
        (
            Row((says("old"), says("x" * 9000, id="msg_2"), result("x" * 9000)), Reason.TRUNCATED),
            "could not be read: 1",
        ),
        (Row((says("old"), fails("x" * 9000)), Reason.TRUNCATED), "Its last words were: old"),
    ],
)
def test_a_result_that_is_longer_than_a_line_may_be_is_told(row: Row, told: str) -> None:
    outcome = outcome_of(row, limit=8000)
    assert (outcome.reason, outcome.result) == (row.reason, row.answer)
    assert told in outcome.detail


def test_a_line_that_is_put_together_is_not_told_as_lost() -> None:
    outcome = outcome_of(ANSWERS["a damaged result that is put together"])
    assert outcome.detail == "A line of its output was damaged and has been repaired."


RECORDED_FRAMES = [frame for name in STREAMS for frame in frames(recorded(name)[0])]
FIELDS = sorted({field for frame in RECORDED_FRAMES for field in fields_of(frame)} | set(EXPECTED_FIELDS))
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**400, "", "rejected", "\ud800", [], [1], ["a", {}], [{}], {}, {"a": 1}, {"id": []}]
)


@given(
    stream=st.lists(st.sampled_from(RECORDED_FRAMES), min_size=1, max_size=4),
    odd=st.dictionaries(st.sampled_from(FIELDS), ODD, min_size=1, max_size=4),
    code=st.sampled_from([0, 1, 137, None]),
)
def test_no_value_of_any_field_raises(stream: list[Any], odd: Mapping[str, Any], code: int | None) -> None:
    reader = OutcomeReader()
    for frame in stream:
        changed = with_values(frame, odd)
        rate_limit_signal(changed)
        reader.take(Line(offset=0, end=1, frame=changed))
    reader.conclude(exit_code=code, asked_schema=True)
    assert reader.answered in {True, False}
