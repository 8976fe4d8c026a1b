"""What a hostile output costs the reader in memory, measured in a process of its own.

By its allocations and not by its resident pages: a process inherits the largest resident size of the one it was forked
from, here that of pytest.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 64 * 1024 * 1024
WIDE = 192 * 1024 * 1024
"""Python takes four bytes for each character of a text that holds an emoji."""

PROGRAM = """
import os, sys, tracemalloc
sys.path.append(sys.argv[1])
from jobs.claude.ndjson import LineDecoder
decoder = LineDecoder()
tracemalloc.start()
lines = []
def feed(piece, times=1):
    for _ in range(times):
        for line in decoder.feed(piece):
            lines.append((line.dropped, line.frame is not None, line.complete))
MIB = 1024 * 1024
match sys.argv[2]:
    case "no newline":
        feed(b"x" * MIB, 100); feed(b"\\n")
        assert lines == [(100 * MIB + 1, False, True)], lines
    case "no text":
        for _ in range(8): feed(os.urandom(MIB)); lines = lines[:1]
        assert lines
    case "six megabytes of JSON":
        body = b'{"type":"user","text":"' + b"y" * (6 * MIB) + b'"}\\n'
        for at in range(0, len(body), 65536): feed(body[at:at + 65536])
        assert lines == [(0, True, True)], lines
    case "sixteen megabytes with an emoji":
        body = b'{"type":"user","text":"' + b"y" * (15 * MIB) + "\U0001f600".encode() + b'"}\\n'
        for at in range(0, len(body), 65536): feed(body[at:at + 65536])
        assert lines == [(0, True, True)], lines
    case "torn lines":
        event = b'{"type":"rate_limit_event","session_id":"s"}\\n'
        torn = b'{"type":"result","result":"' + "\U0001f600".encode()
        feed(event)
        feed(torn + b"y" * 60_000 + event)
        feed(b'{"' * 30_000 + b"\\n", 2)
        feed(torn + b"y" * MIB + event)
        feed(b'{"type":"result","result":"')
        feed(b"y" * MIB, 15)
        feed(event + event)
        assert [is_frame for _, is_frame, _ in lines] == [True, False, True, *[False] * 4, True], lines
    case "half a line":
        feed(b'{"type":"assistant","text":"' + b"z" * MIB)
        assert [line.complete for line in decoder.close()] == [False]
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.parametrize(
    ("case", "most"),
    [
        ("no newline", MOST),
        ("no text", MOST),
        ("six megabytes of JSON", MOST),
        ("sixteen megabytes with an emoji", WIDE),
        ("torn lines", MOST),
        ("half a line", MOST),
    ],
)
def test_the_decoder_stays_within_its_memory(case: str, most: int):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), case], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    print(f"{case}: {int(done.stdout) / 1e6:.0f} MB")
    assert int(done.stdout) <= most
