"""Calls injected functions of tasks: coroutine functions on the event loop, plain ones in a worker thread."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from anyio import to_thread


def asynchronous(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return a coroutine function that does what `function` does, without blocking the event loop.

    A plain function runs in one of anyio's worker threads: 40 at once, unless the program sets `total_tokens` of
    `anyio.to_thread.current_default_thread_limiter()`. A thread cannot be cancelled, so a cancel waits for its end.
    One that waits for other tasks keeps its thread meanwhile: return `Subtasks` rather than that.

    Args:
        function: Any callable. An awaitable that a plain function returns is awaited on the loop.
    """
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 - it is asked what kind it is
        return function

    async def in_thread(*arguments: Any) -> Any:
        value = await to_thread.run_sync(function, *arguments)
        return await value if isawaitable(value) else value

    return in_thread


async def settled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of either kind on the event loop, for what counts and must not run twice at once."""
    value = function(*arguments)
    return await value if isawaitable(value) else value
