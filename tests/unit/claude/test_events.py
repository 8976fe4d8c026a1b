import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.claude.events import TEXT_LIMIT, JobEvent, event_of
from jobs.claude.framer import Framer, Line
from jobs.claude.shapes import plain
from tests.unit.claude.support import STREAMS, recorded


def event(frame: dict[str, Any]) -> JobEvent | None:
    return event_of(Line(offset=7, end=9, frame=frame))


def shown(frame: dict[str, Any]) -> tuple[str, str]:
    found = event(frame)
    assert found is not None
    return found.kind, found.text


def message(kind: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "message": {"content": list(blocks)}}


@pytest.mark.parametrize(
    ("frame", "kind", "text"),
    [
        ({"type": "system", "subtype": "init", "model": "sonnet"}, "system.init", "sonnet"),
        (message("assistant", {"type": "text", "text": "Hello\nthere"}), "assistant", "Hello there"),
        (
            message("assistant", {"type": "tool_use", "name": "Bash", "input": {"command": "ls", "description": "x"}}),
            "assistant",
            "Bash: ls",
        ),
        (message("assistant", {"type": "tool_use", "name": "Odd", "input": {"n": 1}}), "assistant", "Odd"),
        (message("user", {"type": "tool_result", "content": "ok"}), "user", "result: ok"),
        (
            message("user", {"type": "tool_result", "is_error": True, "content": [{"type": "text", "text": "no"}]}),
            "user",
            "error: no",
        ),
        ({"type": "result", "subtype": "success", "result": "42"}, "result.success", "42"),
        ({"type": "result", "subtype": "error_max_turns", "errors": ["a", "b"]}, "result.error_max_turns", "a; b"),
        (
            {
                "type": "system",
                "subtype": "api_retry",
                "attempt": 1,
                "max_retries": 10,
                "retry_delay_ms": 504,
                "error_status": 529,
                "error": "overloaded",
            },
            "system.api_retry",
            "overloaded (HTTP 529), attempt 1 of 10, again in 0.5 s",
        ),
        (
            {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "rateLimitType": "five_hour"}},
            "rate_limit_event",
            "five_hour rejected",
        ),
        (
            {"type": "system", "subtype": "permission_denied", "tool_name": "Write"},
            "system.permission_denied",
            "Write was not permitted",
        ),
        ({"type": "tomorrow's"}, "tomorrow's", ""),
        ({"no": "type"}, "unknown", ""),
    ],
)
def test_a_frame_becomes_a_kind_and_a_text(frame: dict[str, Any], kind: str, text: str) -> None:
    assert shown(frame) == (kind, text)


@pytest.mark.parametrize("kind", ["control_response", "stream_event"])
def test_a_frame_of_the_protocol_is_no_event(kind: str) -> None:
    assert event({"type": kind}) is None


def test_a_line_that_is_no_frame_is_shown_as_text() -> None:
    found = event_of(Line(offset=0, end=4, text="oops"))
    assert found is not None
    assert (found.kind, found.text) == ("text", "oops")


def test_a_line_that_was_too_long_is_mentioned() -> None:
    found = event_of(Line(offset=0, end=99, dropped=99))
    assert found is not None
    assert (found.kind, found.text) == ("oversize", "A line of 99 bytes was dropped.")


def test_a_long_text_is_cut_and_marked() -> None:
    _, text = shown({"type": "result", "result": "x" * 5000})
    assert len(text) == TEXT_LIMIT
    assert text.endswith("x…")


def test_what_a_terminal_would_act_on_is_removed() -> None:
    hostile = "a\x1b]52;c;aGVsbG8=\x07b\x1b[31mc\x1b[0m\x9b2Jd\x00e\u202ef\r\ng"
    assert shown({"type": "result", "result": hostile})[1] == "abcd e f g"


@given(st.text(alphabet=st.characters(), max_size=60), st.integers(1, 30))
def test_no_control_character_survives_and_cleaning_twice_changes_nothing(value: str, limit: int) -> None:
    cleaned = plain(value, limit)
    assert len(cleaned) <= limit
    assert not [one for one in cleaned if unicodedata.category(one) in {"Cc", "Cs"}]
    assert plain(cleaned, limit) == cleaned


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_keys = ["subtype", "message", "content", "result", "errors", "rate_limit_info", "error", "retry_delay_ms", "attempt"]
_kinds = st.sampled_from(["assistant", "user", "result", "system", "rate_limit_event"]) | _json
_subtypes = st.sampled_from(["init", "api_retry", "permission_denied"]) | _json


@given(kind=_kinds, subtype=_subtypes, fields=st.dictionaries(st.sampled_from(_keys), _json, max_size=6))
def test_a_frame_of_any_shape_becomes_an_event(kind: Any, subtype: Any, fields: dict[str, Any]) -> None:
    found = event({"subtype": subtype, **fields, "type": kind})
    assert found is not None
    assert len(found.text) <= TEXT_LIMIT


@pytest.mark.parametrize("name", STREAMS)
def test_every_recorded_line_becomes_a_bounded_event(name: str) -> None:
    data, _, _ = recorded(name)
    for line in Framer().feed(data):
        found = event_of(line)
        assert found is not None
        assert found.text or found.kind.startswith("system.")
