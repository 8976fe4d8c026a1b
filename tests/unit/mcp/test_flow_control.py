"""How many requests of one connection are in work, and which wait until there is room."""

import anyio
import pytest

from server.engine.mcp_connection import MAX_QUEUED_BYTES, Inbox
from server.mcp import connection_state
from server.mcp.connection_state import MAX_OPEN_BYTES, MAX_WORKING, FlowControl
from tests.unit.jobs.support import settle

pytestmark = pytest.mark.anyio


async def full() -> FlowControl:
    flow = FlowControl()
    for number in range(MAX_WORKING):
        await flow.begin(number, 1)
    return flow


async def begins(flow: FlowControl, request_id: int | str, size: int = 1) -> bool:
    """Whether a request is let in at once."""
    with anyio.move_on_after(0.01) as scope:
        await flow.begin(request_id, size)
    return not scope.cancelled_caught


async def test_a_request_too_many_waits_until_another_has_ended():
    flow = await full()
    assert not await begins(flow, "late")
    flow.end(3)
    assert await begins(flow, "late")
    assert not await begins(flow, "later")


async def test_a_call_that_waits_leaves_room_and_takes_its_turn_to_answer():
    flow = await full()
    answered = anyio.Event()
    back = anyio.Event()

    async def wait() -> None:
        async with flow.waiting():
            await answered.wait()
        back.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        assert await begins(flow, "another")
        answered.set()
        await settle()
        assert not back.is_set()
        flow.end("another")
        with anyio.fail_after(60):
            await back.wait()
    assert not await begins(flow, "full again")


@pytest.mark.parametrize("answered", [True, False])
async def test_a_wait_that_is_cancelled_leaves_the_counts_right(*, answered: bool):
    flow = await full()

    async def wait() -> None:
        async with flow.waiting():
            if not answered:
                await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        await begins(flow, "another")
        group.cancel_scope.cancel()
    for number in range(MAX_WORKING):
        flow.end(number)
    flow.end("another")
    for number in range(MAX_WORKING):
        assert await begins(flow, number)
    assert not await begins(flow, "late")


async def test_the_bytes_of_what_is_open_are_bounded_and_one_request_always_passes():
    flow = FlowControl()
    assert await begins(flow, 1, MAX_OPEN_BYTES + 1)
    assert not await begins(flow, 2)
    flow.end(1)
    assert await begins(flow, 2)


async def test_calls_that_wait_are_bounded_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_state, "MAX_OPEN", 3)
    flow = FlowControl()
    async with anyio.create_task_group() as group:
        for number in range(3):
            await flow.begin(number, 1)

            async def wait() -> None:
                async with flow.waiting():
                    await anyio.sleep_forever()

            group.start_soon(wait)
        await settle()
        assert not await begins(flow, "late")
        group.cancel_scope.cancel()
    flow.end(0)
    assert await begins(flow, "late")


async def test_one_id_used_twice_is_counted_twice():
    flow = FlowControl()
    for _ in range(MAX_WORKING):
        await flow.begin("same", 1)
    assert not await begins(flow, "other")
    flow.end("same")
    assert await begins(flow, "other")
    flow.end("never begun")
    assert not await begins(flow, "late")


async def test_a_line_takes_so_many_bytes_and_then_its_sender_waits():
    inbox = Inbox()
    long, short = b"x" * (MAX_QUEUED_BYTES + 1), b"x"
    await inbox.put(long, 1)
    with anyio.move_on_after(0.01) as scope:
        await inbox.put(short, 2)
    assert scope.cancelled_caught
    queued = await inbox.first()
    assert queued is not None
    assert queued.line is long
    assert inbox.remove(queued)
    assert not inbox.remove(queued)
    await inbox.put(short, 2)
    assert inbox.withdraw(2)
    assert not inbox.withdraw(2)
