"""What it costs to know what a job does, beside reading the lines of its output."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from jobs.activity import ActivityTracker
from jobs.claude.ndjson import LineDecoder
from jobs.event_bus import JobEventBus
from jobs.model import JobStatus
from tests.benchmarks.watched import told
from tests.unit.jobs.support import job

TURNS = 200
DELTAS = 20
"""Parts of a message for each whole one: the CLI streams them."""

ROUNDS = 7
CALLS = 100_000


def frames() -> list[Mapping[str, Any]]:
    """Return the frames of an attempt that calls a tool in each turn."""
    found: list[Mapping[str, Any]] = [{"type": "system", "subtype": "init", "cwd": "/srv", "tools": ["Bash"] * 30}]
    for turn in range(TURNS):
        delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "some words of the model "}}
        found += [{"type": "stream_event", "event": delta, "session_id": "s", "uuid": "u"}] * DELTAS
        use = {"type": "tool_use", "id": f"t{turn}", "name": "Bash", "input": {"command": "pytest -x tests/unit " * 5}}
        for block in ({"type": "text", "text": "Now I run the tests. " * 10}, use):
            usage = {"input_tokens": 1000, "output_tokens": 50}
            found.append({"type": "assistant", "message": {"id": f"m{turn}", "content": [block], "usage": usage}})
        result = {"type": "tool_result", "tool_use_id": f"t{turn}", "content": "12 passed in 0.4 s\n" * 50}
        found.append({"type": "user", "message": {"content": [result]}})
    return found


def seconds(work: Callable[[], object]) -> float:
    """Return the median time of several rounds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def test_the_activity_of_a_frame_beside_the_parse_of_its_line():
    taken = frames()
    output = "".join(f"{json.dumps(frame)}\n" for frame in taken).encode()

    def track() -> None:
        tracker = ActivityTracker("/srv")
        for frame in taken:
            tracker.take(frame)

    parse, tracking = seconds(lambda: LineDecoder().feed(output)), seconds(track)
    told("a line", f"{parse / len(taken) * 1e6:.2f} us to parse, {tracking / len(taken) * 1e6:.2f} us to track", "none")
    told("tracking beside parsing", f"{tracking / parse:.3f}", "<= 0.15")
    assert tracking / parse <= 0.15


def test_an_announcement_that_nobody_wants():
    event_bus, running = JobEventBus(), job("j1", status=JobStatus.RUNNING)

    def announce() -> None:
        for _ in range(CALLS):
            event_bus.publish_activity(running)

    told("an announcement that nobody wants", f"{seconds(announce) / CALLS * 1e9:.0f} ns", "<= 500 ns")
