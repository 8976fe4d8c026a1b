"""Which jobs start, and in which order, as the processes themselves note it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import SHELL_STUB, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(180)

LIMIT = 4
SLEEPS = "stub:sleep=60"
SECONDS = 60.0
"""Bound of every wait."""


@contextmanager
def noting(base: Path, **environ: str) -> Iterator[tuple[House, Path]]:
    """Make a house whose `claude` notes the mark of its job in a file as soon as it is started."""
    starts, stub = base / "starts", base / "claude"
    starts.touch()
    stub.write_text(f'#!/bin/sh\necho "$CLAUDE_JOBS_JOB" >>{starts}\nexec {SHELL_STUB} "$@"\n')
    stub.chmod(0o755)
    settings = {"CLAUDE_JOBS_MAX_CHILDREN": "1000", "CLAUDE_JOBS_MAX_RUNNING": str(LIMIT), **environ}
    with house(CLAUDE_JOBS_CLI=str(stub), **settings) as made:
        yield made, starts


def started(starts: Path) -> Sequence[str]:
    """Return the ids of the jobs that were started, in order."""
    return [mark.split(":")[1] for mark in starts.read_text().split()]


def wait_for_starts(starts: Path, count: int) -> None:
    until_now(lambda: len(started(starts)) >= count, SECONDS, f"{count} starts")


def ended(pump: Pump, **which: Any) -> Mapping[str, int]:
    """Wait for the end of jobs and return how many of them ended how."""
    # The processes that are ended give their slots to nobody: where that were not so, the wait would see it.
    while pump.json("claude_wait", **which)["pending"]:
        pass
    job_id = which.get("batchId") or which["subtreeOf"]
    return dict(pump.json("claude_status", jobId=job_id).get("counts", {}))


def kill(made: House, pump: Pump, by: str, job_id: str) -> None:
    began = time.monotonic()
    if by == "tool":
        assert pump.json("claude_kill_job", jobId=job_id)["success"] is True
    else:
        assert made.run("kill", job_id).returncode == 0
    print(f"the kill by {by} was answered after {time.monotonic() - began:.3f} s")


@pytest.mark.parametrize(("max_running", "count"), [(1, 50), (10, 200)])
def test_the_tasks_of_a_batch_start_in_their_order(tmp_path: Path, max_running: int, count: int):
    with noting(tmp_path, CLAUDE_JOBS_MAX_RUNNING=str(max_running)) as (made, starts), made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=["x"] * count)
        assert ended(pump, batchId=batch["batchId"]) == {"completed": count}
    order = {job_id: number for number, job_id in enumerate(started(starts))}
    # Jobs that have slots at the same time may start, and note it, in any order.
    late = [abs(order[job_id] - number) for number, job_id in enumerate(batch["jobIds"])]
    assert max(late) <= 2 * (max_running - 1)


def test_several_batches_keep_their_orders_over_kills_of_the_engine_and_when_they_are_tried_again(tmp_path: Path):
    with noting(tmp_path, CLAUDE_JOBS_MAX_RUNNING="1") as (made, starts), made.pump() as pump:
        batches = [pump.json("claude_run_batch_async", tasks=["stub:sleep=0.1 stub:exit=1"] * 12) for _ in range(2)]
        for count in (8, 16):
            wait_for_starts(starts, count)
            made.kill_engine()
            until_now(made.engine_is_gone, SECONDS, "the engine's end")
            made.start_engine()
        for batch in batches:
            assert ended(pump, batchId=batch["batchId"]) == {"failed": 12}
        first = started(starts)
        for batch in batches:
            assert [job_id for job_id in first if job_id in batch["jobIds"]] == batch["jobIds"]
            pump.json("claude_retry", jobId=batch["batchId"])
        for batch in batches:
            # A session that goes on is not told to fail again.
            assert ended(pump, batchId=batch["batchId"]) == {"completed": 12}
            again = [job_id for job_id in started(starts)[24:] if job_id in batch["jobIds"]]
            assert again == batch["jobIds"]


@pytest.mark.parametrize("by", ["tool", "command"])
@pytest.mark.parametrize("first", [0, LIMIT])
def test_nothing_of_a_batch_starts_once_it_is_killed(tmp_path: Path, by: str, first: int):
    """The kill comes while the batch is still coming into the line, or when its first jobs run."""
    with noting(tmp_path) as (made, starts), made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=[SLEEPS] * 400)
        wait_for_starts(starts, first)
        kill(made, pump, by, batch["batchId"])
        assert ended(pump, batchId=batch["batchId"]) == {"cancelled": 400}
    # Never more than run at once: no slot that the kill gave back went to another of them.
    assert set(started(starts)) <= set(batch["jobIds"][:LIMIT])
    assert first <= len(started(starts)) <= LIMIT


@pytest.mark.parametrize("by", ["tool", "command"])
def test_nothing_below_a_job_starts_once_it_is_killed(tmp_path: Path, by: str):
    with noting(tmp_path) as (made, starts), made.pump() as pump:
        root = running(pump, pump.json("claude_run_async", task=SLEEPS)["jobId"])
        with pump_of_job(made, attempt_directory(made, root)) as inside:
            below = inside.json("claude_run_batch_async", tasks=[SLEEPS] * 200)
            wait_for_starts(starts, LIMIT)
            kill(made, pump, by, root["jobId"])
        ended(pump, subtreeOf=root["jobId"])
        assert pump.settled(root["jobId"])["status"] == "cancelled"
        assert ended(pump, batchId=below["batchId"]) == {"cancelled": 200}
    assert sorted(started(starts)) == sorted([root["jobId"], *below["jobIds"][: LIMIT - 1]])


def test_nothing_of_a_batch_starts_once_its_time_is_over(tmp_path: Path):
    with noting(tmp_path) as (made, starts), made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=[SLEEPS] * 100, treeTimeoutSeconds=3)
        counts = ended(pump, batchId=batch["batchId"])
    assert sum(counts.values()) == 100
    assert "completed" not in counts
    assert set(started(starts)) <= set(batch["jobIds"][:LIMIT])


def test_nothing_starts_once_the_engine_is_asked_to_leave_and_the_next_one_goes_on_in_order(tmp_path: Path):
    go = tmp_path / "go"
    with noting(tmp_path, CLAUDE_JOBS_MAX_RUNNING="1") as (made, starts):
        with made.pump() as pump:
            batch = pump.json("claude_run_batch_async", tasks=[f"stub:wait={go}"] * 6)
        wait_for_starts(starts, 1)
        assert made.run("engine", "stop").returncode == 0
        go.touch()
        until_now(made.engine_is_gone, SECONDS, "the engine's end")
        assert started(starts) == batch["jobIds"][:1]
        with made.pump() as pump:
            assert ended(pump, batchId=batch["batchId"]) == {"completed": 6}
        assert started(starts) == batch["jobIds"]
