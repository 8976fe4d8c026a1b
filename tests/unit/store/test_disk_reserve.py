"""The space put aside for a full disk."""

from pathlib import Path

import pytest

from jobs.errors import DiskFullError, StoreError
from jobs.model import JobStatus
from jobs.store.disk_reserve import PIECE_BYTES, RESERVE_BYTES, Reserve
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, bring_to, ending, known, start


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
async def test_without_space_nothing_is_admitted_or_claimed_and_what_runs_is_settled(tmp_path: Path) -> None:
    tight = _reserve(tmp_path)
    async with SqliteStore.open(tmp_path / "jobs.db", tight) as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        await admit(store, "b2", "j2")
        tight._margin = 2**62
        with pytest.raises(DiskFullError) as refused:
            await admit(store, "b3", "j3")
        with pytest.raises(DiskFullError):
            await store.claim("j2", session_id="s", token_hash=None, at=3.0)
        settled = await store.settle("j1", 1, ending(JobStatus.COMPLETED), at=3.0)
        tight._margin = 0

        assert refused.value.transient
        assert settled.status is JobStatus.COMPLETED
        assert (await start(store, "j2")).number == 1
        assert await store.job("j3") is None


@pytest.mark.anyio
async def test_an_end_that_meets_a_full_database_spends_the_reserve_and_then_says_so(tmp_path: Path) -> None:
    reserve = _reserve(tmp_path)
    async with SqliteStore.open(tmp_path / "jobs.db", reserve) as store:
        await bring_to(store, "j1", JobStatus.RUNNING)
        pages = await store._writer.run(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await store._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        with pytest.raises(StoreError) as refused:
            await store.settle("j1", 1, ending(JobStatus.COMPLETED, result="x" * 100_000), at=3.0)
        spent = not (tmp_path / "reserve").exists()
        await store._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchone())

        assert refused.value.transient
        assert spent
        assert (await known(store, "j1")).status is JobStatus.RUNNING
        await store.settle("j1", 1, ending(JobStatus.COMPLETED, result="x" * 100_000), at=3.0)
