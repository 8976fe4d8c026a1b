"""The process of an attempt is written beside something else: it costs no transaction and is not lost."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobs.model import JobStatus
from jobs.store import writer
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, bring_to, ending, known
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No note is written for its age, where a test does not say so."""
    monkeypatch.setattr(writer, "NOTE_SECONDS", 3600.0)


def on_disk(tmp_path: Path) -> list[int | None]:
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as other:
        return [row[0] for row in other.execute("SELECT pid FROM attempt ORDER BY rowid")]


async def test_a_launch_is_written_with_the_next_write_and_read_before(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        before = store.changes
        await store.record_launch("j1", 1, pid=4711, pid_start=0.5)
        attempt = await store.attempt("j1", 1)
        assert (store.changes, on_disk(tmp_path)) == (before, [None])
        await admit(store, "b2", "j2")

        assert on_disk(tmp_path) == [4711]
    assert attempt is not None
    assert (attempt.pid, attempt.pid_start) == (4711, 0.5)


async def test_a_launch_is_written_after_a_while_where_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "NOTE_SECONDS", 0.01)
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        await store.record_launch("j1", 1, pid=4711, pid_start=0.5)

        async def written() -> bool:
            return on_disk(tmp_path) == [4711]

        await until(written)


async def test_a_store_that_is_closed_writes_what_waits(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        await store.record_launch("j1", 1, pid=4711, pid_start=0.5)

    assert on_disk(tmp_path) == [4711]


async def test_an_end_takes_the_launch_of_its_attempt_along(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        await store.record_launch("j1", 1, pid=4711, pid_start=0.5)
        await store.settle("j1", 1, ending(JobStatus.QUEUED), at=3.0)

        assert on_disk(tmp_path) == [4711]
        assert (await known(store, "j1")).status is JobStatus.QUEUED


async def test_a_launch_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db") as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("CREATE TRIGGER no BEFORE UPDATE OF pid ON attempt BEGIN SELECT RAISE(ABORT, 'no'); END")
            await store.record_launch("j1", 1, pid=4711, pid_start=0.5)
            await admit(store, "b2", "j2")
            assert on_disk(tmp_path) == [None]
            other.execute("DROP TRIGGER no")
        await admit(store, "b3", "j3")

    assert on_disk(tmp_path) == [4711]
