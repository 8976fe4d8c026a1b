"""When a job worked, waited and was paused, as a page with a timeline draws it."""

from collections.abc import Sequence
from typing import Any

import pytest

from jobs.errors import NotFoundError
from jobs.model import Attempt, JobStatus
from jobs.ports import LAST_ATTEMPTS
from server.feed.job_details import JobDetails
from server.feed.scope import FeedScope
from tests.unit.feed.world import Seats, World

pytestmark = pytest.mark.anyio

DETAILED = FeedScope(detailed=True)


def count_reads(monkeypatch: pytest.MonkeyPatch, world: World) -> list[Sequence[str]]:
    """Return a list that gets the ids of each read of attempts."""
    reads: list[Sequence[str]] = []
    read = world.store.attempts_of

    async def counted(job_ids: Sequence[str]) -> Sequence[Attempt]:
        reads.append(job_ids)
        return await read(job_ids)

    monkeypatch.setattr(world.store, "attempts_of", counted)
    return reads


async def test_attempts_are_told_with_their_ends_and_waits_and_the_running_one_without_an_end(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    seen = seats.watch(DETAILED)
    await seen.news()
    assert "attempts" not in seen.jobs["j1"]

    world.clock.at = 2000.0
    await world.claim("j1")
    world.clock.at = 2010.0
    world.park("j1")
    await seen.news()
    running = {"number": 1, "from": 2000.0, "waits": [["children", 2010.0]]}
    assert seen.jobs["j1"]["attempts"] == [running]

    world.clock.at = 2050.0
    world.park("j1", parked=False)
    await seen.news()
    assert seen.jobs["j1"]["attempts"] == [running | {"waits": [["children", 2010.0, 2050.0]]}]

    world.clock.at = 2060.0
    await world.end("j1", JobStatus.FAILED)
    await world.retry("j1")
    world.clock.at = 2070.0
    await world.claim("j1")
    await seen.news()
    ended = running | {"to": 2060.0, "status": "failed", "reason": "max_turns", "waits": [["children", 2010.0, 2050.0]]}
    assert seen.jobs["j1"]["attempts"] == [ended, {"number": 2, "from": 2070.0}]


async def test_attempts_of_a_page_are_read_together_once_and_live_changes_read_nothing(
    seats: Seats, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = seats.world
    await world.spawn(None, "b1", *(f"j{number}" for number in range(9)))
    await world.claim(*(f"j{number}" for number in range(9)))
    for number in range(4):
        await world.end(f"j{number}")
    reads = count_reads(monkeypatch, world)
    one, other = seats.watch(DETAILED), seats.watch(DETAILED)
    await one.news()
    await other.news()
    assert [sorted(ids) for ids in reads] == [["j0", "j1", "j2", "j3"]]

    world.park("j5")
    await world.ask("j6")
    await one.news()
    assert len(reads) == 1
    await world.end("j5")
    await world.end("j6")
    await one.news()
    await other.news()
    assert [sorted(ids) for ids in reads[1:]] == [["j5", "j6"]]


async def test_a_watcher_of_short_rows_reads_no_attempts(seats: Seats, monkeypatch: pytest.MonkeyPatch) -> None:
    await seats.world.root("j1")
    await seats.world.claim("j1")
    await seats.world.end("j1")
    reads = count_reads(monkeypatch, seats.world)
    for scope in (FeedScope(), FeedScope(trees_only=True), FeedScope(trees_only=True, detailed=True)):
        await seats.watch(scope).news()
    assert reads == []


async def test_of_many_attempts_the_last_ones_are_told(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    for _ in range(LAST_ATTEMPTS + 2):
        await world.claim("j1")
        await world.end("j1", JobStatus.FAILED)
        await world.retry("j1")
    await world.claim("j1")
    seen = seats.watch(DETAILED)
    await seen.news()
    numbers = [attempt["number"] for attempt in seen.jobs["j1"]["attempts"]]
    assert numbers == [*range(4, LAST_ATTEMPTS + 4)]


async def test_a_page_of_one_tree_has_its_pauses_ended_ones_too(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    seen, all_trees = seats.watch(FeedScope(root_id="j1", detailed=True)), seats.watch(DETAILED)
    await seen.news()
    assert "pauses" not in seen.trees["j1"]

    world.clock.at = 2000.0
    await world.pause("j1")
    await seen.news()
    assert seen.trees["j1"]["pauses"] == [[2000.0, None, "j1"]]
    assert seen.trees["j1"]["paused"] is True
    world.clock.at = 2100.0
    await world.resume("j1")
    await seen.news()
    assert seen.trees["j1"]["pauses"] == [[2000.0, 2100.0, "j1"]]
    world.clock.at = 2200.0
    await world.pause("")
    await seen.news()
    await all_trees.news()
    assert seen.trees["j1"]["pauses"] == [[2000.0, 2100.0, "j1"], [2200.0, None, ""]]
    assert "pauses" not in all_trees.trees["j1"]


async def test_the_details_of_a_job_have_the_waits_of_each_attempt(seats: Seats) -> None:
    world = seats.world
    details = JobDetails(world.store, tuple, world.history.of)
    await world.root("j1")
    world.clock.at = 2000.0
    await world.claim("j1")
    world.park("j1")
    world.clock.at = 2005.0
    await world.end("j1", JobStatus.FAILED)
    await world.retry("j1")
    await world.claim("j1")
    world.park("j1")

    attempts: list[dict[str, Any]] = (await details.of("j1"))["attempts"]
    assert [attempt["waits"] for attempt in attempts] == [[["children", 2000.0, 2005.0]], [["children", 2005.0]]]
    with pytest.raises(NotFoundError):
        await details.of("nobody")
