"""What an engine finds at its start, and what it ends of what an earlier one left."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs.maintenance.orphan_sweep import OrphanSweep
from jobs.model import JobStatus
from jobs.processes.process_table import process_table
from tests.support.waiting import until
from tests.unit.jobs.support import Parts, parts, preparation_of
from tests.unit.runner.test_adoption import left_running, result

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts(tmp_path, processes=True) as built:
        yield built


def recovery_of(engine: Parts) -> OrphanSweep:
    return OrphanSweep(engine.store, preparation_of(engine.settings, engine.store, engine.client_contexts))


def daemon(mark: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["/bin/sleep", "60"], env={"CLAUDE_JOBS_JOB": mark}, start_new_session=True)


async def test_a_daemon_of_an_attempt_that_is_over_is_ended_at_the_next_start_and_a_live_one_is_left(engine: Parts):
    job = await left_running(engine, f"stub:wait={engine.work}/go")
    launch_planner = preparation_of(engine.settings, engine.store, engine.client_contexts)
    stale, foreign = launch_planner.marker(job, 7), "otherhome:j1:7"
    daemons = {mark: daemon(mark) for mark in (stale, foreign)}
    try:
        table = process_table()

        async def marked() -> bool:
            return all(table.job_marker(process.pid) == mark for mark, process in daemons.items())

        await until(marked)
        assert await recovery_of(engine).sweep() == 1
        assert daemons[stale].wait(10) == -signal.SIGKILL
        assert daemons[foreign].poll() is None
        (engine.work / "go").touch()
        assert (await result(engine.runner)).status is JobStatus.COMPLETED
    finally:
        for process in daemons.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
