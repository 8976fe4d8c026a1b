"""How a file gets its schema, and who may read it."""

import json
import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import anyio.to_thread
import pytest

from jobs.errors import SchemaTooNewError, StoreError
from jobs.spec import TASK_PREVIEW
from jobs.store.migrations import STEPS, prepare
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit

ONE = "BEGIN; CREATE TABLE one (n INTEGER) STRICT; PRAGMA user_version = 1; COMMIT;"
TWO = "BEGIN; ALTER TABLE one ADD COLUMN m INTEGER; PRAGMA user_version = 2; COMMIT;"
BROKEN = "BEGIN; ALTER TABLE one ADD COLUMN m INTEGER; PRAGMA user_version = 2; SELECT nonsense; COMMIT;"


def _look(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_empty_file_gets_the_newest_schema_in_a_write_ahead_log(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")

    assert _look(tmp_path / "jobs.db", "PRAGMA user_version") == [(len(STEPS),)]
    assert _look(tmp_path / "jobs.db", "PRAGMA journal_mode") == [("wal",)]


def test_a_script_that_has_run_does_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    prepare(path, [ONE])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO one VALUES (7)")
    prepare(path, [ONE, TWO])
    prepare(path, [ONE, TWO])

    assert _look(path, "SELECT n, m FROM one") == [(7, None)]
    assert _look(path, "PRAGMA user_version") == [(2,)]


def test_a_script_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    prepare(path, [ONE])
    with pytest.raises(sqlite3.OperationalError):
        prepare(path, [ONE, BROKEN])

    assert _look(path, "PRAGMA user_version") == [(1,)]
    assert _look(path, "SELECT name FROM pragma_table_info('one')") == [("n",)]


def test_a_new_file_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        prepare(tmp_path / "jobs.db")
    finally:
        os.umask(before)

    assert _mode(tmp_path / "jobs.db") == 0o600


@pytest.mark.anyio
async def test_every_file_of_an_open_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.touch(mode=0o644)
    async with SqliteStore.open(path) as store:
        await admit(store, "b1", "j1")
        modes = {file.name: _mode(file) for file in tmp_path.iterdir()}

    assert modes == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db.reserve"), 384)


@pytest.mark.anyio
async def test_a_file_of_the_first_version_opens_with_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    long = "é'\"\n" * 1000
    await anyio.to_thread.run_sync(_a_file_of_the_first_version, path, {"j1": "short", "j2": long})
    assert _look(path, "PRAGMA user_version") == [(1,)]

    async with SqliteStore.open(path) as store:
        jobs = await store.jobs_under("b1")
        tasks = [await store.task(job.id) for job in jobs]

    assert _look(path, "PRAGMA user_version") == [(len(STEPS),)]
    assert [(job.id, job.spec.task, job.spec.task_chars) for job in jobs] == [
        ("j1", "short", None),
        ("j2", long[:TASK_PREVIEW], len(long)),
    ]
    assert tasks == ["short", long]


def _a_file_of_the_first_version(path: Path, tasks: Mapping[str, str]) -> None:
    prepare(path, [files("jobs.store").joinpath(STEPS[0]).read_text(encoding="utf-8")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO tree VALUES ('b1', 0, NULL, NULL, NULL)")
        connection.execute("INSERT INTO batch VALUES ('b1', 'b1', NULL, '', NULL, 0)")
        connection.executemany(
            "INSERT INTO job (id, root_id, batch_id, position, depth, path, spec, status, created_at)"
            " VALUES (?, 'b1', 'b1', 0, 1, 'b1/' || ?, ?, 'queued', 0)",
            [(id_, id_, json.dumps({"task": task, "cwd": "/srv"})) for id_, task in tasks.items()],
        )


def _a_file_of_the_next_version(path: Path) -> int:
    prepare(path)
    newer = len(STEPS) + 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    return newer


@pytest.mark.anyio
async def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    newer = await anyio.to_thread.run_sync(_a_file_of_the_next_version, path)

    with pytest.raises(SchemaTooNewError) as refused:
        async with SqliteStore.open(path):
            pass

    assert (refused.value.found, refused.value.known) == (newer, len(STEPS))
    assert _look(path, "PRAGMA user_version") == [(newer,)]


@pytest.mark.anyio
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"no database" * 100)

    with pytest.raises(StoreError, match="not a database"):
        async with SqliteStore.open(path):
            pass


@pytest.mark.anyio
async def test_a_directory_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="open its file"):
        async with SqliteStore.open(tmp_path / "missing" / "jobs.db"):
            pass


def _a_file_of_the_second_version(path: Path) -> None:
    """Make a file with a megabyte of events, and an answer that is in it twice."""
    prepare(path, [files("jobs.store").joinpath(name).read_text(encoding="utf-8") for name in STEPS[:2]])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        connection.execute("INSERT INTO tree VALUES ('b1', 0, NULL, NULL, NULL)")
        connection.execute("INSERT INTO batch VALUES ('b1', 'b1', NULL, '', NULL, 0, NULL)")
        connection.execute(
            "INSERT INTO job (id, root_id, batch_id, position, depth, path, spec, status, reason, attempt, cost_usd,"
            " created_at, ended_at)"
            " VALUES ('j1', 'b1', 'b1', 0, 1, 'b1/j1', ?, 'completed', 'completed', 3, 0.5, 0, 9)",
            (json.dumps({"task": "t", "cwd": "/srv"}),),
        )
        for number, frame in enumerate(FRAMES, start=1):
            connection.execute(
                "INSERT INTO attempt (job_id, number, session_id, status, reason, result, frame, setting_sources,"
                " started_at, ended_at) VALUES ('j1', ?, 's', 'completed', 'completed', 'answer', ?, 'user', 0, 9)",
                (number, json.dumps(frame)),
            )
        connection.executemany(
            "INSERT INTO event VALUES ('j1', 1, ?, 0, 'assistant', ?)", [(n, "x" * 1000) for n in range(1000)]
        )


FRAMES = [{"result": "answer", "n": 1.50, "é": "\ud800"}, {"result": "other"}, {"result": "answer", "n": float("inf")}]


@pytest.mark.anyio
async def test_a_file_of_the_second_version_gets_smaller_and_says_what_it_said(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await anyio.to_thread.run_sync(_a_file_of_the_second_version, path)
    before = path.stat().st_size
    async with SqliteStore.open(path) as store:
        attempts = [await store.attempt("j1", number) for number in (1, 2, 3)]
        rollup = await store.rollup_all()

    assert before > 1_000_000
    assert path.stat().st_size < 200_000
    assert [attempt and attempt.frame for attempt in attempts] == FRAMES
    assert [attempt and attempt.result for attempt in attempts] == ["answer"] * 3
    assert (rollup.total, rollup.usage.cost_usd, rollup.deepest) == (1, 0.5, 1)
    assert _look(path, "PRAGMA auto_vacuum") == [(2,)]


@contextmanager
def _no_file_larger_than(size: int) -> Iterator[None]:
    """Let every longer write fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_rewritten_now_is_used_as_it_is_and_rewritten_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jobs.db"
    _a_file_of_the_second_version(path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        prepare(path)
    assert "no space to rewrite" in caplog.text
    with _no_file_larger_than(50_000):
        prepare(path)
    assert caplog.text.count("keeps its size") == 2
    assert _look(path, "SELECT id FROM job") == [("j1",)]
    assert path.stat().st_size > 1_000_000

    prepare(path)
    assert path.stat().st_size < 200_000


@pytest.mark.anyio
async def test_a_file_that_could_not_be_rewritten_can_still_be_asked_to_shrink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    await anyio.to_thread.run_sync(_a_file_of_the_second_version, path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with anyio.fail_after(60):
        async with SqliteStore.open(path) as store:
            await store.shrink()
            assert (await store.rollup_all()).total == 1


def _a_file_of_the_fourth_version(path: Path) -> None:
    """Make a file whose jobs are queued: for siblings, after asking for subtasks, after a limit, and for their turn."""
    prepare(path, [files("jobs.store").joinpath(name).read_text(encoding="utf-8") for name in STEPS[:4]])
    dependent = {"task": "t", "cwd": "/srv", "depends_on": ["j1"]}
    plain = {"task": "t", "cwd": "/srv"}
    jobs = [("j1", plain, 0), ("j2", dependent, 0), ("j3", plain, 2), ("j4", plain, 1), ("j5", dependent, 1)]
    ends = [("j3", 1, "usage_limit"), ("j3", 2, "completed"), ("j4", 1, "usage_limit"), ("j5", 1, "usage_limit")]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO tree VALUES ('b1', 0, NULL, NULL, NULL)")
        connection.execute("INSERT INTO batch VALUES ('b1', 'b1', NULL, '', NULL, 0, NULL)")
        connection.executemany(
            "INSERT INTO job (id, root_id, batch_id, position, depth, path, spec, status, attempt, created_at)"
            " VALUES (?, 'b1', 'b1', 0, 1, 'b1/' || ?, ?, 'queued', ?, 0)",
            [(id_, id_, json.dumps(spec), attempt) for id_, spec, attempt in jobs],
        )
        connection.executemany(
            "INSERT INTO attempt (job_id, number, session_id, status, reason, setting_sources, started_at, ended_at)"
            " VALUES (?, ?, 's', 'queued', ?, 'user', 0, 9)",
            ends,
        )


@pytest.mark.anyio
async def test_jobs_of_the_fourth_version_that_wait_for_others_say_so(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    await anyio.to_thread.run_sync(_a_file_of_the_fourth_version, path)
    async with SqliteStore.open(path) as store:
        waits = {job.id: job.waiting_for for job in await store.unfinished()}

    assert waits == {"j1": None, "j2": "siblings", "j3": "children", "j4": None, "j5": None}
