"""The space put aside for a full disk."""

import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.errors import DiskFullError, StoreError
from jobs.model import JobStatus
from jobs.store.disk_reserve import PIECE_BYTES, RESERVE_BYTES, Reserve
from jobs.store.sqlite import SqliteStore
from jobs.store.writer import GroupConnection
from tests.contract.support import admit, bring_to, ending, known, start


def full(connection: sqlite3.Connection, *statement: Any) -> sqlite3.Cursor:
    """Run a statement on a disk that has no room for a change."""
    if "UPDATE" not in statement[0]:
        return sqlite3.Connection.execute(connection, *statement)
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def _reserve(path: Path, margin: int = 0) -> Reserve:
    return Reserve(path / "reserve", margin=margin)


def test_a_reserve_takes_its_space_on_the_disk_for_its_owner_alone(tmp_path: Path) -> None:
    assert _reserve(tmp_path).ready()
    status = (tmp_path / "reserve").stat()

    assert (status.st_size, status.st_mode & 0o777) == (RESERVE_BYTES, 0o600)
    assert status.st_blocks * 512 >= RESERVE_BYTES


def test_a_reserve_is_given_up_piece_by_piece_and_made_anew(tmp_path: Path) -> None:
    reserve = _reserve(tmp_path)
    reserve.ready()
    pieces = 0
    while reserve.release():
        pieces += 1

    assert pieces == RESERVE_BYTES // PIECE_BYTES
    assert not (tmp_path / "reserve").exists()
    assert reserve.ready()
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES


def test_a_reserve_of_an_earlier_engine_counts(tmp_path: Path) -> None:
    _reserve(tmp_path).ready()
    reserve = _reserve(tmp_path)

    assert reserve.release()
    assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES - PIECE_BYTES


def test_nothing_is_begun_below_the_margin(tmp_path: Path) -> None:
    assert not _reserve(tmp_path, margin=2**62).ready()
    assert not (tmp_path / "reserve").exists()


def test_a_reserve_that_cannot_be_made_is_not_ready(tmp_path: Path) -> None:
    reserve = _reserve(tmp_path / "missing")

    assert not reserve.ready()
    assert not reserve.release()


@pytest.mark.anyio
async def test_without_space_nothing_is_admitted_or_claimed_and_what_runs_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore.open(tmp_path / "jobs.db", _reserve(tmp_path)) as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        await admit(store, "b2", "j2")
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=-1, f_frsize=1))
        with pytest.raises(DiskFullError) as refused:
            await admit(store, "b3", "j3")
        with pytest.raises(DiskFullError):
            await store.claim("j2", session_id="s", token_hash=None, at=3.0)
        settled = await store.settle("j1", 1, ending(JobStatus.COMPLETED), at=3.0)
        monkeypatch.undo()

        assert refused.value.transient
        assert settled.status is JobStatus.COMPLETED
        assert (await start(store, "j2")).number == 1
        assert await store.job("j3") is None


@pytest.mark.anyio
async def test_an_end_that_meets_a_full_database_spends_the_reserve_and_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = _reserve(tmp_path)
    async with SqliteStore.open(tmp_path / "jobs.db", reserve) as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        monkeypatch.setattr(GroupConnection, "execute", full)
        with pytest.raises(StoreError) as refused:
            await store.settle("j1", 1, ending(JobStatus.COMPLETED, result="x" * 100_000), at=3.0)
        spent = not (tmp_path / "reserve").exists()
        monkeypatch.undo()

        assert refused.value.transient
        assert spent
        assert (await known(store, "j1")).status is JobStatus.RUNNING
        await store.settle("j1", 1, ending(JobStatus.COMPLETED, result="x" * 100_000), at=3.0)
