import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from jobs.claude.framer import LINE_LIMIT, Framer, Line


def framed(data: bytes, cuts: list[int] | None = None, limit: int = LINE_LIMIT) -> list[Line]:
    framer = Framer(limit=limit)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    lines: list[Line] = []
    for begin, end in pairwise(edges):
        lines += framer.feed(data[begin:end])
    return lines + framer.close()


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
        elif line.frame is not None:
            assert json.loads(cut.decode("utf-8", "replace")) == line.frame


@given(data=_streams, cut=st.integers(min_value=0))
def test_reading_can_go_on_from_the_offset_after_a_restart(data: bytes, cut: int) -> None:
    first = Framer(limit=64)
    before = first.feed(data[: cut % (len(data) + 1)])
    second = Framer(first.offset, limit=64)
    assert before + second.feed(data[first.offset :]) + second.close() == framed(data, limit=64)


def test_a_line_of_a_hundred_megabytes_is_counted_and_not_kept() -> None:
    framer = Framer()
    for _ in range(100):
        assert framer.feed(b"x" * 1024 * 1024) == []
        assert len(framer._kept) <= LINE_LIMIT
    assert framer.feed(b'\n{"type":"result"}\n') == [
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
