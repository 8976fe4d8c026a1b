"""The compiled LangGraph graph that runs every batch, loaded shortly after the start or with the first batch."""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.to_thread

from jobs.model import Job
from orchestration.isolation import run_isolated

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from orchestration.patterns import Subtasks

Next: TypeAlias = "str | Subtasks"
"""Result of a node of the graph: a job's status, or the jobs that must run before it goes on."""

HEAD_START = 0.5
"""Seconds that an engine has for its first clients before it loads the graph unasked: the import takes a second of a
core (measured), as long as all else of a start."""

_PATTERNS = "orchestration.patterns"


class BatchGraph:
    """A recursive graph that is compiled at its first use.

    Args:
        nodes: What the graph calls: `work` and `resume` of `RecursiveOrchestrationPattern`.
    """

    def __init__(self, **nodes: Callable[..., Any]) -> None:
        self._nodes = nodes
        self._loading = anyio.Lock()
        self._compiled: CompiledStateGraph[Any] | None = None

    async def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs of one batch until each is over."""
        first = jobs[0]
        ids = [job.id for job in jobs]
        await run_isolated(
            self.ainvoke({"tasks": ids, "parent_id": first.parent_id, "depth": first.depth, "root_id": first.root_id})
        )

    async def ainvoke(self, state: Mapping[str, Any]) -> Any:
        """Run a batch to its end and return the graph's final state."""
        return await (await self._load()).ainvoke(state)

    async def load_soon(self) -> None:
        """Load the graph after `HEAD_START`, so that a later batch does not wait for it."""
        await anyio.sleep(HEAD_START)
        await self._load()

    async def _load(self) -> "CompiledStateGraph[Any]":
        if self._compiled is None:
            async with self._loading:
                if self._compiled is None:
                    patterns: Any = sys.modules.get(_PATTERNS)
                    # A module that another thread is importing is listed already, but lacks some of its names.
                    if not hasattr(patterns, "RecursiveOrchestrationPattern"):
                        patterns = await anyio.to_thread.run_sync(_import_patterns)
                    self._compiled = patterns.RecursiveOrchestrationPattern.create_recursive_graph(
                        identify=_own_id, **self._nodes
                    )
        return self._compiled


def subtasks_of(jobs: Sequence[Job]) -> "Subtasks":
    """Return the result of a node whose job waits for further jobs."""
    # Imported here: it is loaded already where a node runs.
    from orchestration.patterns import Subtasks

    return Subtasks(tasks=[job.id for job in jobs])


def _import_patterns() -> Any:
    patterns = import_module(_PATTERNS)
    # Imported modules are never garbage; each full collection would walk through them.
    gc.freeze()
    return patterns


def _own_id(task: str, parent_id: str | None, index: int) -> str:
    return task
