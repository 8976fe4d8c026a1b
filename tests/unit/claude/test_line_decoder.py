import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.claude.damaged_lines import UnreadableKind
from jobs.claude.ndjson import LINE_LIMIT, Line, LineDecoder
from tests.support.reachable import parts_of


def framed(data: bytes, cuts: list[int] | None = None, limit: int = LINE_LIMIT) -> list[Line]:
    decoder = LineDecoder(limit=limit)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    lines: list[Line] = []
    for begin, end in pairwise(edges):
        lines += decoder.feed(data[begin:end])
    return lines + decoder.close()


_pieces = st.one_of(
    st.binary(max_size=40),
    st.just(b"\n"),
    st.just(b'{"type":"result"}\n'),
    st.just(b"x" * 70),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2).map(lambda value: json.dumps(value).encode()),
)
_streams = st.lists(_pieces, max_size=12).map(b"".join)


@given(data=_streams, cuts=st.lists(st.integers(min_value=0), max_size=12))
def test_chunking_never_changes_the_lines(data: bytes, cuts: list[int]) -> None:
    assert framed(data, cuts, limit=64) == framed(data, limit=64)


@given(data=_streams)
def test_every_line_names_the_bytes_it_was_cut_from(data: bytes) -> None:
    for line in framed(data, limit=64):
        cut = data[line.offset : line.end]
        assert cut.endswith(b"\n") is line.complete
        assert line.offset == 0 or data[line.offset - 1 : line.offset] == b"\n"
        if line.dropped:
            assert line.dropped == len(cut) > 64
        elif line.frame == {"type": "result"}:
            # It may have been cut out of a line with something else on it.
            assert b'{"type":"result"}' in cut
        elif line.frame is not None:
            assert json.loads(cut.decode("utf-8", "replace")) == line.frame


@given(data=_streams, cut=st.integers(min_value=0))
def test_reading_can_go_on_from_the_offset_after_a_restart(data: bytes, cut: int) -> None:
    first = LineDecoder(limit=64)
    before = first.feed(data[: cut % (len(data) + 1)])
    second = LineDecoder(first.offset, limit=64)
    assert before + second.feed(data[first.offset :]) + second.close() == framed(data, limit=64)


def test_a_line_of_a_hundred_megabytes_is_counted_and_not_kept() -> None:
    decoder = LineDecoder()
    for _ in range(100):
        assert decoder.feed(b"x" * 1024 * 1024) == []
        assert sum(len(part) for part in parts_of(decoder) if isinstance(part, bytes | bytearray)) <= LINE_LIMIT
    assert decoder.feed(b'\n{"type":"result"}\n') == [
        Line(offset=0, end=104857601, dropped=104857601),
        Line(offset=104857601, end=104857619, frame={"type": "result"}),
    ]


def test_a_line_of_exactly_the_limit_is_kept() -> None:
    payload = b'{"a":' + b"1" * 20 + b"}"
    (line,) = framed(payload + b"\n", limit=len(payload))
    assert line.frame == {"a": 11111111111111111111}


def test_nesting_of_a_hundred_thousand_is_text_and_no_error() -> None:
    (line,) = framed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")
    assert line.frame is None
    assert len(line.text) == 2000


def test_an_integer_too_long_to_convert_is_text_and_no_error() -> None:
    (line,) = framed(b'{"a":' + b"9" * 10_000 + b"}\n")
    assert line.frame is None


def test_invalid_utf8_is_replaced() -> None:
    (line,) = framed(b'{"a":"\xff"}\n')
    assert line.frame == {"a": "\ufffd"}


def test_an_unterminated_tail_comes_last_and_is_marked() -> None:
    (line,) = framed(b'{"type":"result"}')
    assert line.frame == {"type": "result"}
    assert not line.complete


def test_json_that_is_no_object_is_text() -> None:
    assert [line.text for line in framed(b'[1]\n"a"\n\n  \nnull\n')] == ["[1]", '"a"', "null"]


SYSTEM = '{"type":"system","subtype":"init","session_id":"s"}'
EVENT = '{"type":"rate_limit_event","rate_limit_info":{"status":"allowed"},"session_id":"s"}'
HEAD, TAIL = '{"type":"result","subtype":"success","is_error":false,"result":"whole ', 'answer","session_id":"s"}'


def kinds(data: str) -> list[str]:
    return [line.frame["type"] for line in framed(data.encode()) if line.frame is not None]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (f"{SYSTEM}{EVENT}\n", ["system", "rate_limit_event"]),
        (f"\x1b[2J\x1b[3J\x1b[H{SYSTEM}\n", ["system"]),
        (f"\ufeff{SYSTEM}\n", ["system"]),
        (f"Warning: no sandbox {{x}} {SYSTEM}\n", ["system"]),
        (f"{SYSTEM} bye\n", ["system"]),
        (f"{SYSTEM}\x1b[?25h{EVENT}\n", ["system", "rate_limit_event"]),
        ('{"type":"result","result":"a \x1b[1mbold\x1b[0m answer"}\n', ["result"]),
        (f"{SYSTEM}\n{HEAD}{EVENT}\n{TAIL}\n", ["system", "rate_limit_event", "result"]),
        (f"{SYSTEM}\n{HEAD}{EVENT}{TAIL}\n", ["system", "rate_limit_event", "result"]),
        (f"{SYSTEM}\n{HEAD}{EVENT}\n{EVENT}\n{TAIL}\n", ["system", "rate_limit_event", "rate_limit_event", "result"]),
        (f"{SYSTEM}\n{HEAD}[DEBUG] a line of a log\n{TAIL}\n", ["system", "result"]),
        (f'{SYSTEM}\nread {{"a":1}} {EVENT}\n', ["system", "rate_limit_event"]),
    ],
)
def test_whole_frames_are_cut_out_of_a_damaged_line(data: str, expected: list[str]) -> None:
    assert kinds(data) == expected


