"""The recursive graph: a task may come back with subtasks, down to any depth, and cousins never wait for each other.

```
START → parent ──(one Send per task)──▶ child ──▶ combine → END
                                          │
                                          └─ subtasks: awaits this same graph for them, then resumes with their results
```
"""

from collections.abc import Callable, Mapping
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from orchestration.calls import asynchronous
from orchestration.claude_cli import ask_claude
from orchestration.limits import SpawnGuard
from orchestration.patterns.recursive_batches import Batches
from orchestration.patterns.recursive_nodes import (
    CHILD,
    COMBINE,
    GROUP,
    PARENT,
    Identify,
    RecursiveNodes,
    Subtasks,
    numbered,
)
from orchestration.patterns.send_api import DictState

Node = dict[str, Any]
Work = Callable[[Node], Any]
Resume = Callable[[Node, Subtasks, Mapping[str, dict[str, Any]]], Any]

__all__ = ["Identify", "Node", "RecursiveOrchestrationPattern", "Resume", "Subtasks", "Work", "collect"]


async def collect(node: Node, subtasks: Subtasks, results: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Resume a node with the results of its children, in their order: what happens where no `resume` is given."""
    return list(results.values())


class RecursiveOrchestrationPattern:
    """Builds the recursive graph."""

    @staticmethod
    def create_recursive_graph(
        *,
        work: Work = ask_claude,
        resume: Resume = collect,
        guard: SpawnGuard | None = None,
        identify: Identify = numbered,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Compile the graph that runs a batch of siblings and everything below them.

        State in, a plain dictionary: `tasks`, a sequence that may be empty; and where they apply `parent_id`, None at
        the top; `depth` of these tasks, 0 at the top (a guard's word counts more); `root_id`, left out where each task
        is a root of its own (at depth 0 the one task is the root, and takes this id); and `first`, the index of the
        first task where its parent has other children.

        State out: `results`, for every node of every level by its id, a dictionary of `id`, `parent_id`, `depth`,
        `index` (its place among its parent's children) and either `value` or `error`, which is `Failure.record()`.
        Where the guard refused these tasks, also `refusal`, the same record.

        Streamed under `stream_mode="custom"`, from all levels: dictionaries of `event` (see `Progress`), `id`,
        `parent_id`, `depth`, `root_id` and `index`; "spawned" has `count`, "finished" has `value`, "failed" and
        "refused" have `error`.

        With a checkpointer, run it with a `thread_id` and `durability="sync"`; nested batches are kept under thread
        ids that begin with it and a slash. `ainvoke(None, config)` resumes. A branch whose result has reached the
        checkpointer is not run again, and neither is the first part of a parent whose children had begun. LangGraph
        writes a result after its branch has ended and waits for it only at the end of a batch, so a branch that ended
        at the moment of a kill may run again: work must bear being run twice. Tasks, values and `Subtasks.state` must
        be what the checkpointer can store.

        `work` and `resume` are coroutine functions or plain ones; a plain one runs in a worker thread, see
        `orchestration.calls`. `guard` and `identify` are called on the event loop and must not block it.

        Args:
            work: Does one task. Gets a node: a dictionary of `task`, `id`, `parent_id`, `depth`, `root_id` and
                `index`. Returns a value, or `Subtasks` to have children run. What it raises becomes the node's error.
                The default has `claude -p` answer the task; see `orchestration.claude_cli`.
            resume: Goes on with a node after its children. Gets the node, the `Subtasks` that it asked for and their
                results by id in their order, failed ones included. Returns like `work`, so it may ask again.
            guard: Asked before every batch; where it raises, each task of that batch fails with what it raised and
                never runs. None admits everything. A `SeatingGuard` is told of every node.
            identify: Names a node from its task, its parent's id and its index. Ids are unique in a tree and the same
                after a resume. The default numbers them: "0", "0.2", "0.2.1".
            checkpointer: Any of LangGraph's, or None.

        Returns:
            The compiled graph. Enter it through `orchestration.native.native` from anyio code.
        """
        batches = Batches()
        nodes = RecursiveNodes(
            work=asynchronous(work),
            resume=asynchronous(resume),
            guard=guard,
            identify=identify,
            batches=batches,
        )
        builder: Any = StateGraph(DictState)  # LangGraph runs a plain dictionary as state, but does not type one
        builder.add_node(PARENT, nodes.parent)
        builder.add_node(CHILD, nodes.child)
        builder.add_node(GROUP, nodes.group)
        builder.add_node(COMBINE, nodes.combine)
        builder.add_edge(START, PARENT)
        builder.add_conditional_edges(PARENT, nodes.route, [CHILD, GROUP, COMBINE])
        # A conditional edge after each Send would cost 0.2 to 0.5 ms (measured); these are static.
        builder.add_edge(CHILD, COMBINE)
        builder.add_edge(GROUP, COMBINE)
        builder.add_edge(COMBINE, END)
        graph: CompiledStateGraph[Any, Any, Any, Any] = builder.compile(checkpointer=checkpointer)
        batches.bind(graph)
        return graph
