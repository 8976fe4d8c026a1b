"""RecursiveClaudeExecutor: runs trees of tasks within limits. The work of a task is injected."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from anyio import CancelScope, CapacityLimiter
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Send

from orchestration import progress
from orchestration.calls import asynchronous
from orchestration.claude_cli import ask_claude
from orchestration.failures import Failure
from orchestration.guard import MemoryGuard
from orchestration.isolation import run_isolated, stream_isolated
from orchestration.limits import SpawnGuard, TreeLimits
from orchestration.patterns.checkpoints import Entry, open_run, outcomes
from orchestration.patterns.recursive_orchestration import (
    Identify,
    Node,
    RecursiveOrchestrationPattern,
    Resume,
    Subtasks,
    Work,
    collect,
    numbered,
)


@dataclass(slots=True)
class _HeldSlot:
    limiter: CapacityLimiter
    held: bool = True
    waits: int = 0


class DepthSlots:
    """Hands out slots per tree and depth, first come first served.

    LangGraph's own `max_concurrency` is no substitute: every nested run has its own, and a parent that waits for
    its children keeps its place (measured: three nested levels with 2 peak at 2, 4 and 8).

    Args:
        limits: Says how many slots a depth has.
    """

    def __init__(self, limits: TreeLimits) -> None:
        self._limits = limits
        self._limiters: dict[str, dict[int, CapacityLimiter]] = {}
        self._slots: dict[str, _HeldSlot] = {}

    @asynccontextmanager
    async def held(self, node_id: str, *, root_id: str, depth: int) -> AsyncIterator[None]:
        """Hold a slot while the block runs; waits for one first."""
        limiter = self._limiter(root_id, depth)
        await limiter.acquire_on_behalf_of(node_id)
        slot = self._slots[node_id] = _HeldSlot(limiter)
        try:
            yield
        finally:
            del self._slots[node_id]
            if slot.held:
                limiter.release_on_behalf_of(node_id)

    @asynccontextmanager
    async def parked(self, node_id: str | None) -> AsyncIterator[None]:
        """Give the slot of a node back while the block waits for its children; does nothing for a node without one.

        However the block ends, the node has a slot again afterwards, and waits for it where it must.
        """
        slot = self._slots.get(node_id) if node_id is not None else None
        if slot is None:
            yield
            return

        slot.waits += 1
        if slot.held:
            slot.held = False
            slot.limiter.release_on_behalf_of(node_id)
        try:
            yield
        finally:
            slot.waits -= 1
            if slot.waits == 0 and not slot.held:
                # Shielded: work that gave its children up goes on, and in a cancelled scope it would have no slot.
                with CancelScope(shield=True):
                    await slot.limiter.acquire_on_behalf_of(node_id)
                slot.held = True

    def forget(self, root_id: str) -> None:
        """Drop the slots of a tree that is over."""
        self._limiters.pop(root_id, None)

    def _limiter(self, root_id: str, depth: int) -> CapacityLimiter:
        levels = self._limiters.setdefault(root_id, {})
        if depth not in levels:
            levels[depth] = CapacityLimiter(self._limits.slots_at(depth))
        return levels[depth]


class RecursiveClaudeExecutor:
    """Runs tasks that may spawn tasks, held to a depth, a width, a total and a number at once per depth.

    A node spawns in either of two ways: its work returns `Subtasks`, or its work calls `execute_with_recursion` or
    `execute_parallel` with `parent_id=node["id"]`. In both it gives its slot back while it waits.
    One node uses one of the two ways, since both number its children from 0.

    Args:
        max_depth: Deepest level; the root is at 0.
        max_concurrent: Depth to how many nodes of one tree run there at once. A level that is not named takes the
            number of the deepest named level above it. None means `{0: 1, 1: 10, 2: 50}`.
        work: Does one task, in a worker thread where it is a plain function; see
            `RecursiveOrchestrationPattern.create_recursive_graph`. The default has `claude -p` answer the task.
        resume: Goes on with a node after its subtasks; see there.
        max_children: Most children of one parent.
        max_nodes: Most nodes of one tree.
        guard: Asked before each spawn in place of this executor's own memory; `max_depth`, `max_children` and
            `max_nodes` are then up to the guard.
        identify: Names a node below a root; see there. Ids are unique among the trees that run at the same time.
        checkpointer: Any of LangGraph's, or None. With one, each call at the top needs a `thread_id`.
    """

    def __init__(
        self,
        max_depth: int = 5,
        max_concurrent: Mapping[int, int] | None = None,
        *,
        work: Work = ask_claude,
        resume: Resume = collect,
        max_children: int = 100,
        max_nodes: int = 1000,
        guard: SpawnGuard | None = None,
        identify: Identify = numbered,
        checkpointer: BaseCheckpointSaver[Any] | None = None,
    ) -> None:
        self.limits = TreeLimits(max_depth=max_depth, max_children=max_children, max_nodes=max_nodes)
        if max_concurrent is not None:
            self.limits = replace(self.limits, max_concurrent=max_concurrent)
        self._work = asynchronous(work)
        self._resume = asynchronous(resume)
        self._memory = MemoryGuard(self.limits, guard)
        self._slots = DepthSlots(self.limits)
        self.graph = RecursiveOrchestrationPattern.create_recursive_graph(
            work=self._slotted_work,
            resume=self._slotted_resume,
            guard=self._memory,
            identify=identify,
            checkpointer=checkpointer,
        )

    async def execute_with_recursion(
        self, task: Any, parent_id: str | None = None, *, thread_id: str | None = None
    ) -> Any:
        """Run a task and everything below it, and return the task's value.

        Args:
            task: What `work` gets as `node["task"]`.
            parent_id: The running node to spawn it under, or None to begin a tree, with this task at depth 0.
            thread_id: With a checkpointer, names the tree: a call with the same name goes on where the earlier one
                stopped, or returns its result.

        Raises:
            RecursionLimitError: The task may not be spawned here; it has the depth, the limit and what to do instead.
            UnknownParentError: `parent_id` names no running node.
            TaskFailedError: The task itself raised. A failure further down is a value for `resume`.
        """
        [value] = await self._values(self._single(task, parent_id), parent_id, thread_id)
        if isinstance(value, Failure):
            raise value.error()
        return value

    async def execute_parallel(
        self, sends: Sequence[Send], parent_id: str | None = None, *, thread_id: str | None = None
    ) -> list[Any]:
        """Run prepared Sends and everything below them, and return their values in the order of the Sends.

        Args:
            sends: The task of each is its `arg`. Its target is not looked at, since there is one kind of node.
            parent_id: The running node to spawn them under. None begins a tree whose root, at depth 0, is this batch
                itself, so that they are at depth 1.
            thread_id: As in `execute_with_recursion`.

        Returns:
            One value each; a `Failure` where the task raised.

        Raises:
            RecursionLimitError: The batch may not be spawned here; none of it ran.
            UnknownParentError: `parent_id` names no running node.
        """
        tasks = [send.arg for send in sends]
        return await self._values(self._batch(tasks, parent_id), parent_id, thread_id)

    async def astream(
        self, task: Any, parent_id: str | None = None, *, thread_id: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run a task as `execute_with_recursion` does, and report the progress of each branch.

        Leave it through `contextlib.aclosing`: closing it ends the tree.

        Args:
            task: As there.
            parent_id: As there.
            thread_id: As there; what had finished in an earlier process is not reported again.

        Yields:
            Dictionaries of `event` (see `Progress`), `id`, `parent_id`, `depth`, `root_id`, `index`, and for some
            events `count`, `value` or `error`. The last is that of the task itself: a refusal or a failure is
            reported, not raised.

        Raises:
            UnknownParentError: `parent_id` names no running node.
        """
        batch = self._single(task, parent_id)
        async with self._tree(batch, parent_id, thread_id, progress.own()) as entry:
            if entry.over:
                return
            events = self.graph.astream(entry.state, entry.config, stream_mode="custom", **entry.options)
            async with aclosing(stream_isolated(events)) as told:
                async for event in told:
                    yield event

    async def _values(self, batch: dict[str, Any], parent_id: str | None, thread_id: str | None) -> list[Any]:
        async with self._tree(batch, parent_id, thread_id, progress.inherited()) as entry:
            ended = await run_isolated(entry.run())
        if "refusal" in ended:
            raise Failure.from_record(ended["refusal"]).error()
        return outcomes(ended)

    @asynccontextmanager
    async def _tree(
        self, batch: dict[str, Any], parent_id: str | None, thread_id: str | None, configurable: dict[str, Any]
    ) -> AsyncIterator[Entry]:
        """Find where to enter the graph; the parent's slot is given back meanwhile, and a tree is forgotten after."""
        named = {} if thread_id is None else {"thread_id": thread_id}
        root_ids = {batch["root_id"]}
        try:
            entry = await open_run(self.graph, batch, {"configurable": {**configurable, **named}})
            root_ids.add(entry.tree["root_id"])  # another one where an earlier process began the tree
            async with self._slots.parked(parent_id):
                yield entry
        finally:
            if parent_id is None:  # a call below a running node, be it the root, leaves the tree to its first call
                self._forget(*root_ids)

    def _forget(self, *root_ids: str) -> None:
        for root_id in root_ids:
            self._memory.forget(root_id)
            self._slots.forget(root_id)

    def _single(self, task: Any, parent_id: str | None) -> dict[str, Any]:
        if parent_id is not None:
            return self._below(parent_id, [task])
        return {"tasks": [task], "parent_id": None, "depth": 0, "root_id": _new_id()}

    def _batch(self, tasks: list[Any], parent_id: str | None) -> dict[str, Any]:
        if parent_id is not None:
            return self._below(parent_id, tasks)
        root_id = _new_id()
        self._memory.open(root_id)
        return {"tasks": tasks, "parent_id": root_id, "depth": 1, "root_id": root_id}

    def _below(self, parent_id: str, tasks: list[Any]) -> dict[str, Any]:
        root_id, first = self._memory.root_of(parent_id), self._memory.number(parent_id, len(tasks))
        return {"tasks": tasks, "parent_id": parent_id, "root_id": root_id, "first": first}

    async def _slotted_work(self, node: Node) -> Any:
        async with self._slots.held(node["id"], root_id=node["root_id"], depth=node["depth"]):
            return await self._work(node)

    async def _slotted_resume(self, node: Node, subtasks: Subtasks, results: Mapping[str, dict[str, Any]]) -> Any:
        async with self._slots.held(node["id"], root_id=node["root_id"], depth=node["depth"]):
            return await self._resume(node, subtasks, results)


def _new_id() -> str:
    return uuid4().hex[:12]
