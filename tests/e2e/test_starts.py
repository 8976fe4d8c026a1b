"""Which jobs start, and in which order, as the processes themselves note it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.engines import SHELL_STUB, House, house
from tests.support.waiting import until_now

LIMIT = 4


@contextmanager
def noting(base: Path, **environ: str) -> Iterator[tuple[House, Path]]:
    """Make a house whose `claude` notes the mark of its job in a file as soon as it is started."""
    starts, stub = base / "starts", base / "claude"
    starts.touch()
    stub.write_text(f'#!/bin/sh\necho "$CLAUDE_JOBS_JOB" >>{starts}\nexec {SHELL_STUB} "$@"\n')
    stub.chmod(0o755)
    with house(CLAUDE_JOBS_CLI=str(stub), **environ) as made:
        yield made, starts


def started(starts: Path) -> Sequence[str]:
    """Return the ids of the jobs that were started, in order."""
    return [mark.split(":")[1] for mark in starts.read_text().split()]


def test_the_tasks_of_a_batch_start_in_their_order(tmp_path: Path):
    with noting(tmp_path, CLAUDE_JOBS_MAX_RUNNING="1") as (made, starts), made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=["x"] * 30)
        pump.text("claude_wait", batchId=batch["batchId"])

    assert started(starts) == batch["jobIds"]


def test_nothing_of_a_batch_starts_once_it_is_killed(tmp_path: Path):
    with noting(tmp_path, CLAUDE_JOBS_MAX_RUNNING=str(LIMIT)) as (made, starts), made.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=["stub:sleep=60"] * 100)
        until_now(lambda: len(started(starts)) == LIMIT, 30.0, "the first jobs")
        began = time.monotonic()
        said = pump.json("claude_kill_job", jobId=batch["batchId"])
        took = time.monotonic() - began
        # The processes that are ended give their slots to nobody.
        pump.text("claude_wait", batchId=batch["batchId"])
        counts = pump.json("claude_status", jobId=batch["batchId"])["counts"]

    print(f"the kill of 100 jobs was answered after {took:.3f} s")
    assert said["success"] is True
    assert counts == {"cancelled": 100}
    assert sorted(started(starts)) == sorted(batch["jobIds"][:LIMIT])
