"""Over many spawns the engine ends where it began: descriptors, tasks, threads, zombies and memory."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.engines import House, Pump, house
from tests.support.long_form import LONG
from tests.support.waiting import until_now

SPAWNS = 10_000 if LONG else 500
BATCH = 100
GROWTH = 64 * 1024 * 1024
"""Bytes that caches and the allocator may keep; ten thousand jobs that leaked seven kilobytes each would show."""
WORKERS = 40
"""Most worker threads that anyio starts; how many of them there are depends on how busy it has been."""


OTHERS = 8
"""The main thread, one for each connection to the database, and a few that libraries start."""


@pytest.fixture
def busy() -> Iterator[House]:
    with house(CLAUDE_JOBS_MAX_CONCURRENT='{"0": 1, "1": 30}') as made:
        yield made


@pytest.mark.long
@pytest.mark.timeout(3600 if LONG else 170)
def test_after_many_spawns_the_engine_holds_what_it_held_before(busy: House, capsys: pytest.CaptureFixture[str]):
    with busy.pump() as pump:
        spawn(pump, BATCH)
        status = busy.control("status")
        assert status is not None
        engine = psutil.Process(status["pid"])
        before = figures(engine) | {"tasks": tasks(busy)}
        began = time.monotonic()
        with newcomers(busy) as waits:
            for _ in range(SPAWNS // BATCH):
                spawn(pump, BATCH)
        took = time.monotonic() - began
        until_now(lambda: zombies(engine) == 0, 30, "the collection of every shim")
        until_now(lambda: engine.num_fds() <= before["descriptors"] + 3, 30, "the end of every descriptor")
        # The sweeps of ended jobs take a tenth of a core at most, so after thousands in a row the last ones wait.
        until_now(lambda: tasks(busy) <= before["tasks"] + 3, 110, "the end of every task")
        after = figures(engine) | {"tasks": tasks(busy)}
    with capsys.disabled():
        print(f"\n  {SPAWNS} spawns in {took:.0f} s: {before} before, {after} after")
        print(f"  {len(waits)} new clients waited {max(waits):.2f} s at most")
    assert after["threads"] <= WORKERS + OTHERS
    assert after["resident"] - before["resident"] < GROWTH
    assert b"Traceback" not in busy.paths.log.read_bytes()


@contextmanager
def newcomers(made: House) -> Iterator[list[float]]:
    """Connect one client after the other, and note for how many seconds each waits for its answer."""
    waits: list[float] = []
    over = threading.Event()

    def come() -> None:
        while not over.wait(0.2):
            began = time.monotonic()
            tasks(made)
            waits.append(time.monotonic() - began)

    thread = threading.Thread(target=come)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join(60)


def spawn(pump: Pump, count: int) -> None:
    batch = pump.json("claude_run_batch_async", tasks=["x"] * count)
    reply = {"pending": count}
    while reply["pending"]:
        reply = pump.json("claude_wait", batchId=batch["batchId"])


def figures(engine: psutil.Process) -> dict[str, int]:
    return {
        "descriptors": engine.num_fds(),
        "threads": engine.num_threads(),
        "zombies": zombies(engine),
        "resident": engine.memory_info().rss,
    }


def tasks(made: House) -> int:
    status = made.control("status")
    assert status is not None
    return int(status["tasks"])


def zombies(engine: psutil.Process) -> int:
    return sum(child.status() == psutil.STATUS_ZOMBIE for child in engine.children())
