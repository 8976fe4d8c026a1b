"""The recursive graph: a task may return subtasks, down to any depth, and cousins never wait for each other.

```
START → parent ──(one Send per task)──▶ child ──▶ combine → END
                                          │
                                          └─ subtasks: awaits this same graph for them, then resumes with their results
```
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from anyio.lowlevel import checkpoint
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from orchestration.calls import asynchronous, settled
from orchestration.claude_cli import ask_claude
from orchestration.failures import Failure, capture
from orchestration.limits import SpawnGuard, TrackingGuard
from orchestration.patterns.checkpoints import Batches
from orchestration.patterns.send_api import MAX_SENDS, DictState, chunk_size, chunks, create_sends
from orchestration.progress import Progress, emit

PARENT: Final = "parent"
CHILD: Final = "child"
GROUP: Final = "group"
COMBINE: Final = "combine"

HEAD_START: Final = 8
"""Passes of the event loop by which a group of Sends begins before the next one. Begun together, all groups would hold
all of their Sends before the first task runs. Measured for 10,000 tasks that end at once: a peak of 134 MiB together
and of 6 MiB like this, and 1.9 and 1.5 times the CPU per Send of 100; a longer head start gained no more."""

Identify = Callable[[Any, str | None, int], str]
State = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subtasks:
    """What `work` or `resume` returns to have children run before the node goes on.

    Args:
        tasks: One child each, in this order.
        state: Anything that `resume` needs to go on; it comes back in `subtasks.state`.
    """

    tasks: Sequence[Any]
    state: Any = None


class DuplicateIdError(ValueError):
    """Two tasks of one batch have the same id, so one result would hide the other.

    Args:
        parent_id: Whose children they are.
        tasks: How many tasks the batch had.
        results: How many different ids they had.
    """

    def __init__(self, *, parent_id: str | None, tasks: int, results: int) -> None:
        self.parent_id = parent_id
        self.tasks = tasks
        self.results = results
        super().__init__(
            f"{tasks} tasks under {parent_id or 'no parent'} have {results} different ids. "
            "Let `identify` return another id for each task of a tree."
        )


def numbered(task: Any, parent_id: str | None, index: int) -> str:
    """Name a node by its place in the tree."""
    return str(index) if parent_id is None else f"{parent_id}.{index}"


class RecursiveNodes:
    """Nodes and routing over one set of injected functions; `Batches` connects them to the compiled graph.

    Args:
        work: Does one task.
        resume: Goes on after the children.
        guard: Asked before a batch, or None.
        identify: Names a node.
        batches: Runs batches below a node.
    """

    def __init__(
        self,
        *,
        work: Callable[..., Awaitable[Any]],
        resume: Callable[..., Awaitable[Any]],
        guard: SpawnGuard | None,
        identify: Identify,
        batches: Batches,
    ) -> None:
        self._work = work
        self._resume = resume
        self._guard = guard
        # Asked once: a look at a protocol goes through all of its names.
        self._seats = guard if isinstance(guard, TrackingGuard) else None
        self._identify = identify
        self._batches = batches

    async def parent(self, state: State) -> State:
        """Ask the guard; write nothing but its answer."""
        asked = len(state["tasks"])
        if self._guard is None or asked == 0 or state.get("admitted"):
            return {}
        answer = await capture(settled, self._guard.admit, state.get("parent_id"), asked)
        return {"refusal": answer.record()} if isinstance(answer, Failure) else {"depth": answer}

    async def route(self, state: State) -> list[Send] | str:
        """Send each task to a child, or past the limit of one superstep each group of tasks to a nested batch."""
        tasks = state["tasks"]
        if "refusal" in state or not tasks:
            return COMBINE
        if len(tasks) <= MAX_SENDS:
            return create_sends(CHILD, self._nodes(state))
        return create_sends(GROUP, self._groups(state))

    async def child(self, state: State) -> State:
        """Do one task, with all that it asks for below it."""
        if self._seats is not None:
            self._seats.register(
                state["id"], parent_id=state["parent_id"], depth=state["depth"], root_id=state["root_id"]
            )
        outcome, below = await self._run(state)
        return {"results": {**below, state["id"]: _ended(state, outcome)}}

    async def group(self, state: State) -> State:
        """Run some of the siblings as a separate batch, which the caller never sees."""
        for _ in range(state["place"] * HEAD_START):
            await checkpoint()
        ended = await self._batches.run(f"{state.get('batch', '')}+{state['first']}", state)
        return {"results": ended["results"]}

    async def combine(self, state: State) -> State:
        """Turn a refusal into results, and make sure that no result hides another."""
        if "refusal" in state:
            return {"results": _refused(self._nodes(state), state["refusal"])}
        results = state.get("results", {})
        own = sum(1 for record in results.values() if record["parent_id"] == state.get("parent_id"))
        if own != len(state["tasks"]):
            raise DuplicateIdError(parent_id=state.get("parent_id"), tasks=len(state["tasks"]), results=own)
        return {"results": results}

    async def _run(self, node: State) -> tuple[Any, dict[str, Record]]:
        below: dict[str, Record] = {}
        spawned = turn = 0
        outcome = await self._outcome(node, turn, Progress.STARTED, self._work, node)
        while isinstance(outcome, Subtasks):
            emit(Progress.SPAWNED, node, count=len(outcome.tasks))
            batch = _batch(node, outcome, first=spawned)
            ended = await capture(self._batches.run, _batch_name(node, turn), batch)
            if isinstance(ended, Failure):  # the batch itself broke, for instance on two tasks with one id
                return ended, below
            below |= ended["results"]
            spawned += len(outcome.tasks)
            turn += 1
            children = _children(node, ended["results"])
            outcome = await self._outcome(node, turn, Progress.RESUMED, self._resume, node, outcome, children)
        return outcome, below

    async def _outcome(
        self, node: State, turn: int, event: Progress, call: Callable[..., Awaitable[Any]], *arguments: Any
    ) -> Any:
        """Call `work` or `resume`, unless what it asked for in an earlier life has begun: then return that."""
        saved = await self._batches.saved(_batch_name(node, turn))
        if saved is not None:
            return Subtasks(tasks=saved["tasks"], state=saved["spawn"])
        emit(event, node)
        return await capture(call, *arguments)

    def _nodes(self, state: State) -> list[State]:
        return [self._node(state, index, task) for index, task in enumerate(state["tasks"], state.get("first", 0))]

    def _node(self, state: State, index: int, task: Any) -> State:
        parent_id, depth, root_id = state.get("parent_id"), state.get("depth", 0), state.get("root_id")
        node_id = root_id if depth == 0 and root_id else self._identify(task, parent_id, index)
        return {
            "task": task,
            "id": node_id,
            "parent_id": parent_id,
            "depth": depth,
            "root_id": root_id or node_id,
            "index": index,
        }

    @staticmethod
    def _groups(state: State) -> list[State]:
        tasks, first = state["tasks"], state.get("first", 0)
        pieces = chunks(tasks, chunk_size(len(tasks)))
        kept = ("parent_id", "depth", "root_id", "batch")
        passed_on: State = {key: state[key] for key in kept if key in state}
        return [
            {**passed_on, "admitted": True, "place": place, "first": first + at, "tasks": piece}
            for place, (at, piece) in enumerate(pieces)
        ]


def _batch(node: State, subtasks: Subtasks, *, first: int) -> State:
    return {
        "tasks": list(subtasks.tasks),
        "spawn": subtasks.state,
        "first": first,
        "parent_id": node["id"],
        "depth": node["depth"] + 1,
        "root_id": node["root_id"],
    }


def _batch_name(node: State, turn: int) -> str:
    return f"{node['id']}#{turn}"


def _children(node: State, results: Mapping[str, Record]) -> dict[str, Record]:
    own = [record for record in results.values() if record["parent_id"] == node["id"]]
    # LangGraph applies writes in the order of the Sends, which it does not promise anywhere.
    return {record["id"]: record for record in sorted(own, key=itemgetter("index"))}


def _record(node: State, **outcome: Any) -> Record:
    return {**{key: node[key] for key in ("id", "parent_id", "depth", "index")}, **outcome}


def _ended(node: State, outcome: Any) -> Record:
    if isinstance(outcome, Failure):
        error = outcome.record()
        emit(Progress.FAILED, node, error=error)
        return _record(node, error=error)
    emit(Progress.FINISHED, node, value=outcome)
    return _record(node, value=outcome)


def _refused(nodes: Sequence[State], refusal: Record) -> dict[str, Record]:
    for node in nodes:
        emit(Progress.REFUSED, node, error=refusal)
    return {node["id"]: _record(node, error=refusal) for node in nodes}


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
        at the moment of a kill may run again: work must allow being run twice. Tasks, values and `Subtasks.state` must
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
                never runs. None admits everything. A `TrackingGuard` is told of every node.
            identify: Names a node from its task, its parent's id and its index. Ids are unique in a tree and the same
                after a resume. The default numbers them: "0", "0.2", "0.2.1".
            checkpointer: Any of LangGraph's, or None.

        Returns:
            The compiled graph. Enter it through `orchestration.isolation.run_isolated` from anyio code.
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
