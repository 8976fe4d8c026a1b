"""A store whose file is damaged or gone comes back from its snapshot and from the jobs' directories, and says so."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from jobs.errors import StoreError
from jobs.maintenance.db_recovery import last_recovery, open_with_recovery, read_job
from jobs.maintenance.integrity import check_after_crash
from jobs.model import Job, JobStatus, Outcome, Reason
from jobs.ports import NewJob, Submission
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.runner.manifest import LaunchManifest, write_end_manifest, write_launch_manifest
from jobs.spec import TASK_PREVIEW, JobSpec
from jobs.store import corruption
from jobs.store.corruption import noted_damage, snapshot_of, take_snapshot
from jobs.store.restoration import RecoveredJob
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, anything_goes, ids, known

pytestmark = pytest.mark.anyio

TASK = "t" * (TASK_PREVIEW + 1)
ANSWER = {"type": "result", "subtype": "success", "is_error": False, "result": "forty-two", "num_turns": 1}


class Home:
    """A state directory with the directories that a runner would have left."""

    def __init__(self, path: Path) -> None:
        self.database = path / "jobs.db"
        self.trees = path / "trees"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[SqliteStore]:
        async with open_with_recovery(self.database, self.trees, SqliteStore.open) as store:
            yield store

    def directory(self, job: Job, attempt: int) -> AttemptDirectory:
        return AttemptDirectory.create(self.trees / job.root_id / job.id / str(attempt))

    async def launch(self, store: SqliteStore, job_id: str, *, at: float = 2.0) -> None:
        """Claim a job and leave what a launch leaves."""
        attempt = await store.claim(job_id, session_id=f"s of {job_id}", token_hash=f"t of {job_id}", at=at)
        assert attempt is not None
        job = await known(store, job_id)
        tree = await store.tree(job.root_id) if job.parent_id is None else None
        task = await store.task(job_id)
        assert task is not None
        whole = replace(job, spec=replace(job.spec, task=task, task_chars=None))
        write_launch_manifest(
            self.directory(job, attempt.number), LaunchManifest(job=whole, attempt=attempt, tree=tree)
        )

    async def end(self, store: SqliteStore, job_id: str, outcome: Outcome) -> None:
        """Settle a job and leave what its end leaves."""
        job = await known(store, job_id)
        directory = self.directory(job, job.attempt)
        (directory.path / "out").write_text(json.dumps({"type": "system"}) + "\n" + json.dumps(ANSWER) + "\n")
        (directory.path / "rc").write_text("0\n")
        write_end_manifest(directory, await store.settle(job_id, job.attempt, outcome, at=7.0))

    async def family(self, store: SqliteStore) -> None:
        """b1 (j1 (j2), j3, j4, j5): running, completed, cancelled, in its second attempt, queued."""
        spec = JobSpec(task=TASK, cwd="/srv", max_budget_usd=2.0)
        jobs = [NewJob(id=id_, spec=spec) for id_ in ("j1", "j3", "j4", "j5")]
        submission = Submission(batch_id="b1", jobs=jobs, client="me", max_budget_usd=9.0, at=1.0)
        await store.admit(submission, anything_goes)
        await self.launch(store, "j1")
        await admit(store, "b2", "j2", parent_id="j1")
        for job_id in ("j2", "j3", "j4"):
            await self.launch(store, job_id)
        await self.end(store, "j2", done())
        await self.end(store, "j3", Outcome(reason=Reason.CANCELLED, status=JobStatus.CANCELLED, detail="why"))
        await self.end(store, "j4", Outcome(reason=Reason.USAGE_LIMIT, status=JobStatus.QUEUED))
        await self.launch(store, "j4", at=8.0)


def done() -> Outcome:
    return Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, result="forty-two", frame=ANSWER, exit_code=0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for offset in range(0, len(data), 97):
        data[offset] ^= 0xFF
    path.write_bytes(data)


def _flip_behind_the_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page] ^= 0xFF
    path.write_bytes(data)


DAMAGES: Sequence[Callable[[Path], Any]] = [
    _flip,
    _flip_behind_the_header,
    lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    lambda path: path.write_bytes(path.read_bytes()[:100]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(bytes(path.stat().st_size)),
    lambda path: path.unlink(),
]
NAMES = ["flipped", "flipped behind the header", "half", "header only", "empty", "NULs", "missing"]


async def _expect_family(store: SqliteStore) -> None:
    jobs = {job.id: job for job in await store.jobs(["j1", "j2", "j3", "j4"])}
    assert {id_: job.status for id_, job in jobs.items()} == {
        "j1": JobStatus.RUNNING,
        "j2": JobStatus.COMPLETED,
        "j3": JobStatus.CANCELLED,
        "j4": JobStatus.RUNNING,
    }
    assert (jobs["j2"].parent_id, jobs["j2"].depth, jobs["j2"].path) == ("j1", 2, "b1/j1/j2")
    # One that was launched only, one that was settled too.
    assert [await store.task(job_id) for job_id in ("j1", "j3")] == [TASK] * 2
    assert {len(jobs[job_id].spec.task) for job_id in ("j1", "j3")} == {TASK_PREVIEW}
    assert (jobs["j3"].error, jobs["j3"].reason) == ("why", Reason.CANCELLED)
    assert (jobs["j4"].attempt, jobs["j1"].spec.max_budget_usd) == (2, 2.0)
    assert ids(await store.jobs_in_batch("b1"))[:3] == ["j1", "j3", "j4"]
    tree = await store.tree("b1")
    assert tree is not None
    assert (tree.client, tree.max_budget_usd) == ("me", 9.0)
    caller = await store.caller("t of j1")
    assert caller == jobs["j1"]
    attempt = await store.attempt("j2", 1)
    assert attempt is not None
    assert (attempt.result, attempt.exit_code, attempt.token_hash) == ("forty-two", 0, None)
    first = await store.attempt("j4", 1)
    assert first is not None
    assert (first.status, first.reason) == (JobStatus.QUEUED, Reason.USAGE_LIMIT)


@pytest.mark.parametrize("damage", DAMAGES, ids=NAMES)
@pytest.mark.parametrize("snapshot", ["never", "early", "late"])
async def test_a_damaged_database_comes_back_from_snapshot_and_directories(
    home: Home, damage: Callable[[Path], Any], snapshot: str
) -> None:
    async with home.open() as store:
        await admit(store, "b0", "j0")
        if snapshot == "early":
            await anyio.to_thread.run_sync(take_snapshot, home.database)
        await home.family(store)
        if snapshot == "late":
            await anyio.to_thread.run_sync(take_snapshot, home.database)
    before = home.database.read_bytes()
    damage(home.database)
    damaged = home.database.read_bytes() if home.database.exists() else None

    async with home.open() as store:
        await _expect_family(store)
        queued = ids(await store.jobs(["j0", "j5"]))
    report = last_recovery(home.database)

    assert queued == {"never": [], "early": ["j0"], "late": ["j0", "j5"]}[snapshot]
    assert report is not None
    assert report.restored == (0 if snapshot == "late" else 4)
    assert (report.snapshot_at is None) == (snapshot == "never")
    assert (report.aside is None) == (damaged is None)
    if report.aside is not None:
        assert Path(report.aside).read_bytes() == damaged != before


@pytest.mark.parametrize("damage", DAMAGES, ids=NAMES)
async def test_a_large_database_that_is_damaged_where_a_start_reads_comes_back_too(
    home: Home, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], Any]
) -> None:
    monkeypatch.setattr(corruption, "CHECKED_AT_ONCE", 0)
    async with home.open() as store:
        await home.family(store)
    damage(home.database)

    async with home.open() as store:
        await _expect_family(store)
    report = last_recovery(home.database)

    assert report is not None
    assert report.restored == 4


DAMAGED = range(1000, 1400)


def _crash_with_a_damaged_attempt(home: Home) -> None:
    """Damage a page that no start reads, and leave the mark of a crash."""
    with closing(sqlite3.connect(home.database)) as connection:
        connection.executemany(
            "INSERT INTO attempt (job_id, number, session_id, setting_sources, started_at) VALUES ('j2', ?, ?, '', 5)",
            [(number, f"needle{'x' * 1000}") for number in DAMAGED],
        )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(home.database.read_bytes())
    middle = [page for page in range(0, len(data), 4096) if b"needle" in data[page : page + 4096]]
    data[middle[len(middle) // 2]] ^= 0xFF
    home.database.write_bytes(data)
    (home.database.parent / "jobs.db.open").touch()


async def test_damage_that_a_start_does_not_see_is_found_in_the_background_and_repaired_by_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruption, "CHECKED_AT_ONCE", 0)
    async with home.open() as store:
        await home.family(store)
    await anyio.to_thread.run_sync(_crash_with_a_damaged_attempt, home)

    async with home.open() as store:
        assert (await known(store, "j3")).status is JobStatus.CANCELLED
        assert noted_damage(home.database) is None
        await check_after_crash(home.database, delay=0)
    noted, told = noted_damage(home.database), last_recovery(home.database)
    async with home.open() as store:
        await _expect_family(store)

    assert noted is not None
    assert told is None
    assert noted_damage(home.database) is None
    assert last_recovery(home.database) is not None


async def _read_every_attempt(store: SqliteStore) -> None:
    for number in DAMAGED:
        await store.attempt("j2", number)


async def test_damage_that_a_query_meets_is_noted_and_repaired_by_the_next_start(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corruption, "CHECKED_AT_ONCE", 0)
    async with home.open() as store:
        await home.family(store)
    await anyio.to_thread.run_sync(_crash_with_a_damaged_attempt, home)

    async with home.open() as store:
        with pytest.raises(StoreError, match="malformed"):
            await _read_every_attempt(store)
    noted = noted_damage(home.database)
    async with home.open() as store:
        await _expect_family(store)

    assert noted is not None
    assert "malformed" in noted
    assert last_recovery(home.database) is not None


async def test_a_sound_database_is_checked_once_after_a_crash(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption, "CHECKED_AT_ONCE", 0)
    async with home.open() as store:
        await home.family(store)
    (home.database.parent / "jobs.db.open").touch()

    async with home.open():
        before = corruption.is_unchecked(home.database)
        await check_after_crash(home.database, delay=0)
        after = corruption.is_unchecked(home.database)
    async with home.open():
        assert not corruption.is_unchecked(home.database)

    assert (before, after, noted_damage(home.database)) == (True, False, None)


async def test_a_log_that_vanished_is_made_good_from_the_directories(home: Home) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore.open(home.database))
        (home.database.parent / "jobs.db.open").touch()
        await home.family(store)
        # A crash, and a log that the disk did not keep.
        copy = home.database.with_name("kept")
        copy.write_bytes(home.database.read_bytes())
    home.database.unlink()
    copy.rename(home.database)

    async with home.open() as store:
        await _expect_family(store)
    report = last_recovery(home.database)

    assert report is not None
    assert (report.restored, report.aside) == (4, None)


async def test_a_crash_alone_is_no_recovery(home: Home) -> None:
    async with home.open() as store:
        await home.family(store)
        before = await store.newest_jobs(limit=9)
    (home.database.parent / "jobs.db.open").touch()

    async with home.open() as store:
        assert await store.newest_jobs(limit=9) == before
    assert last_recovery(home.database) is None


async def test_a_retry_that_waits_is_not_undone_by_the_end_that_it_follows(home: Home) -> None:
    async with home.open() as store:
        await home.family(store)
        await store.requeue("j3")
    (home.database.parent / "jobs.db.open").touch()

    async with home.open() as store:
        assert (await known(store, "j3")).status is JobStatus.QUEUED


async def test_an_end_that_the_database_lost_is_taken_from_the_directory(home: Home) -> None:
    async with home.open() as store:
        await home.family(store)
        await anyio.to_thread.run_sync(take_snapshot, home.database)
        await home.end(store, "j1", done())
    home.database.unlink()

    async with home.open() as store:
        assert (await known(store, "j1")).status is JobStatus.COMPLETED
        assert await store.caller("t of j1") is None


async def test_a_directory_that_cannot_be_placed_is_counted_and_kept(home: Home) -> None:
    async with home.open() as store:
        await home.family(store)
    home.database.unlink()
    (home.trees / "b1" / "j1" / "1" / "job.json").write_text("{damaged")

    async with home.open() as store:
        assert ids(await store.newest_jobs(limit=9)) == ["j4", "j3"]
    report = last_recovery(home.database)

    assert report is not None
    assert (report.restored, report.unreadable) == (2, 2)
    assert (home.trees / "b1" / "j1" / "1").exists()
    assert "2" in str(report)


async def test_a_directory_that_breaks_its_reader_keeps_no_other_job_from_coming_back(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with home.open() as store:
        await home.family(store)
    home.database.unlink()

    def breaks(directory: Path) -> RecoveredJob | None:
        if directory.name == "j3":
            raise TypeError("unhashable type: 'dict'")
        return read_job(directory)

    monkeypatch.setattr("jobs.maintenance.db_recovery.read_job", breaks)
    async with home.open() as store:
        assert set(ids(await store.newest_jobs(limit=9))) == {"j1", "j2", "j4"}
    told = last_recovery(home.database)

    assert told is not None
    assert (told.restored, told.unreadable) == (3, 1)
    assert "job j3 cannot be brought back" in caplog.text


async def test_a_frame_of_odd_values_in_an_old_output_is_no_hindrance(home: Home) -> None:
    async with home.open() as store:
        await home.family(store)
    home.database.unlink()
    odd = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "overageStatus": {"x": 1}}}
    out = home.trees / "b1" / "j2" / "1" / "out"
    out.write_text(f"{json.dumps(odd)}\n{out.read_text()}")

    async with home.open() as store:
        await _expect_family(store)


async def test_a_damaged_snapshot_is_not_used(home: Home) -> None:
    async with home.open() as store:
        await home.family(store)
        await anyio.to_thread.run_sync(take_snapshot, home.database)
    _flip(home.database)
    _flip(snapshot_of(home.database))

    async with home.open() as store:
        await _expect_family(store)
    report = last_recovery(home.database)

    assert report is not None
    assert (report.snapshot_at, report.restored) == (None, 4)


async def test_a_new_directory_is_no_loss(home: Home) -> None:
    async with home.open() as store:
        assert await store.newest_jobs(limit=1) == []
    assert last_recovery(home.database) is None


async def test_a_directory_in_the_databases_place_is_an_error_and_no_recovery(home: Home) -> None:
    home.database.mkdir()
    (home.database / "x").touch()

    with pytest.raises(StoreError, match="look at its file"):
        async with home.open():
            pass
