"""Changes reach the waiters whom they concern, and a waiter that left leaves nothing behind."""

import anyio
import pytest

from jobs.event_bus import JobSignals
from tests.support.reachable import names_in
from tests.unit.jobs.support import job

pytestmark = pytest.mark.anyio


async def test_a_waiter_hears_of_every_change_that_it_wants_in_order():
    signals = JobSignals()
    with signals.subscribe(["t"], lambda changed: changed.id != "b") as changes:
        for name in ("a", "b", "c"):
            signals.publish(job(name))
        with anyio.fail_after(60):
            assert [each.id for each in await changes.news()] == ["a", "c"]


async def test_what_was_taken_is_not_told_again():
    signals = JobSignals()
    with signals.subscribe(["t"], lambda changed: True) as changes:
        signals.publish(job("a"))
        with anyio.fail_after(60):
            await changes.news()
            signals.publish(job("b"))
            assert [each.id for each in await changes.news()] == ["b"]
        with anyio.move_on_after(0) as scope:
            await changes.news()
        assert scope.cancelled_caught


async def test_a_change_of_another_tree_is_not_heard():
    signals = JobSignals()
    with signals.subscribe(["t", "u"], lambda changed: True) as changes:
        signals.publish(job("far", root="elsewhere"))
        signals.publish(job("near", root="u"))
        with anyio.fail_after(60):
            assert [each.id for each in await changes.news()] == ["near"]


async def test_every_waiter_of_a_tree_hears_a_change():
    signals = JobSignals()
    with (
        signals.subscribe(["t"], lambda changed: True) as one,
        signals.subscribe(["t"], lambda changed: True) as other,
    ):
        signals.publish(job("a"))
        with anyio.fail_after(60):
            assert [len(await each.news()) for each in (one, other)] == [1, 1]


async def test_a_publication_wakes_a_waiter_that_sleeps():
    signals = JobSignals()
    heard: list[str] = []

    async def listen() -> None:
        with signals.subscribe(["t"], lambda changed: True) as changes:
            heard.extend(each.id for each in await changes.news())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            signals.publish(job("a"))
    assert heard == ["a"]


async def test_a_waiter_that_leaves_by_an_error_or_twice_over_one_tree_leaves_nothing():
    signals = JobSignals()

    def leave_by_an_error() -> None:
        with signals.subscribe(["t", "u", "t"], lambda changed: True):
            signals.publish(job("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        leave_by_an_error()
    signals.publish(job("a"))
    assert not names_in(signals) & {"t", "u"}
