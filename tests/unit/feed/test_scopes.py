"""What watchers of different scopes are told: trees alone, one tree, some of its jobs, and sums of what is below."""

import json
from typing import Any

import pytest

from jobs.model import Job, JobStatus, Usage
from jobs.paused import PausedPath
from jobs.ports import NewLimits
from jobs.waiting_for import Wait, WaitingFor
from server.feed import index, rendering
from server.feed.rows import row_of
from server.feed.scope import FeedScope
from tests.unit.feed.world import Seats, Told

pytestmark = pytest.mark.anyio

DETAILED = FeedScope(detailed=True)
TREES = FeedScope(trees_only=True)
HALF = Usage(cost_usd=0.5, input_tokens=10, output_tokens=4)


async def test_a_detailed_row_sums_up_all_below_it_and_a_short_one_is_as_it_was(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    await world.spawn("j1", "b2", "j2", "j3")
    await world.claim("j2")
    await world.spawn("j2", "b4", "j4")
    await world.claim("j4")
    await world.end("j4", usage=HALF)
    detailed, short = seats.watch(DETAILED), seats.watch(FeedScope())
    await detailed.news()
    await short.news()

    assert detailed.jobs["j1"]["children"] == 2
    assert detailed.jobs["j1"]["below"] == {
        "counts": {"queued": 1, "running": 1, "completed": 1},
        "asking": 0,
        "costUsd": 0.5,
        "inputTokens": 10,
        "outputTokens": 4,
    }
    assert detailed.jobs["j2"]["below"]["counts"] == {"completed": 1}
    assert "below" not in detailed.jobs["j3"]
    assert not {"below", "children"} & set(short.jobs["j1"])
    assert set(short.trees["j1"]) == {
        "rootId", "createdAt", "client", "counts", "costUsd", "inputTokens", "outputTokens", "deepest",
    }  # fmt: skip


async def test_a_change_far_below_comes_with_all_that_is_above_it_and_a_short_watcher_hears_of_it_alone(
    seats: Seats,
) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    await world.spawn("j1", "b2", "j2")
    await world.claim("j2")
    await world.spawn("j2", "b3", "j3", "j4")
    detailed, short = seats.watch(DETAILED), seats.watch(FeedScope())
    await detailed.news()
    await short.news()

    await world.claim("j3")
    assert sorted(await detailed.news()) == ["j1", "j2", "j3"]
    assert await short.news() == ["j3"]
    await world.use("j3", HALF)
    assert sorted(await detailed.news()) == ["j1", "j2", "j3"]
    assert detailed.jobs["j1"]["below"]["costUsd"] == detailed.trees["j1"]["costUsd"] == 0.5
    await world.end("j3", usage=HALF)
    await detailed.news()
    assert detailed.jobs["j1"]["below"]["costUsd"] == detailed.trees["j1"]["costUsd"] == 0.5
    assert await detailed.news() == []


async def test_a_watcher_of_some_parents_gets_the_jobs_right_below_them_and_the_root(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    await world.spawn("j1", "b2", "j2", "j3")
    await world.claim("j2")
    await world.spawn("j2", "b4", "j4")
    await world.spawn(None, "b9", "j9")
    some = seats.watch(FeedScope(root_id="j1", parents=frozenset({"j1"}), detailed=True))
    assert sorted(await some.news()) == ["j1", "j2", "j3"]
    assert set(some.trees) == {"j1"}

    await world.claim("j4")
    assert sorted(await some.news()) == ["j1", "j2"]
    batch = seats.watch(FeedScope(root_id="b9", parents=frozenset({"b9"}), detailed=True))
    assert await batch.news() == ["j9"]
    opened = seats.watch(FeedScope(root_id="j1", parents=frozenset({"j2"}), detailed=True))
    assert sorted(await opened.news()) == ["j1", "j4"]


async def test_a_watcher_of_trees_gets_their_rows_with_title_state_and_who_asks(seats: Seats) -> None:
    world = seats.world
    await world.spawn(None, "b1", "j1", "j2", tasks={"j1": "look at\nall of it"}, cwd="/srv/shop")
    await world.root("j9")
    trees = seats.watch(TREES)
    assert await trees.news() == []
    assert [*trees.trees] == ["b1", "j9"]
    row = trees.trees["b1"]
    assert (row["title"], row["cwd"], row["asking"]) == ("look at all of it", "/srv/shop", 0)
    assert (row["jobs"], row["children"]) == (2, 2)
    assert "endedAt" not in row
    assert "cwd" in trees.trees["j9"]

    await world.claim("j1", "j2")
    await world.ask("j2")
    await trees.news()
    assert ([tree["rootId"] for tree in trees.last["trees"]], trees.trees["b1"]["asking"]) == (["b1"], 1)
    await world.end("j2")
    world.clock.at = 5000.0
    await world.end("j1", JobStatus.FAILED)
    await trees.news()
    row = trees.trees["b1"]
    assert (row["asking"], row["endedAt"], row["counts"]) == (0, 5000.0, {"completed": 1, "failed": 1})


async def test_many_trees_come_in_pages_and_none_twice(seats: Seats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "PAGE_ROWS", 3)
    for number in range(8):
        await seats.world.root(f"j{number}")
    trees = seats.watch(TREES)
    await trees.news()
    assert sorted(trees.trees) == [f"j{number}" for number in range(8)]
    await seats.world.claim("j3")
    await trees.news()
    assert [row["rootId"] for row in trees.last["trees"]] == ["j3"]


async def test_both_forms_of_a_page_say_the_same(seats: Seats) -> None:
    world = seats.world
    await world.spawn(None, "b1", "j1", "j2", tasks={"j1": 'say "<b>ümläut</b>"\u2028'})
    await world.claim("j1")
    for scope in (DETAILED, TREES, FeedScope()):
        one, other = seats.watch(scope), seats.watch(scope)
        written = await one.watch.page_json(None, scope)
        page = await other.watch.page(None, scope)
        assert json.loads(written.text) == page
        assert written.cursor == page["cursor"]
        assert written.text.isascii()
        assert "\n" not in written.text


async def test_a_row_is_made_once_for_all_watchers_and_again_once_something_about_it_changes(
    seats: Seats, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(job: Job, *rest: Any) -> dict[str, Any]:
        made.append(job.id)
        return row_of(job, *rest)

    monkeypatch.setattr(rendering, "row_of", counted)
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    watchers = [seats.watch(DETAILED) for _ in range(3)]
    for one in watchers:
        await one.news()
    assert made == ["j1"]
    await world.spawn("j1", "b2", "j2")
    for one in watchers:
        await one.news()
        assert one.jobs["j1"]["children"] == 1
    assert sorted(made) == ["j1", "j1", "j2"]


async def test_a_wait_reaches_short_rows_also_where_a_detailed_one_was_made_again_before(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    short, detailed = seats.watch(FeedScope()), seats.watch(DETAILED)
    await short.news()
    await detailed.news()
    world.waits["j1"] = Wait(what=WaitingFor.CHILDREN)
    # Only what is below it changed.
    await world.spawn("j1", "b2", "j2")
    await detailed.watch.page_json(detailed.cursor, DETAILED)
    await short.news()
    assert short.jobs["j1"]["waitingFor"] == "children"


async def test_a_wait_that_nothing_announces_is_told_once_also_where_no_watcher_sees_jobs(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    trees = seats.watch(TREES)
    await trees.news()
    world.waits["j1"] = Wait(what=WaitingFor.CHILDREN)
    await trees.news()
    await trees.news()
    assert trees.last["trees"] == []
    detailed = seats.watch(DETAILED)
    await detailed.news()
    assert detailed.jobs["j1"]["waitingFor"] == "children"


async def test_a_permission_that_waits_on_is_not_told_again_for_microseconds(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await world.claim("j1")
    await world.ask("j1")
    world.waits["j1"] = Wait(what=WaitingFor.PERMISSION, until=1300.000001, because="Bash: ls")
    detailed = seats.watch(DETAILED)
    await detailed.news()
    world.waits["j1"] = Wait(what=WaitingFor.PERMISSION, until=1300.000002, because="Bash: ls")
    assert await detailed.news() == []
    world.waits["j1"] = Wait(what=WaitingFor.PERMISSION, until=1300.000002, because="Bash: rm")
    assert await detailed.news() == ["j1"]


async def test_a_tree_that_was_over_and_is_tried_again_is_whole(seats: Seats, monkeypatch: pytest.MonkeyPatch) -> None:
    world = seats.world
    monkeypatch.setattr(index, "ENDED_JOBS", 2)
    await world.spawn(None, "b1", "j1", "j2", "j3")
    await world.claim("j1", "j2", "j3")
    for job_id in ("j1", "j2", "j3"):
        await world.end(job_id, JobStatus.FAILED, usage=HALF)
    detailed = seats.watch(DETAILED)
    await detailed.news()
    await world.root("j9")
    await world.claim("j9")
    await world.end("j9")
    await detailed.news()
    assert set(detailed.trees) == {"j9"}

    await world.retry("j2")
    await detailed.news()
    assert detailed.trees["b1"]["counts"] == {"queued": 1, "failed": 2}
    assert detailed.trees["b1"]["costUsd"] == 1.5
    assert {"j1", "j2", "j3"} <= set(detailed.jobs)


async def test_old_trees_that_watchers_name_are_kept_for_them_and_take_no_place_of_newer_ones(
    seats: Seats, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = seats.world
    monkeypatch.setattr(index, "ENDED_JOBS", 2)
    monkeypatch.setattr("server.feed.reading.ENDED_JOBS", 2)
    for root in ("j1", "j2", "j3", "j4"):
        await world.root(root)
        await world.claim(root)
        await world.end(root)
    trees = seats.watch(TREES)
    await trees.news()
    assert set(trees.trees) == {"j3", "j4"}

    with seats.feed.watch() as first, seats.feed.watch() as second:
        one = Told(first, world.clock, FeedScope(root_id="j1", detailed=True))
        two = Told(second, world.clock, FeedScope(root_id="j2", detailed=True))
        for _ in range(3):
            await one.news()
            await two.news()
        assert (set(one.trees), set(two.trees)) == ({"j1"}, {"j2"})
        await trees.news()
        assert set(trees.trees) == {"j1", "j2", "j3", "j4"}
    await trees.news()
    assert set(trees.trees) == {"j3", "j4"}


async def test_a_pause_shows_on_the_row_of_its_tree(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    await seats.world.store.pause([PausedPath(path="j1", since=1.0)])
    await world.publish("j1")
    trees = seats.watch(TREES)
    await trees.news()
    assert trees.trees["j1"]["paused"] is True


async def test_a_limit_of_a_live_tree_that_changes_is_in_its_next_row(seats: Seats) -> None:
    world = seats.world
    await world.root("j1")
    trees = seats.watch(TREES)
    await trees.news()
    limited = await world.store.set_limits("j1", NewLimits(budget_usd=5.0), at=2.0)
    assert limited is not None
    world.event_bus.publish(limited.jobs[0])
    await trees.news()
    assert trees.trees["j1"]["maxBudgetUsd"] == 5.0