def test_a_torn_frame_is_put_together_and_marked() -> None:
    _, torn, event, mended = framed(f"{SYSTEM}\n{HEAD}{EVENT}\n{TAIL}\n".encode())
    assert torn.lost is UnreadableKind.ANSWER
    assert (event.mended, mended.mended) == (False, True)
    assert mended.frame is not None
    assert mended.frame["result"] == "whole answer"


FAKE = '{"type":"result","subtype":"success","is_error":false,"result":"fake"}'
FAKE_OF_ANOTHER = FAKE.replace('"fake"', '"fake","session_id":"z"')


@pytest.mark.parametrize("fake", [FAKE, FAKE_OF_ANOTHER])
def test_a_torn_frame_yields_no_object_that_stands_inside_it(fake: str) -> None:
    torn = f'{{"type":"assistant","message":{{"content":[{{"type":"tool_use","input":{fake}}}]'
    _, line = framed(f"{SYSTEM}\n{torn}\n".encode())
    assert (line.frame, line.lost) == (None, UnreadableKind.FRAME)
    assert line.text.startswith('{"type":"assistant"')


@pytest.mark.parametrize("fake", [FAKE, FAKE_OF_ANOTHER])
@pytest.mark.parametrize("first", [f"{SYSTEM}\n", ""])
def test_an_object_that_somebody_prints_is_no_frame(first: str, fake: str) -> None:
    *_, line = framed(f"{first}[hook] {fake} bye\n".encode())
    assert (line.frame, line.lost, line.text) == (None, None, f"[hook] {fake} bye")


def test_a_result_that_somebody_prints_and_cuts_short_is_no_lost_answer() -> None:
    _, line = framed(f"{SYSTEM}\n[DEBUG] hook input: {HEAD}\n".encode())
    assert line.lost is UnreadableKind.FRAME


def test_parts_of_frames_of_another_session_are_not_put_together() -> None:
    tail = TAIL.replace('"s"', '"z"')
    assert kinds(f"{SYSTEM}\n{HEAD}\n{tail}\n") == ["system"]


@pytest.mark.parametrize("between", [EVENT, "a log", '{"a":' + "1" * 70_000 + "}"])
def test_the_end_of_a_torn_frame_is_looked_for_in_the_next_eight_lines_only(between: str) -> None:
    assert kinds(f"{SYSTEM}\n{HEAD}\n" + f"{between}\n" * 7 + f"{TAIL}\n")[-1] == "result"
    assert "result" not in kinds(f"{SYSTEM}\n{HEAD}\n" + f"{between}\n" * 8 + f"{TAIL}\n")


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        (HEAD, UnreadableKind.ANSWER),
        (HEAD.replace("false", "true"), UnreadableKind.FRAME),
        (HEAD.replace('"type":"result"', '"usage":{"a":[1]}'), UnreadableKind.ANSWER),
        (HEAD.replace('"type":"result"', '"type":"user"'), UnreadableKind.FRAME),
        (HEAD.replace('"type":"result"', '"session_id":"z"'), UnreadableKind.FRAME),
        (f'{{"type":"user","tool_use_result":{HEAD}', UnreadableKind.FRAME),
        ('{"result":"\\"type\\":\\"result\\",\\"subtype\\":\\"success\\",\\"is_error\\":false', UnreadableKind.FRAME),
        ("oops", None),
        ("{oops}", None),
    ],
)
def test_a_line_that_cannot_be_read_says_what_is_lost(line: str, lost: UnreadableKind | None) -> None:
    _, found = framed(f"{SYSTEM}\n{line}\n".encode())
    assert found.lost is lost


def test_a_result_that_is_too_long_is_known_by_its_beginning() -> None:
    data = f'{{"is_error":false,"subtype":"success","result":"{"x" * 20_000}","type":"result"}}\n'.encode()
    (line,) = framed(data, limit=10_000)
    assert (line.dropped, line.lost) == (len(data), UnreadableKind.ANSWER)


def test_the_end_of_an_output_that_was_cut_off_is_no_answer() -> None:
    (line,) = framed(HEAD.encode())
    assert line.lost is None


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_does_not_know_is_null(cost: str) -> None:
    (line,) = framed(f'{{"total_cost_usd":{cost}}}\n'.encode())
    assert line.frame == {"total_cost_usd": None}


def test_a_line_of_a_hundred_thousand_beginnings_is_given_up_early() -> None:
    (line,) = framed(b'{"a"' * 100_000 + b"\n")
    assert (line.frame, line.lost) == (None, UnreadableKind.FRAME)


def test_a_damaged_line_that_is_too_long_to_be_looked_through_leaves_nothing_behind() -> None:
    padding = " " * 70_000
    assert kinds(f"{SYSTEM}\noops{padding}{EVENT}\n{HEAD}{padding}\n{TAIL}\n") == ["system"]
