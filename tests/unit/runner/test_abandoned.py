"""Jobs that cannot be followed any more: failed with the reason, their processes ended; never for a cancel."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from jobs.errors import StoreError
from jobs.model import Job, JobStatus, Outcome, Reason
from jobs.processes import kill
from jobs.processes.process_table import Entry, LinuxTable
from jobs.runner import supervise as supervisor_module
from jobs.store.memory import MemoryStore
from tests.support.noted import shim_of
from tests.unit.jobs.support import LONG, FakeRunner, Parts, parts, settle
from tests.unit.runner.test_adoption import left_running
from tests.unit.runner.test_runner import NoPids, answers, attempt_directory, vanishes

pytestmark = pytest.mark.anyio


class NoEnds(MemoryStore):
    """A database that takes no end of any job, once it is `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.refused = anyio.Event()

    async def settle(self, job_id: str, attempt: int, outcome: Outcome, *, at: float) -> Job:
        if self.broken:
            self.refused.set()
            raise StoreError("settle", "database disk image is malformed")
        return await super().settle(job_id, attempt, outcome, at=at)


def unreadable(frame: Mapping[str, Any]) -> None:
    """Stand for a mistake of ours that a line of a job's output brings to light."""
    raise ValueError(f"no sign in {frame['type']}")


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    monkeypatch.setattr(supervisor_module, "TICK", 0.02)
    monkeypatch.setattr(supervisor_module, "rate_limit_signal", unreadable)
    async with parts(tmp_path, processes=True, store=NoEnds()) as built:
        yield built


def shim(engine: Parts, job: Job) -> int:
    return shim_of(attempt_directory(engine, job))


async def test_a_job_that_cannot_be_followed_is_failed_and_its_process_ended(engine: Parts):
    (job_id,) = await engine.run(f"stub:wait={engine.work}/never")
    (job,) = await engine.over(job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.UNKNOWN_ERROR)
    assert "no sign in system" in (job.error or "")
    assert "claude_retry" in (job.error or "")
    await vanishes(shim(engine, job))
    assert not [file.path for file in psutil.Process().open_files() if job_id in file.path]
    assert not (attempt_directory(engine, job) / "in").exists()


async def test_a_process_goes_on_for_the_next_engine_where_the_store_refuses_its_failure_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervisor_module, "TICK", 0.02)
    monkeypatch.setattr(supervisor_module, "rate_limit_signal", unreadable)
    store = NoEnds()
    store.broken = True
    async with parts(tmp_path, processes=True, store=store) as engine:
        (job_id,) = await engine.run(f"stub:wait={engine.work}/never")
        job = await engine.reaches(job_id, JobStatus.RUNNING)
        with anyio.fail_after(LONG):
            await store.refused.wait()
        await settle()
        assert (await engine.job(job_id)).status is JobStatus.RUNNING
        os.kill(shim(engine, job), 0)
        await engine.manager.cancel(job_id)
        await vanishes(shim(engine, job))


async def test_a_job_that_opened_its_directory_while_no_engine_ran_completes_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with parts(tmp_path, processes=True, store=NoPids()) as engine:
        job = await left_running(engine, f"stub:wait={engine.work}/go")
        directory = attempt_directory(engine, job)
        await answers(directory / "out")
    async with parts(tmp_path, processes=True, store=engine.store) as engine:
        directory.chmod(0o755)
        await engine.manager.resume()
        (engine.work / "go").touch()
        (ended,) = await engine.over(job.id)
        assert ended.status is JobStatus.COMPLETED
        assert "it is private again" in (ended.error or "")


class Dying(FakeRunner):
    """Meets an error of its own while it is cancelled."""

    async def result(self, job_id: str) -> Job:
        try:
            return await super().result(job_id)
        finally:
            raise RuntimeError("the storage is closed")


async def test_what_is_raised_while_an_engine_is_cancelled_is_no_end_of_a_job(tmp_path: Path):
    async with parts(tmp_path, runner=lambda _, store, event_bus: Dying(store, event_bus)) as engine:
        (job_id,) = await engine.run("hold")
        await engine.reaches(job_id, JobStatus.RUNNING)
        await settle()
        engine.group.cancel_scope.cancel()
    assert (await engine.job(job_id)).status is JobStatus.RUNNING


async def test_an_attempt_that_was_settled_already_is_not_settled_again(engine: Parts):
    job = await left_running(engine, f"stub:wait={engine.work}/go")
    outcome = Outcome(reason=Reason.CANCELLED, status=JobStatus.CANCELLED)
    settled = await engine.store.settle(job.id, job.attempt, outcome, at=5.0)
    assert await engine.runner.abandon(job.id, "whatever") == settled
    assert await engine.job(job.id) == settled
    # Nothing follows its process any more: it ends by itself.
    (engine.work / "go").touch()


class Shortage:
    """A process table that cannot be read for a while, as where too many files are open.

    Args:
        tries: How many looks fail.
    """

    def __init__(self, tries: int) -> None:
        self.tries = tries

    def over(self, table: type[LinuxTable]) -> Callable[[LinuxTable], Mapping[int, Entry]]:
        """Return the table's listing with the shortage before it."""
        listing = table.entries

        def entries(self_: LinuxTable) -> Mapping[int, Entry]:
            if self.tries:
                self.tries -= 1
                raise OSError(24, "Too many open files")
            return listing(self_)

        return entries


@pytest.mark.skipif(sys.platform != "linux", reason="the table that is short of files here is that of Linux")
@pytest.mark.parametrize("tries", [1, kill.TRIES])
async def test_a_process_table_that_cannot_be_read_for_a_while_ends_neither_the_engine_nor_a_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
):
    monkeypatch.setattr(kill, "TRY_PAUSE", 0.001)
    async with parts(tmp_path, processes=True) as engine:
        job = await left_running(engine, f"stub:wait={engine.work}/go")
        shortage = Shortage(tries)
        monkeypatch.setattr(LinuxTable, "entries", shortage.over(LinuxTable))
        await engine.runner.cancel(job.id)
        await engine.runner.cancel(job.id)
        ended = await engine.runner.run(job.id)
        assert (ended.status, ended.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)
        shortage.tries = kill.TRIES
        (engine.work / "go").touch()
        (other,) = await engine.over(*await engine.run("x"))
        assert other.status is JobStatus.COMPLETED
        await settle()
