"""What a stream says, as entries: of what Claude writes, and of what else a job may put into its file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.transcript.entries import LINE_CHARS, MOST_CHARS, MOST_PARTS
from tests.unit.transcript.streams import answer, call, line, read, result, said, text

FIXTURES = Path(__file__).parents[2] / "fixtures"
KEY = "sk-ant-api03-" + "aB3" * 20


def test_a_conversation_is_texts_thoughts_calls_results_and_the_answer():
    stream = (
        line("system", subtype="init", tools=["Bash"]),
        said({"type": "thinking", "thinking": "Where is it?"}, text("I look.")),
        said(call("c1", "Bash", command="ls -l\npwd", timeout=5), timestamp="2026-11-30T10:00:00Z"),
        said(result("c1", [text("a\nb\n")]), by="user"),
        answer("Two files."),
    )
    assert read(*stream) == [
        {"kind": "thinking", "text": "Where is it?"},
        {"kind": "text", "text": "I look."},
        {
            "kind": "call",
            "id": "c1",
            "tool": "Bash",
            "title": "Bash(ls -l pwd)",
            "arguments": [["command", "ls -l\npwd"], ["timeout", "5"]],
            "at": 1796032800.0,
        },
        {"kind": "result", "text": "a\nb", "of": "c1", "lines": 2},
        {"kind": "answer", "text": "Two files."},
    ]


def test_an_answer_that_was_said_is_not_told_twice():
    assert read(said(text("The  answer.")), answer("The answer.")) == [{"kind": "text", "text": "The  answer."}]


def test_the_lines_of_a_sub_agent_name_the_call_that_began_it():
    asked = said(text("Look into a.py"), by="user", parent_tool_use_id="c7")
    assert read(asked) == [{"kind": "task", "text": "Look into a.py", "agent": "c7"}]


def test_a_result_that_failed_and_an_end_with_an_error_say_so():
    stream = (
        said(result("c1", "<tool_use_error>no such file</tool_use_error>", is_error=True), by="user"),
        line("result", subtype="error_max_turns", is_error=True, errors=["Reached 3 turns"]),
    )
    assert read(*stream) == [
        {"kind": "result", "text": "no such file", "of": "c1", "lines": 1, "isError": True},
        {"kind": "error", "text": "max turns: Reached 3 turns"},
    ]


def test_trouble_of_the_api_is_told_once_until_it_changes():
    retry = line("system", subtype="api_retry", error="overloaded", error_status=529)
    limit = line("rate_limit_event", rate_limit_info={"status": "rejected", "rateLimitType": "five_hour"})
    assert [entry["text"] for entry in read(retry, retry, limit, retry)] == [
        "the API answered: overloaded (HTTP 529); it is asked again",
        "usage limit reached five_hour",
        "the API answered: overloaded (HTTP 529); it is asked again",
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"type":"assistant","message":{"content":[{"ty\n', '{"type":"assistant","message":{"content":[{"ty'),
        (b"Segmentation fault\n", "Segmentation fault"),
        (b"[1, 2]\n", "[1, 2]"),
        (b"x" * (17 * 1024 * 1024) + b"\n", "A line of 17825793 bytes was left out."),
        (line("hologram", of="a cat"), "Not shown: a line of the kind hologram."),
        (b"{}\n", "Not shown: a line of the kind (none)."),
        (said({"type": "smell"}), "Not shown: a part of the kind smell."),
        (said("no object"), "Not shown: a part of the kind (none)."),
        (line("assistant", message=7), "Not shown: a message without content."),
        (said(*[text("x")] * (MOST_PARTS + 2)), "2 more parts of a message were left out."),
    ],
)
def test_what_cannot_be_read_is_a_notice(data: bytes, words: str):
    notice = read(data)[-1]
    assert (notice["kind"], notice["text"]) == ("notice", words)


def test_a_long_text_is_cut_and_says_how_long_it_was():
    [entry] = read(said(text("y" * 100_000)))
    assert (len(entry["text"]), entry["chars"]) == (MOST_CHARS, 100_000)
    [entry] = read(said(call("c1", "Write", content="z" * 50_000)))
    assert entry["arguments"] == [["content", f"{'z' * MOST_CHARS}\n… 10000 characters more"]]


def test_one_line_of_many_texts_has_a_bound():
    entries = read(said(*[call(f"c{number}", "Write", **{"n" * 300: "y" * 30_000}) for number in range(90)]))
    assert len(entries) == 90
    assert len(json.dumps(entries)) < 2 * LINE_CHARS
    # The next line has its own.
    assert read(said(*[text("y" * 40_000)] * 9), said(text("short")))[-1] == {"kind": "text", "text": "short"}


@pytest.mark.parametrize("before", [*range(-130, 4, 7)])
def test_no_half_of_a_secret_is_left_at_a_cut(before: int):
    for limit in (MOST_CHARS, 2 * MOST_CHARS, 1000, 2000):
        filler = ("word " * (limit // 5 + 1))[: limit + before]
        for secret, known in ((KEY, ()), ("correct horse battery staple 42", ("correct horse battery staple 42",))):
            words = f"{filler} {secret} and more"
            blocks = (text(words), call("c", "Bash", command=words), result("c", words * 2))
            shown = json.dumps(read(said(*blocks), f"{words}\n".encode(), known=known))
            assert secret[: len(secret) // 2] not in shown


def test_secrets_are_hidden_in_names_ids_arguments_and_errors():
    stream = (
        said(call(KEY, KEY, **{KEY: KEY, "api_key": "plain words", "nested": {"header": f"x-api-key: {KEY}"}})),
        line("result", is_error=True, subtype="error", errors=[KEY]),
        line(KEY),
        line("system", subtype="api_retry", error=KEY),
        line("rate_limit_event", rate_limit_info={"status": "rejected", "rateLimitType": KEY}),
    )
    shown = json.dumps(read(*stream))
    assert "aB3aB3" not in shown
    assert "plain words" not in shown


def test_no_text_holds_what_a_terminal_or_a_reader_is_deceived_by():
    bad = "\x1b[2J\x1b]0;t\x07\u202eevil\u2066\x00\x9b31m"
    shown = read(
        said(
            text(f"a{bad}"), call(f"i{bad}", f"T{bad}", **{f"n{bad}": f"v{bad}"}), result("i", f"r{bad}"), {"type": bad}
        )
    )
    flat = json.dumps(shown, ensure_ascii=False)
    assert not {"\x1b", "\x07", "\u202e", "\u2066", "\x00", "\x9b", "\\u001b"} & set(flat)
    assert "evil" in flat


def test_half_a_character_can_be_encoded():
    assert json.dumps(read(b'{"type":"assistant","message":{"content":"\\ud800"}}\n'), ensure_ascii=False).encode()


def test_an_argument_that_is_too_deep_to_write_is_no_error():
    deep = b'{"type":"assistant","message":{"content":[{"type":"tool_use","id":"c","name":"T","input":{"a":%b1%b}}]}}\n'
    for depth in (100, 900, 970, 990):
        assert len(read(deep % (b"[" * depth, b"]" * depth))) == 1


def test_every_line_of_the_recorded_streams_is_known():
    files = sorted(FIXTURES.glob("*/*.ndjson"))
    assert len(files) > 40
    unknown = {path.name: [one for one in read(path.read_bytes()) if one.get("notice") == "unknown"] for path in files}
    assert {name: found for name, found in unknown.items() if found} == {}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_kinds = st.sampled_from(["assistant", "user", "result", "system", "rate_limit_event", "stream_event"])
_blocks = st.sampled_from(["text", "thinking", "tool_use", "tool_result", "server_tool_use", "image"])
_block = st.fixed_dictionaries(
    {"type": _blocks | _json},
    optional=dict.fromkeys(("text", "thinking", "id", "name", "input", "tool_use_id", "content", "is_error"), _json),
)
_frame = st.fixed_dictionaries(
    {"type": _kinds | _json},
    optional={
        "message": _json | st.fixed_dictionaries({"content": _json | st.lists(_block | _json, max_size=3)}),
        "subtype": st.sampled_from(["api_retry", "informational", "success", "error_x"]) | _json,
        **dict.fromkeys(("result", "errors", "is_error", "error", "error_status", "content", "rate_limit_info"), _json),
        "parent_tool_use_id": _json,
        "timestamp": _json | st.datetimes().map(str),
    },
)


@given(frames=st.lists(_frame.map(lambda frame: json.dumps(frame).encode()) | st.binary(max_size=60), max_size=5))
def test_no_stream_is_an_exception_and_every_entry_can_be_written(frames: list[bytes]):
    entries: list[dict[str, Any]] = read(b"\n".join(frames))
    assert json.loads(json.dumps(entries, allow_nan=False, ensure_ascii=False).encode()) == entries
