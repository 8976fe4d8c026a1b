"""What a report of a tree of 10,000 jobs costs the engine, and how long other requests wait meanwhile."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.benchmarks.watched import engine_of, told
from tests.support.engines import MAIN, House, house
from tests.support.past import make_past

JOBS = 10_000
ROOT = f"b{0:016d}"
SECONDS = 300.0


def longest_answer(made: House, work: threading.Thread) -> float:
    """Return how long the slowest of many small requests took while a thread works, in seconds."""
    longest = 0.0
    work.start()
    while work.is_alive():
        began = time.monotonic()
        made.control("status")
        longest = max(longest, time.monotonic() - began)
        work.join(0.02)
    return longest


def report(made: House, command: str, file: Path) -> None:
    """Write the file as a person would."""
    words = [sys.executable, str(MAIN), command, ROOT, "-o", str(file)]
    subprocess.run(words, env=made.environ, cwd=made.work, check=True, capture_output=True, timeout=SECONDS)


def test_a_report_and_a_trace_of_ten_thousand_jobs():
    with house() as made:
        make_past(made.paths.home, JOBS, per_tree=JOBS)
        engine = engine_of(made)
        for command in ("report", "trace"):
            file = made.base / command
            before, began = engine.quiet().cpu, time.monotonic()
            longest = longest_answer(made, threading.Thread(target=report, args=(made, command, file)))
            took, cpu = time.monotonic() - began, engine.spent().cpu - before
            size = file.stat().st_size / 1e6
            measured = (
                f"{took:.1f} s, {cpu:.1f} s of the engine's CPU, {size:.1f} MB, slowest request {longest * 1e3:.0f} ms"
            )
            told(f"{command} of {JOBS} jobs", measured, "slowest request < 100 ms")
