"""Supervises the engine's asyncio tasks, where an error in one ends no other; and the timer of the periodic ones."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 1.0
"""Seconds before a service that failed is started again; each further pause is twice as long."""

LONGEST_PAUSE: Final = 60.0
"""Most seconds between two starts; a service that ran for this long counts as healthy again."""

Task = Callable[..., Awaitable[None]]


class SupervisedTasks:
    """Starts asyncio tasks in the engine's task group; an error ends only its own task.

    Args:
        group: Owns the tasks.
    """

    def __init__(self, group: TaskGroup) -> None:
        self._group = group

    def start(self, task: Task, *args: Any) -> None:
        """Run a task once; an unforeseen error is logged with its traceback and ends this task alone."""
        self._group.start_soon(self._run, task, args)

    def keep(self, task: Task, *args: Any) -> None:
        """Run a task until it returns; an unforeseen error is logged, and the task starts again after a pause."""
        self._group.start_soon(self._run_again, task, args)

    async def _run(self, task: Task, args: tuple[Any, ...]) -> None:
        try:
            await task(*args)
        except Exception:
            logger.exception("%s failed; the engine goes on without it", _name(task))

    async def _run_again(self, task: Task, args: tuple[Any, ...]) -> None:
        pause = FIRST_PAUSE
        while True:
            since = anyio.current_time()
            try:
                return await task(*args)
            except Exception:
                if anyio.current_time() - since >= LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                logger.exception("%s failed; it is started again in %g s", _name(task), pause)
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _name(task: Task) -> str:
    function = getattr(task, "func", task)
    return str(getattr(function, "__qualname__", function))


async def beat(seconds: float) -> None:
    """Sleep until the event loop's clock shows a multiple of `seconds`.

    Tasks that wake together wake the process once: nothing else wakes an idle engine a few times a second.

    Args:
        seconds: From one beat to the next.
    """
    await anyio.sleep_until((anyio.current_time() // seconds + 1) * seconds)
