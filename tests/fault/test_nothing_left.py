"""Jobs that hide what they start: however they end, nothing of them runs once they are over."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.processes.process_table import process_table
from tests.support.engines import PYTHON_STUB, House, house
from tests.support.noted import claude_of
from tests.support.waiting import until_now

SECONDS = 60.0
EACH = 10
"""Jobs of each kind."""

UNSEEN = ["unseen"] if sys.platform == "linux" else []
"""Only a subreaper finds a daemon that forked twice, in a session of its own, with an empty environment."""


@pytest.fixture
def haunted() -> Iterator[House]:
    with house(
        CLAUDE_JOBS_CLI=str(PYTHON_STUB), CLAUDE_JOBS_MAX_RUNNING="60", CLAUDE_JOBS_MEMORY_FLOOR_BYTES="0"
    ) as made:
        yield made


class Kind:
    """Jobs that do the same, and the processes that they noted."""

    def __init__(self, made: House, pump: Any, do: str) -> None:
        self.pids_path = made.base / f"pids-{do}"
        self.ready = made.base / f"ready-{do}"
        task = f"stub:do={do} stub:arg=9 stub:pids={self.pids_path} stub:ready={self.ready}"
        batch = pump.json("claude_run_batch_async", tasks=[task] * EACH)
        self.batch_id, self.job_ids = batch["batchId"], batch["jobIds"]
        self.trees = made.paths.trees

    def stand(self) -> None:
        until_now(lambda: lines(self.ready) == EACH, SECONDS, f"{EACH} jobs of {self.ready.name}")

    def claudes(self) -> list[int]:
        return [claude_of(self.trees / self.batch_id / each / "1") for each in self.job_ids]

    def started(self) -> set[int]:
        noted = self.pids_path.read_text().split() if self.pids_path.exists() else []
        return {*map(int, noted), *self.claudes()}


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def are_gone(pids: set[int]) -> bool:
    return not pids & set(process_table().entries())


def over(pump: Any, kinds: list[Kind]) -> list[dict[str, Any]]:
    found = []
    for kind in kinds:
        while pump.json("claude_wait", batchId=kind.batch_id)["pending"]:
            pass
        found += pump.json("claude_list_jobs", under=kind.batch_id, limit=EACH)
    return found


@pytest.mark.timeout(170)
def test_a_success_leaves_nothing(haunted: House, capsys: pytest.CaptureFixture[str]):
    with haunted.pump() as pump:
        kinds = [Kind(haunted, pump, do) for do in ("daemon", "chain", *UNSEEN)]
        assert {job["status"] for job in over(pump, kinds)} == {"completed"}
        started = set.union(*(kind.started() for kind in kinds))
        until_now(lambda: are_gone(started), SECONDS, "the end of every daemon")
    with capsys.disabled():
        print(f"\n  after {len(kinds) * EACH} successes 0 of {len(started)} processes left")


@pytest.mark.timeout(170)
def test_a_cancel_or_a_kill_leaves_nothing(haunted: House, capsys: pytest.CaptureFixture[str]):
    with haunted.pump() as pump:
        deaf, wide, stopped, killed, scrubbed = kinds = [
            Kind(haunted, pump, do) for do in ("ignoreterm", "wide", "silent", "linger", "scrubbed")
        ]
        for kind in (deaf, wide, stopped, killed, scrubbed):
            kind.stand()
        started = set.union(*(kind.started() for kind in kinds))
        for pid in stopped.claudes():
            os.kill(pid, signal.SIGSTOP)
        for pid in killed.claudes():
            os.kill(pid, signal.SIGKILL)
        for kind in (deaf, wide, stopped, scrubbed):
            for job_id in kind.job_ids:
                pump.json("claude_kill_job", jobId=job_id)
        ended = {job["jobId"]: job["status"] for job in over(pump, kinds)}
        assert {ended[each] for kind in (deaf, wide, stopped, scrubbed) for each in kind.job_ids} == {"cancelled"}
        until_now(lambda: are_gone(started), SECONDS, "the end of every process")
    with capsys.disabled():
        print(f"\n  after {len(kinds) * EACH} cancels and kills 0 of {len(started)} processes left")
