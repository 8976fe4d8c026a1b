"""Isolation of LangGraph from anyio's cancels: every call of a graph from anyio code goes through here.

A cancelled anyio scope cancels its host task again and again until the scope is left. LangGraph cleans up in that same
task, so its clean-up is cancelled too and every running Send goes on without an owner (langgraph issue 5682, open).
Here LangGraph runs in a separate task, which gets exactly one cancel and is then waited for behind a shield.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any, TypeVar, cast

import anyio

T = TypeVar("T")


async def run_isolated(work: Coroutine[Any, Any, T]) -> T:
    """Run a LangGraph call so that cancelling the caller leaves nothing of it behind.

    Args:
        work: For example `graph.ainvoke(state)`; started at once, in a copy of the caller's context.

    Returns:
        What `work` returns.

    Raises:
        asyncio.CancelledError: The caller was cancelled; `work` has ended by then.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await _end(task)
        raise
    return task.result()


async def stream_isolated(source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Iterate over a LangGraph stream under the same promise as `run_isolated`.

    Leave it through `contextlib.aclosing`, as any generator that owns something: closing it ends the run.

    Args:
        source: For example `graph.astream(state)`.

    Yields:
        What `source` yields. What the reader has not taken yet is kept, without bound.
    """
    items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
    task = asyncio.ensure_future(_drain(source, items))
    task.add_done_callback(lambda _: items.put_nowait(None))
    try:
        while (item := await items.get()) is not None:
            yield item[0]
        task.result()
    finally:
        await _end(task)


async def _drain(source: AsyncIterator[T], items: asyncio.Queue[tuple[T] | None]) -> None:
    # A bounded queue would let a cancel arrive here, outside of LangGraph, while its Sends run on.
    # LangGraph declares an iterator and returns a generator, which must be closed for its Sends to end.
    async with contextlib.aclosing(cast("AsyncGenerator[T, None]", source)):
        async for item in source:
            items.put_nowait((item,))


async def _end(task: asyncio.Future[Any]) -> None:
    """Cancel the asyncio task once and wait until it is over, even if the caller is cancelled meanwhile."""
    task.cancel()
    with anyio.CancelScope(shield=True):
        while not task.done():
            # The shield holds off anyio's cancels, not native ones; the caller is being cancelled already.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # read, or asyncio would report an exception that was never retrieved
