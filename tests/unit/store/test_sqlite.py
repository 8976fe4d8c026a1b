"""What only a store with a disk can break: durability, and its errors."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

import jobs
from jobs.errors import StoreError
from jobs.model import JobStatus, Outcome, Reason
from jobs.ports import AdmissionFacts, NewJob, Submission
from jobs.spec import JobSpec
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, anything_goes, ending, known, submission

pytestmark = pytest.mark.anyio

ACKNOWLEDGE = """
import sys
import anyio
from pathlib import Path
from jobs.ports import NewJob, Submission
from jobs.spec import JobSpec
from jobs.store.sqlite import SqliteStore

async def submit(store, worker):
    for turn in range(100_000):
        id_ = f"{worker}x{turn}"
        jobs = [NewJob(id=f"j{id_}-{n}", spec=JobSpec(task="t", cwd="/srv")) for n in range(3)]
        await store.admit(Submission(batch_id=f"b{id_}", jobs=jobs), lambda facts: None)
        print(f"b{id_}", flush=True)

async def main():
    async with SqliteStore.open(Path(sys.argv[1])) as store, anyio.create_task_group() as tasks:
        for worker in range(8):
            tasks.start_soon(submit, store, worker)

anyio.run(main)
"""


def _acknowledged_by_a_killed_process(path: Path) -> list[str]:
    top = Path(jobs.__file__).parent.parent
    command = [sys.executable, "-c", ACKNOWLEDGE, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(top)}, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(200)]
        process.kill()
        lines += process.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


async def test_what_was_acknowledged_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    acknowledged = _acknowledged_by_a_killed_process(path)

    async with SqliteStore.open(path) as store:
        stored = {batch_id: len(await store.jobs_in_batch(batch_id)) for batch_id in acknowledged}
        everything = await store.newest_jobs(limit=1_000_000)

    assert len(stored) >= 200
    assert set(stored.values()) == {3}
    assert len(everything) % 3 == 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_failing_disk_is_a_store_error_that_says_what_was_being_done(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqliteStore.open(path) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("DROP TABLE task")
            other.execute("ALTER TABLE batch RENAME TO gone")

        with pytest.raises(StoreError) as write:
            await admit(store, "b1", "j1")
        with pytest.raises(StoreError) as read:
            await store.task("j1")

    assert (write.value.operation, read.value.operation) == ("admit jobs", "read (task)")
    assert isinstance(write.value.__cause__, sqlite3.Error)


async def test_an_error_of_the_check_reaches_its_caller_unchanged(tmp_path: Path) -> None:
    def check(facts: object) -> None:
        raise KeyError("the caller's own")

    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        with pytest.raises(KeyError, match="own"):
            await store.admit(submission("b1", "j1"), check)

        assert await store.tree("b1") is None


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        pass

    with pytest.raises(StoreError, match="closed"):
        await store.job("j1")
    with pytest.raises(StoreError, match="closed"):
        await admit(store, "b1", "j1")


async def test_a_waiting_job_that_is_marked_for_cancel_is_not_claimed(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await admit(store, "b1", "j1")
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("UPDATE job SET cancel_requested = 1")

        assert await store.claim("j1", session_id="s", token_hash=None, at=1.0) is None


async def test_of_many_claims_of_one_job_one_succeeds(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await admit(store, "b1", "j1")
        won = []

        async def claim(session: str) -> None:
            won.append(await store.claim("j1", session_id=session, token_hash=None, at=1.0))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(claim, f"s{number}")

    assert [attempt.number for attempt in won if attempt is not None] == [1]


async def test_a_limit_holds_for_spawns_that_come_at_once(tmp_path: Path) -> None:
    def check(facts: AdmissionFacts) -> None:
        if facts.spawn.nodes >= 10:
            raise KeyError("full")

    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await store.admit(submission("b0", "root", as_root=True), anything_goes)
        refused = []

        async def spawn(number: int) -> None:
            try:
                await store.admit(submission(f"b{number}", f"j{number}", parent_id="root"), check)
            except KeyError:
                refused.append(number)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(1, 51):
                    tasks.start_soon(spawn, number)

        assert (await store.rollup_under("root")).total == 10
    assert len(refused) == 41


async def _with_answer(store: SqliteStore, root_id: str, count: int) -> None:
    jobs = await admit(store, root_id, *(f"{root_id}-{number}" for number in range(count)))
    for job in jobs:
        attempt = await store.claim(job.id, session_id="s", token_hash=None, at=1.0)
        assert attempt is not None
        await store.settle(job.id, 1, ending(JobStatus.COMPLETED, result="x" * 10_000), at=2.0)


async def test_the_file_shrinks_when_a_tree_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with SqliteStore.open(path) as store:
        await _with_answer(store, "b1", 20)
    small = path.stat().st_size
    async with SqliteStore.open(path) as store:
        await _with_answer(store, "b2", 400)
        await store.delete_tree("b2")
        await store.shrink()
        shrunk = path.stat().st_size
        assert (await known(store, "b1-7")).status is JobStatus.COMPLETED

    assert shrunk < small + 200_000
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_an_answer_and_a_task_are_in_the_file_once(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        task = JobSpec(task="the task" * 1000, cwd="/srv")
        await store.admit(Submission(batch_id="b1", jobs=[NewJob(id="j1", spec=task)]), anything_goes)
        await store.claim("j1", session_id="s", token_hash=None, at=1.0)
        frame = {"type": "result", "result": "the answer" * 1000}
        outcome = Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, result="the answer" * 1000, frame=frame)
        await store.settle("j1", 1, outcome, at=2.0)
    written = (tmp_path / "jobs.db").read_bytes()

    assert 990 <= written.count(b"the task") <= 1000
    # The first 500 characters stand on the job too; a page may end within a word.
    assert 990 <= written.count(b"the answer") <= 1050


async def test_an_option_is_read_under_the_name_that_an_earlier_version_wrote(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    spec = JobSpec(task="t", cwd="/srv", can_decompose=True)
    async with SqliteStore.open(path) as store:
        await store.admit(Submission(batch_id="b", jobs=[NewJob(id="j", spec=spec)]), anything_goes)
    with closing(sqlite3.connect(path)) as connection, connection:
        changed = connection.execute("UPDATE job SET spec = replace(spec, 'can_decompose', 'divisible')")
        assert changed.rowcount == 1
    async with SqliteStore.open(path) as store:
        job = await store.job("j")
    assert job is not None
    assert job.spec == spec
