"""Entering LangGraph from anyio code."""

from contextlib import aclosing
from typing import Any

import anyio
import pytest

from orchestration.isolation import run_isolated, stream_isolated
from orchestration.patterns import RecursiveOrchestrationPattern

pytestmark = pytest.mark.anyio

SENDS = 10


class Sleepers:
    """Work that runs until it is cancelled, counted."""

    def __init__(self) -> None:
        self.running = 0
        self.all_running = anyio.Event()
        self.graph = RecursiveOrchestrationPattern.create_recursive_graph(work=self._work)
        self.state: dict[str, Any] = {"tasks": list(range(SENDS))}

    async def _work(self, node: dict[str, Any]) -> None:
        self.running += 1
        if self.running == SENDS:
            self.all_running.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.running -= 1


async def cancel_once_running(sleepers: Sleepers, call: Any) -> int:
    """Cancel the scope around `call` and return how many Sends still run when the scope has been left."""
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await sleepers.all_running.wait()
            tasks.cancel_scope.cancel()
    return sleepers.running


async def test_a_cancelled_scope_around_ainvoke_alone_leaks_every_send():
    """The reason for `run_isolated`: when LangGraph no longer leaks, this fails and `run_isolated` can go."""
    sleepers = Sleepers()

    async def call() -> None:
        await sleepers.graph.ainvoke(sleepers.state)

    assert await cancel_once_running(sleepers, call) == SENDS


async def test_a_cancelled_scope_around_native_leaves_no_send_running():
    sleepers = Sleepers()

    async def call() -> None:
        await run_isolated(sleepers.graph.ainvoke(sleepers.state))

    assert await cancel_once_running(sleepers, call) == 0


async def test_a_cancelled_scope_around_a_native_stream_leaves_no_send_running():
    sleepers = Sleepers()

    async def call() -> None:
        events = sleepers.graph.astream(sleepers.state, stream_mode="custom")
        async with aclosing(stream_isolated(events)) as told:
            async for _ in told:
                pass

    assert await cancel_once_running(sleepers, call) == 0


async def test_leaving_a_native_stream_early_leaves_no_send_running():
    sleepers = Sleepers()
    events = sleepers.graph.astream(sleepers.state, stream_mode="custom")
    with anyio.fail_after(60):
        async with aclosing(stream_isolated(events)) as told:
            async for _ in told:
                await sleepers.all_running.wait()
                break
    assert sleepers.running == 0


async def test_clean_up_that_awaits_is_waited_for():
    cleaned = False
    started = anyio.Event()

    async def work() -> None:
        nonlocal cleaned
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
                cleaned = True

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_isolated, work())
            await started.wait()
            tasks.cancel_scope.cancel()
    assert cleaned


async def test_native_returns_the_value_and_raises_the_error_of_what_it_ran():
    async def value() -> int:
        return 7

    async def error() -> int:
        raise LookupError("nothing here")

    assert await run_isolated(value()) == 7
    with pytest.raises(LookupError, match="nothing here"):
        await run_isolated(error())


async def test_an_error_in_a_stream_reaches_its_reader_after_what_came_before():
    async def source() -> Any:
        yield 1
        raise LookupError("no more")

    told = stream_isolated(source())
    assert await anext(told) == 1
    with pytest.raises(LookupError, match="no more"):
        await anext(told)
