"""What grows and must not: a live tree of many jobs, a long past, many jobs one after the other."""

import time

import pytest

from tests.benchmarks.watched import ROOMY, engine_of, median_ms, told
from tests.support.engines import Pump, house
from tests.support.long_form import LONG
from tests.support.past import make_past

LIVE_TREES = (100, 10_000)
STARTED = 60
"""Jobs of a live tree that are launched and over before it is looked at."""

SLOTS = 2
PAST = 100_000 if LONG else 10_000
IN_A_ROW = 10_000 if LONG else 1_000
ASKED = 15


@pytest.mark.parametrize("count", LIVE_TREES)
def test_a_live_tree(count: int):
    with house(**{**ROOMY, "CLAUDE_JOBS_MAX_RUNNING": str(SLOTS)}) as built, built.pump() as client:
        gate = built.work / "gate"
        tasks = ["hello"] * STARTED + [f"stub:wait={gate}"] * (count - STARTED)
        batch = client.json("claude_run_batch_async", tasks=tasks, treeBudgetUsd=1000)["batchId"]
        began = time.monotonic()
        cursor: dict[str, str] = {}
        over = 0
        while over < STARTED:
            report = client.json("claude_wait", batchId=batch, mode="any", **cursor)
            over, cursor = over + len(report["done"]), {"cursor": report["cursor"]}
        each = (time.monotonic() - began) / STARTED * 1e3
        engine = engine_of(built)
        engine.quiet()
        told(f"{count} live jobs, launch under a budget until over", f"{each:.1f} ms a job", "as at 100")
        _ask(client, f"{count} live jobs", batch)
        told(f"{count} live jobs, engine", f"{engine.memory():.0f} MB", "<= 200 MB")
        client.json("claude_kill_job", jobId=batch)


def _ask(client: Pump, what: str, batch: str) -> None:
    waited = median_ms(lambda: client.text("claude_wait", batchId=batch, timeoutSeconds=0), ASKED)
    told(f"{what}, wait", f"{waited:.1f} ms p50", "as at 100")
    for status in ("running", "queued"):
        listed = median_ms(lambda status=status: client.text("claude_list_jobs", status=status, limit=20), ASKED)  # type: ignore[misc]
        told(f"{what}, list {status}", f"{listed:.1f} ms p50", "as at 100")


def test_a_long_past():
    # The past ended in 1970 and must not be forgotten.
    with house(**ROOMY, CLAUDE_JOBS_KEEP_DAYS="36500") as built:
        make_past(built.paths.home, PAST)
        began = time.monotonic()
        engine = engine_of(built)
        told(f"{PAST} jobs in the database, engine start", f"{time.monotonic() - began:.2f} s", "<= 2 s")
        with built.pump() as client:
            engine.quiet()
            counts = median_ms(lambda: client.text("claude_status", jobId=f"b{0:016d}"), ASKED)
            told(f"{PAST} jobs in the database, counts of one tree", f"{counts:.1f} ms p50", "<= 1 ms")
            for status in ("running", "failed"):
                listed = median_ms(lambda status=status: client.text("claude_list_jobs", status=status), ASKED)  # type: ignore[misc]
                told(f"{PAST} jobs in the database, list {status}", f"{listed:.1f} ms p50", "<= 10 ms")


@pytest.mark.timeout(3600)
def test_many_jobs_one_after_the_other():
    with house(**ROOMY) as built, built.pump() as client:
        engine = engine_of(built)
        _in_a_row(client, 100)
        engine.quiet()
        before = engine.memory()
        began = time.monotonic()
        _in_a_row(client, IN_A_ROW)
        each = (time.monotonic() - began) / IN_A_ROW * 1e3
        engine.quiet()
        told(f"{IN_A_ROW} jobs one after the other", f"{engine.memory() - before:+.1f} MB", "<= +16 MB")
        told("one job after the other", f"{each:.1f} ms a job", "none")


def _in_a_row(client: Pump, count: int) -> None:
    for _ in range(count):
        client.text("claude_run", task="hello")
