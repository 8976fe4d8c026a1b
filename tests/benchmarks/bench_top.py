"""What `claude-jobs top` costs the engine while a batch of 200 jobs runs: with a watcher of the feed, and without."""

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from server.client.connect import connect_running
from server.client.wire import Hello, Role
from tests.benchmarks.watched import ROOMY, Onlooker, engine_of, run_batch, told, with_chatty_jobs
from tests.support.engines import House, Pump, house

BATCH = 200
ROUNDS = 6


@contextmanager
def watched(made: House) -> Iterator[list[int]]:
    """Follow the feed as the view does, and count the rows of each page."""
    found = connect_running(made.endpoint, Hello(cwd="/", role=Role.CONTROL, client="bench"))
    assert found is not None
    stream = socket.socket(fileno=found.detach())
    stream.settimeout(60)
    rows: list[int] = []

    def follow() -> None:
        cursor = None
        try:
            with stream.makefile("rb") as lines:
                while True:
                    request = {"do": "feed", **({"cursor": cursor} if cursor else {})}
                    stream.sendall(json.dumps(request).encode() + b"\n")
                    page = json.loads(lines.readline())
                    cursor = page["cursor"]
                    rows.append(len(page["jobs"]))
        except (OSError, ValueError):
            return

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield rows
    finally:
        stream.shutdown(socket.SHUT_RDWR)
        thread.join()
        stream.close()


def spent_on(client: Pump, engine: Onlooker, tasks: list[str]) -> tuple[float, float]:
    """Run a batch; return the engine's CPU seconds and how long it took."""
    before, began = engine.spent().cpu, time.monotonic()
    run_batch(client, tasks)
    return engine.spent().cpu - before, time.monotonic() - began


def compared(made: House, name: str, tasks: list[str]) -> None:
    """Run a batch alternately with a watcher and without one, and tell what the watcher cost."""
    engine = engine_of(made)
    with made.pump() as client:
        run_batch(client, tasks)
        alone, beside, shares, pages = [], [], [], []
        for turn in range(ROUNDS):
            engine.quiet()
            alone.append(spent_on(client, engine, tasks)[0])
            engine.quiet()
            with watched(made) as rows:
                time.sleep(1.5)
                cpu, took = spent_on(client, engine, tasks)
                pages.append(len(rows))
            beside.append(cpu)
            shares.append((cpu - alone[turn]) / took)
        share = statistics.median(shares)
        ratio = statistics.median(beside) / statistics.median(alone)
        told(name, f"{share * 100:.1f} % of a core, {ratio:.2f} of the CPU without, {pages[-1]} pages", "< 2 %")


def test_beside_200_jobs_that_answer_at_once():
    with house(**ROOMY) as made:
        compared(made, f"top beside {BATCH} jobs", ["hello"] * BATCH)


def test_beside_200_jobs_of_three_seconds_each_of_which_writes_all_the_time():
    with house(**{**ROOMY, "CLAUDE_JOBS_MAX_RUNNING": "200", "CLAUDE_JOBS_MAX_STARTING": "200"}) as made:
        compared(made, f"top beside {BATCH} jobs of 3 s", ["stub:sleep=3"] * BATCH)


def test_beside_60_running_jobs_that_call_a_tool_each_second():
    with house(**ROOMY) as made:
        compared(with_chatty_jobs(made), "top beside 60 jobs that call a tool each second", ["hello"] * 60)
