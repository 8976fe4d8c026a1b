"""JSON-RPC as lines: what is a message, what a line that is none is answered with, and lines that are too long."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.client.jsonrpc import (
    INVALID_REQUEST,
    PARSE_ERROR,
    BadMessageError,
    LineCutter,
    LongLine,
    answered_by,
    parse,
)

BAD: dict[str, tuple[bytes, int, Any]] = {
    "text": (b"no json", PARSE_ERROR, None),
    "half": (b'{"jsonrpc":"2.0","id":5,"met', PARSE_ERROR, None),
    "no colon": (b'{"jsonrpc" "2.0"}', PARSE_ERROR, None),
    "bad UTF-8": (b'{"jsonrpc":"2.0","id":5,"method":"\xff"}', PARSE_ERROR, None),
    "two": (b'{"jsonrpc":"2.0","id":5,"method":"ping"}{}', PARSE_ERROR, None),
    "endless number": (b'{"jsonrpc":"2.0","method":"a","id":' + b"9" * 5000 + b"}", PARSE_ERROR, None),
    "batch": (b'[{"jsonrpc":"2.0","id":5,"method":"ping"}]', INVALID_REQUEST, None),
    "number": (b"7", INVALID_REQUEST, None),
    "nothing": (b"{}", INVALID_REQUEST, None),
    "no version": (b'{"id":5,"method":"ping"}', INVALID_REQUEST, 5),
    "old version": (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', INVALID_REQUEST, "a"),
    "no method": (b'{"jsonrpc":"2.0","id":5}', INVALID_REQUEST, 5),
    "method": (b'{"jsonrpc":"2.0","id":5,"method":7}', INVALID_REQUEST, 5),
    "params": (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":[1]}', INVALID_REQUEST, 5),
    "params of a notification": (b'{"jsonrpc":"2.0","method":"ping","params":"x"}', INVALID_REQUEST, None),
    "null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', INVALID_REQUEST, None),
    "true id": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', INVALID_REQUEST, None),
    "fraction": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', INVALID_REQUEST, None),
    "object": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', INVALID_REQUEST, None),
    "half a character": (b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}', INVALID_REQUEST, None),
    "deep": (b'{"jsonrpc":"2.0","id":5,"method":"x","params":{"a":' + b"[" * 9999, INVALID_REQUEST, 5),
}
"""Lines, with the code and the id of the error that answers each."""


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_is_no_message_is_answered_as_the_protocol_says(name: str):
    text, code, key = BAD[name]
    with pytest.raises(BadMessageError) as refused:
        parse(text + b"\n")
    answer = json.loads(refused.value.reply())
    assert (answer["jsonrpc"], answer["id"], answer["error"]["code"]) == ("2.0", key, code)
    assert answer["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":5,"method":"ping"}\r\n',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","id":5,"method":"ping"}\n',
        b' {"jsonrpc":"2.0","id":"","method":"ping","params":null}\n',
        b'{"jsonrpc":"2.0","method":"x","params":{"a":"\\ud800"}}\n',
        b'{"jsonrpc":"2.0","id":5,"result":7}\n',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}\n',
    ],
    ids=["carriage return", "byte order mark", "empty id", "half a character", "answer", "error"],
)
def test_what_clients_send_besides_is_a_message(text: bytes):
    assert parse(text)["jsonrpc"] == "2.0"


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), max_size=8), st.integers(1, 50))
def test_lines_are_cut_the_same_in_whatever_pieces_they_come(texts: list[bytes], size: int):
    whole = b"".join(text + b"\n" for text in texts)
    cutter = LineCutter(1000)
    cut = [line for at in range(0, len(whole), size) for line in cutter.feed(whole[at : at + size])]
    assert cut == [text + b"\n" for text in texts]
    assert cutter.rest() == []


def long_line(text: bytes, *, size: int = 100) -> LongLine:
    cutter = LineCutter(1000)
    [line] = [line for at in range(0, len(text), size) for line in cutter.feed(text[at : at + size])] + cutter.rest()
    assert isinstance(line, LongLine)
    assert len(line.head) + len(line.tail) <= 2048
    return line


MUCH = b"x" * 9000


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"jsonrpc":"2.0","id":5,"method":"x","params":{"a":"%b"}}' % MUCH, 5),
        (b'{"jsonrpc":"2.0","method":"x","params":{"a":"%b"},"id":"last"}' % MUCH, "last"),
        (b'{"params":{"a":"%b"},"id":5,"method":"x","jsonrpc":"2.0"}' % MUCH, 5),
        (b'{"jsonrpc":"2.0","method":"x","params":{"a":"%b","id":5}}' % MUCH, None),
        (b'{"jsonrpc":"2.0","method":"x","params":{"a":"%b \\"id\\":5}' % MUCH, None),
        (b'{"jsonrpc":"2.0","method":"x","params":{"id":5,"a":"%b"}}' % MUCH, None),
        (b'{"jsonrpc":"2.0","id":5,"result":{"a":"%b"}}' % MUCH, None),
        (b'{"jsonrpc":"2.0","result":{"a":"%b"},"id":5}' % MUCH, None),
        (MUCH, None),
    ],
    ids=["first", "last", "middle", "nested", "in a text", "nested first", "answer", "answer's last", "no JSON"],
)
def test_a_line_that_is_too_long_is_refused_by_the_id_at_either_end(text: bytes, key: Any):
    with pytest.raises(BadMessageError, match="1000 bytes") as refused:
        parse(long_line(text + b"\n"))
    assert (refused.value.code, refused.value.key) == (INVALID_REQUEST, key)


@pytest.mark.parametrize("text", [b'{"id":5,"result":{"a":"%b"}}', b'{"error":{"message":"%b"},"id":5}'])
def test_an_answer_that_is_too_long_is_known_by_its_id(text: bytes):
    assert answered_by(long_line(text % MUCH)) == 5


def test_the_lines_behind_one_that_is_too_long_are_whole():
    cutter = LineCutter(1000)
    assert cutter.feed(MUCH) == []
    [_, second, third] = cutter.feed(MUCH + b"\n{}\n[]\n{")
    assert (second, third) == (b"{}\n", b"[]\n")
    assert cutter.feed(b"}\n") == [b"{}\n"]
