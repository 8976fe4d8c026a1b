"""Changes reach the waiters whom they concern, and a waiter that left leaves nothing behind."""

import anyio
import pytest

from jobs import event_bus as module
from jobs.event_bus import JobEventBus
from jobs.model import Job
from tests.support.reachable import names_in
from tests.unit.jobs.support import job

pytestmark = pytest.mark.anyio


async def test_a_waiter_hears_of_every_change_that_it_wants_in_order():
    event_bus = JobEventBus()
    with event_bus.subscribe(["t"], lambda changed: changed.id != "b") as changes:
        for name in ("a", "b", "c"):
            event_bus.publish(job(name))
        with anyio.fail_after(60):
            assert [each.id for each in await changes.changes()] == ["a", "c"]


async def test_what_was_taken_is_not_told_again():
    event_bus = JobEventBus()
    with event_bus.subscribe(["t"], lambda changed: True) as changes:
        event_bus.publish(job("a"))
        with anyio.fail_after(60):
            await changes.changes()
            event_bus.publish(job("b"))
            assert [each.id for each in await changes.changes()] == ["b"]
        with anyio.move_on_after(0) as scope:
            await changes.changes()
        assert scope.cancelled_caught


async def test_a_change_of_another_tree_is_not_heard():
    event_bus = JobEventBus()
    with event_bus.subscribe(["t", "u"], lambda changed: True) as changes:
        event_bus.publish(job("far", root="elsewhere"))
        event_bus.publish(job("near", root="u"))
        with anyio.fail_after(60):
            assert [each.id for each in await changes.changes()] == ["near"]


async def test_every_waiter_of_a_tree_hears_a_change():
    event_bus = JobEventBus()
    with (
        event_bus.subscribe(["t"], lambda changed: True) as one,
        event_bus.subscribe(["t"], lambda changed: True) as other,
    ):
        event_bus.publish(job("a"))
        with anyio.fail_after(60):
            assert [len(await each.changes()) for each in (one, other)] == [1, 1]


async def test_a_publication_wakes_a_waiter_that_sleeps():
    event_bus = JobEventBus()
    heard: list[str] = []

    async def listen() -> None:
        with event_bus.subscribe(["t"], lambda changed: True) as changes:
            heard.extend(each.id for each in await changes.changes())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.lowlevel.checkpoint()
            event_bus.publish(job("a"))
    assert heard == ["a"]


async def test_a_waiter_that_leaves_by_an_error_or_twice_over_one_tree_leaves_nothing():
    event_bus = JobEventBus()

    def leave_by_an_error() -> None:
        with event_bus.subscribe(["t", "u", "t"], lambda changed: True):
            event_bus.publish(job("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        leave_by_an_error()
    event_bus.publish(job("a"))
    assert not names_in(event_bus) & {"t", "u"}


async def test_what_a_job_does_is_told_at_once_and_then_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ACTIVITY_SECONDS", 0.05)
    event_bus = JobEventBus()
    event_bus.publish_activity(job("unseen"))
    heard: list[str] = []
    later = anyio.Event()

    def hear(changed: Job) -> None:
        heard.append(changed.id)
        if heard.count("a") > 1:
            later.set()

    stop = event_bus.observe_activity(hear)
    for _ in range(100):
        event_bus.publish_activity(job("a"))
    event_bus.publish_activity(job("b"))
    assert heard == ["a", "b"]
    # The last of them is not lost.
    with anyio.fail_after(60):
        await later.wait()
    assert heard == ["a", "b", "a"]
    stop()
    event_bus.publish_activity(job("c"))
    assert heard == ["a", "b", "a"]


async def test_an_observer_that_fails_keeps_nobody_else_from_hearing_what_a_job_does():
    event_bus = JobEventBus()
    heard: list[str] = []

    def fail(_: Job) -> None:
        raise RuntimeError

    event_bus.observe_activity(fail)
    event_bus.observe_activity(lambda changed: heard.append(changed.id))
    event_bus.publish_activity(job("a"))
    assert heard == ["a"]
