"""JSON of the client: as the package `json` has it, with and without the functions below that package."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.client.light_json import dumps, loads

ROOT = Path(__file__).parents[3]
LONE_HALVES = st.characters(categories=["Cs"])
TEXTS = st.text(st.characters() | LONE_HALVES)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))


@given(VALUES)
def test_a_value_is_written_and_read_as_the_package_does_it(value: Any):
    assert dumps(value) == json.dumps(value, separators=(",", ":"))
    assert dumps(value, ascii_only=False) == json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert loads(dumps(value).encode()) == value
    assert loads(b" \r\n" + json.dumps(value, indent=1).encode() + b"\t\n") == value


@pytest.mark.parametrize(
    "bad", [b"", b" ", b"{", b"[1,]", b"[1] 2", b"tru", b"nan", b"\xff", b'{"a" 1}', b'"\n"', b"'a'", b"\x00"]
)
def test_what_is_no_json_is_refused(bad: bytes):
    with pytest.raises(ValueError):  # noqa: PT011 - any of them, as the package says it
        json.loads(bad)
    with pytest.raises(ValueError):  # noqa: PT011 - likewise
        loads(bad)


def test_what_is_nested_too_deeply_is_refused():
    with pytest.raises(RecursionError):
        loads(b"[" * 200_000)


def test_what_json_does_not_know_is_not_written():
    with pytest.raises(TypeError, match="object"):
        dumps([object()])


@pytest.mark.parametrize("other", ["sys.modules['_json'] = None", "import _json; del _json.make_encoder"])
def test_an_interpreter_without_those_functions_takes_the_package(other: str):
    program = f"import sys; {other}\nfrom server.client.light_json import *\nprint(dumps(loads(b'[1, \"x\"]')))"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, '[1,"x"]\n'), done.stderr
