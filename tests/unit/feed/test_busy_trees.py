"""Watchers beside trees that are busy, or go in great numbers: what is not theirs costs them little."""

import anyio
import pytest

from jobs.model import Job
from server.feed import index, watch
from server.feed.scope import WHOLE, FeedScope
from tests.unit.feed.world import Seats

pytestmark = pytest.mark.anyio

BUSY = 200


class Looks(FeedScope):
    """A scope that counts how often it is asked for a job."""

    count = 0

    def has_job(self, job: Job) -> bool:
        Looks.count += 1
        return super().has_job(job)


async def test_each_change_of_another_tree_is_looked_at_once(seats: Seats, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    world = seats.world
    await world.root("quiet")
    await world.spawn(None, "busy", *(f"job{number}" for number in range(BUSY)))
    seen = seats.watch(Looks(root_id="quiet", detailed=True))
    await seen.news()
    Looks.count = 0
    async with anyio.create_task_group() as group:
        group.start_soon(seen.news)
        await anyio.wait_all_tasks_blocked()
        for number in range(BUSY):
            await world.publish(f"job{number}")
            await anyio.wait_all_tasks_blocked()
        assert Looks.count <= 2 * BUSY
        await world.claim("quiet")
    assert seen.jobs["quiet"]["status"] == "running"


async def test_a_watcher_is_told_of_its_own_change_amid_others(seats: Seats, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "QUIET_SECONDS", 60.0)
    world = seats.world
    await world.root("mine")
    await world.spawn(None, "busy", "a", "b")
    seen = seats.watch(FeedScope(root_id="mine"))
    await seen.news()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(seen.news)
            await anyio.wait_all_tasks_blocked()
            for job_id in ("a", "mine", "b"):
                await world.claim(job_id)
    assert seen.jobs["mine"]["status"] == "running"


async def test_more_trees_that_go_at_once_than_are_remembered_are_all_forgotten(
    seats: Seats, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "QUIET_SECONDS", 60.0)
    monkeypatch.setattr(index, "GONE_TREES", 2)
    world = seats.world
    for name in "abcdef":
        await world.root(name)
    seen = seats.watch(WHOLE)
    await seen.news()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(seen.news)
            await anyio.wait_all_tasks_blocked()
            for name in "abcde":
                seats.feed.drop(name)
    assert set(seen.trees) == {"f"}
