"""ParallelExecutor: runs a flat list of tasks and aggregates their results."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter

from orchestration.calls import asynchronous
from orchestration.failures import Failure
from orchestration.isolation import run_isolated, stream_isolated
from orchestration.patterns.checkpoints import outcomes
from orchestration.patterns.recursive_orchestration import Node, RecursiveOrchestrationPattern
from orchestration.progress import Progress

Task = TypeVar("Task")


class ParallelExecutor:
    """Runs tasks side by side on the recursive graph, of which a flat list is the one-level case.

    Args:
        max_concurrent: Most tasks of this executor that run at once, over all of its calls; None for no bound.

    Raises:
        ValueError: `max_concurrent` is less than 1.
    """

    def __init__(self, max_concurrent: int | None = None) -> None:
        if max_concurrent is not None and max_concurrent < 1:  # every task would wait for ever
            raise ValueError(f"max_concurrent is {max_concurrent}. Give at least 1, or None for no bound.")
        self._limiter = None if max_concurrent is None else CapacityLimiter(max_concurrent)
        self.graph = RecursiveOrchestrationPattern.create_recursive_graph(work=self._call)

    async def execute_parallel_tasks(
        self,
        tasks: Sequence[Task],
        executor_func: Callable[[Task], Any],
        aggregator_func: Callable[[list[Any]], Any],
    ) -> Any:
        """Run every task and return what the aggregator makes of their results.

        Args:
            tasks: Any values; none at all is allowed.
            executor_func: Does one task. A coroutine function, or a plain one, which runs in a worker thread; see
                `orchestration.calls`. What it raises becomes that task's result, as a `Failure`.
            aggregator_func: Gets the results in the order of the tasks, and may be of either kind too; what it raises
                is raised here.
        """
        ended = await run_isolated(self.graph.ainvoke(_state(tasks, executor_func)))
        return await asynchronous(aggregator_func)(outcomes(ended))

    async def stream_parallel_tasks(
        self, tasks: Sequence[Task], executor_func: Callable[[Task], Any]
    ) -> AsyncGenerator[tuple[int, Any], None]:
        """Run every task and yield each result as soon as it is there.

        Leave it through `contextlib.aclosing`: closing it ends the tasks that still run.

        Args:
            tasks: As in `execute_parallel_tasks`.
            executor_func: As there.

        Yields:
            The index of a task and its result, in the order in which they end.
        """
        events = self.graph.astream(_state(tasks, executor_func), stream_mode="custom")
        async with aclosing(stream_isolated(events)) as told:
            async for event in told:
                if event["event"] == Progress.FINISHED:
                    yield event["index"], event["value"]
                elif event["event"] == Progress.FAILED:
                    yield event["index"], Failure.from_record(event["error"])

    async def _call(self, node: Node) -> Any:
        async with self._limiter or nullcontext():
            return await node["task"]()


def _state(tasks: Sequence[Any], executor_func: Callable[[Any], Any]) -> dict[str, Any]:
    call = asynchronous(executor_func)
    return {"tasks": [partial(call, task) for task in tasks]}
