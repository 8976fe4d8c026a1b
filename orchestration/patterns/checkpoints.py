"""Nested runs of the recursive graph: a node runs it for the batch below it, and resumes that batch after a crash."""

from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config
from langgraph.graph.state import CompiledStateGraph

from orchestration import progress
from orchestration.failures import Failure

_THREAD: Final = "orchestration_thread"
"""Where a nested run finds the outermost thread id, which all nested ones begin with."""

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Batches:
    """Runs batches on the graph that it is bound to.

    Under a checkpointer each batch has a thread of its own: LangGraph's own namespace for a nested run is found again
    only while the parent's task is, whereas a name made of the parent's id and the batch's number always is.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def bind(self, graph: Graph) -> None:
        """Take the compiled graph, which exists only after its nodes do."""
        self._graph = graph

    async def run(self, name: str, batch: dict[str, Any]) -> dict[str, Any]:
        """Run a batch, or what is left of it, and return its state at the end.

        Args:
            name: Unique in the tree and the same after a resume.
            batch: The state to begin with, where the batch has not begun.
        """
        config: dict[str, Any] = {"configurable": progress.inherited()}
        if thread := self._thread():
            config["configurable"] |= {"thread_id": f"{thread}/{name}", _THREAD: thread}
        entry = await open_run(self._bound(), {**batch, "batch": name}, config)
        return await entry.run()

    async def saved(self, name: str) -> dict[str, Any] | None:
        """Return the saved state of a batch that an earlier process began, or None."""
        thread = self._thread()
        if thread is None:
            return None
        snapshot = await self._bound().aget_state({"configurable": {"thread_id": f"{thread}/{name}"}})
        return snapshot.values or None

    def _thread(self) -> str | None:
        if not _checkpoints(self._bound()):
            return None
        configurable = get_config().get("configurable", {})
        thread: str | None = configurable.get(_THREAD) or configurable.get("thread_id")
        return thread

    def _bound(self) -> Graph:
        if self._graph is None:
            raise RuntimeError("Batches has no graph yet; call bind() with the compiled graph first.")
        return self._graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a run of the graph begins.

    Args:
        graph: The graph.
        config: LangGraph's configuration for the run.
        state: What to give the graph; None continues a thread.
        tree: The state that the thread has, or begins with.
        over: The thread has come to its end, so there is nothing to run: `tree` is its last state.
    """

    graph: Graph
    config: Any
    state: dict[str, Any] | None
    tree: dict[str, Any]
    over: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `ainvoke` and `astream`."""
        # "sync" has each superstep wait for the checkpoint before it, so that a batch is on disk before it begins.
        return {"durability": "sync"} if _checkpoints(self.graph) else {}

    async def run(self) -> dict[str, Any]:
        """Run to the end and return the state there."""
        if self.over:
            return self.tree
        ended: dict[str, Any] = await self.graph.ainvoke(self.state, self.config, **self.options)
        return ended


async def open_run(graph: Graph, state: dict[str, Any], config: dict[str, Any]) -> Entry:
    """Find out whether to begin a run with `state`, to continue its thread where it stopped, or whether it is over."""
    if "thread_id" in config["configurable"]:
        saved = await graph.aget_state(config)  # type: ignore[arg-type]  # RunnableConfig is langchain's, and a dict
        if saved.values:
            # Not `next`: it leaves out the nodes whose writes are stored, also where those were never applied.
            return Entry(graph=graph, config=config, state=None, tree=saved.values, over=not saved.tasks)
    return Entry(graph=graph, config=config, state=state, tree=state)


def outcomes(ended: dict[str, Any]) -> list[Any]:
    """Return the results of a batch's tasks, in their order: a value, or a `Failure`."""
    own = [record for record in ended["results"].values() if record["parent_id"] == ended.get("parent_id")]
    return [
        Failure.from_record(record["error"]) if "error" in record else record["value"]
        for record in sorted(own, key=itemgetter("index"))
    ]


def _checkpoints(graph: Graph) -> bool:
    return isinstance(graph.checkpointer, BaseCheckpointSaver)
