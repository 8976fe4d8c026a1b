"""Trees that are over are forgotten by age and by size, rows and directories together, whatever crashes in between."""

import os
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import StoreError
from jobs.maintenance.pruning import Retention
from jobs.model import JobStatus
from jobs.ports import Clock
from jobs.store.memory import MemoryStore
from tests.contract.support import admit, admit_root, ending, known, start

pytestmark = pytest.mark.anyio

DAY = 86_400.0
KILO = 100 * 1024


class Calendar(Clock):
    """A clock that stands."""

    def __init__(self) -> None:
        self.at = 100 * DAY

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class House:
    """A store and its directories, with a tree that ended on each of the days that a test names."""

    def __init__(self, path: Path) -> None:
        self.store = MemoryStore()
        self.trees = path / "trees"
        self.waste = path / "trees.pruned"
        self.trees.mkdir()

    async def over(self, job_id: str, day: float, size: int = KILO) -> None:
        await admit_root(self.store, job_id)
        await start(self.store, job_id)
        await self.store.settle(job_id, 1, ending(JobStatus.FAILED), at=day * DAY)
        (self.trees / job_id / job_id / "1").mkdir(parents=True)
        (self.trees / job_id / job_id / "1" / "out").write_bytes(os.urandom(size))

    def retention(self, **settings: Any) -> Retention:
        chosen = {"keep_days": 30.0, "keep_bytes": 2**40, **settings}
        return Retention(store=self.store, trees=self.trees, clock=Calendar(), **chosen)

    def directories(self) -> list[str]:
        return sorted(path.name for path in self.trees.iterdir())


@pytest.fixture
async def house(tmp_path: Path) -> House:
    built = House(tmp_path)
    for job_id, day in (("j1", 60), ("j2", 69), ("j3", 71), ("j4", 99), ("j5", 99.99)):
        await built.over(job_id, day)
    return built


async def test_what_is_too_old_goes_with_its_directory(house: House) -> None:
    pruned = await house.retention().prune()

    assert (pruned.trees, pruned.jobs) == (["j1", "j2"], 2)
    assert 2 * KILO <= pruned.bytes < 2 * KILO + 64 * 1024
    assert 3 * KILO <= pruned.kept_bytes < 3 * KILO + 96 * 1024
    assert house.directories() == ["j3", "j4", "j5"]
    assert await house.store.tree("j1") is None
    assert list(house.waste.iterdir()) == []


async def test_what_is_too_much_goes_the_longest_ended_first_but_nothing_young(house: House) -> None:
    half = await house.retention(keep_bytes=3 * KILO + 64 * 1024, keep_days=999).prune()
    rest = await house.retention(keep_bytes=1, keep_days=999).prune()

    assert (half.trees, rest.trees) == (["j1", "j2"], ["j3", "j4"])
    assert house.directories() == ["j5"]


async def test_a_dry_run_only_tells(house: House) -> None:
    told = await house.retention().prune(dry_run=True)

    assert told.trees == ["j1", "j2"]
    assert len(house.directories()) == 5
    assert told == await house.retention().prune()


async def test_a_tree_with_a_live_job_stays_whatever_its_age_and_size(house: House) -> None:
    await admit(house.store, "b9", "j9")
    (house.trees / "b9").mkdir()
    await house.store.requeue("j1")
    pruned = await house.retention(keep_bytes=1, keep_days=0.0001).prune()

    assert set(pruned.trees) == {"j2", "j3", "j4", "j5"}
    assert house.directories() == ["b9", "j1"]


async def test_a_tree_whose_directory_is_gone_is_forgotten_all_the_same(house: House) -> None:
    (house.trees / "j1" / "j1" / "1" / "out").unlink()
    for path in ("j1/j1/1", "j1/j1", "j1"):
        (house.trees / path).rmdir()

    assert (await house.retention().prune()).trees == ["j1", "j2"]
    assert await house.store.tree("j1") is None


async def test_a_retry_at_the_last_moment_brings_the_directory_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = house.store.delete_tree

    async def retried(root_id: str) -> bool:
        await house.store.requeue(root_id)
        (house.trees / root_id / root_id / "2").mkdir(parents=True)
        return await delete(root_id)

    monkeypatch.setattr(house.store, "delete_tree", retried)
    assert (await house.retention(keep_days=35.0).prune()).trees == []
    assert (await known(house.store, "j1")).status is JobStatus.QUEUED
    assert sorted(path.name for path in (house.trees / "j1" / "j1").iterdir()) == ["1", "2"]


async def test_rows_that_cannot_be_deleted_keep_their_directory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(root_id: str) -> bool:
        raise StoreError("delete a tree", "disk I/O error", transient=True)

    monkeypatch.setattr(house.store, "delete_tree", failing)
    with pytest.raises(StoreError):
        await house.retention().prune()
    assert len(house.directories()) == 5


async def test_after_a_crash_a_tree_is_either_whole_or_gone(house: House) -> None:
    house.waste.mkdir()
    for job_id in ("j1", "j2"):
        (house.trees / job_id).rename(house.waste / job_id)
    await house.store.delete_tree("j2")
    await house.retention().recover()

    assert house.directories() == ["j1", "j3", "j4", "j5"]
    assert (house.trees / "j1" / "j1" / "1" / "out").stat().st_size == KILO
    assert list(house.waste.iterdir()) == []
