"""Limits of a tree: its depth, width, size and concurrency. The rules alone: no state of a tree is kept."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from types import MappingProxyType
from typing import Protocol, runtime_checkable


class LimitKind(StrEnum):
    """Which total a refused spawn would have exceeded."""

    DEPTH = "depth"
    CHILDREN = "children"
    NODES = "nodes"


class RecursionLimitError(Exception):
    """A spawn was refused because a total of the tree would be exceeded.

    Without arguments it names a depth limit and no figures.

    Args:
        kind: Which total.
        depth: Depth that the refused nodes would have had; the root is at 0.
        value: What the total would have become.
        limit: The most that is allowed.
        tree_id: The tree that is full, where the total is one of a tree.
    """

    def __init__(
        self,
        *,
        kind: LimitKind = LimitKind.DEPTH,
        depth: int = 0,
        value: int = 0,
        limit: int = 0,
        tree_id: str | None = None,
    ) -> None:
        self.kind = kind
        self.depth = depth
        self.value = value
        self.limit = limit
        self.tree_id = tree_id
        super().__init__(f"{self._what()} {self.remedy}")

    @property
    def remedy(self) -> str:
        """What the caller can do instead."""
        match self.kind:
            case LimitKind.DEPTH:
                return "Do this work in the current job instead of spawning."
            case LimitKind.CHILDREN:
                return "Spawn fewer, larger tasks, or let the children divide their own work."
            case LimitKind.NODES:
                return "Do the rest in the current job, or start a new tree for it."

    def _what(self) -> str:
        if self.value <= self.limit:
            return f"Recursion {self.kind} limit exceeded."
        # The first words are those of the older server, whose callers match on them.
        match self.kind:
            case LimitKind.DEPTH:
                return f"Recursion depth limit exceeded: {self.depth}/{self.limit}. Job would create infinite loop."
            case LimitKind.CHILDREN:
                return f"Too many children for one parent: {self.value}/{self.limit}."
            case LimitKind.NODES:
                return f"Too many total jobs for root {self.tree_id or '?'}: {self.value}/{self.limit}."


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnFacts:
    """State of a tree at the moment of a spawn.

    Args:
        depth: Depth that the new nodes would have.
        asked: How many new nodes are asked for.
        children: How many children the parent has already; 0 where there is no parent.
        nodes: How many nodes the tree has already.
        tree_id: The tree, for the error's sentence.
    """

    depth: int
    asked: int
    children: int = 0
    nodes: int = 0
    tree_id: str | None = None


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _default_slots() -> Mapping[int, int]:
    return MappingProxyType({0: 1, 1: 10, 2: 50})


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeLimits:
    """The totals and the concurrency that one tree may reach.

    Args:
        max_depth: Deepest level of a node; the root is level 0.
        max_concurrent: Depth to the number of nodes that may run there at once, per tree; at least 1. A level that is
            not named takes the number of the deepest named level above it.
        max_children: Most children of one parent.
        max_nodes: Most nodes of one tree.

    Raises:
        ValueError: A level has no slot, or a depth or a number is not whole.
    """

    max_depth: int = 5
    max_concurrent: Mapping[int, int] = field(default_factory=_default_slots)
    max_children: int = 100
    max_nodes: int = 1000

    def __post_init__(self) -> None:
        if not (isinstance(self.max_concurrent, Mapping) and all(map(_is_whole, chain(*self.max_concurrent.items())))):
            raise ValueError(
                f"max_concurrent is {self.max_concurrent!r}. Give whole numbers by depth, such as {{0: 1, 1: 10}}."
            )
        object.__setattr__(self, "max_concurrent", MappingProxyType(dict(self.max_concurrent)))
        for depth, slots in self.max_concurrent.items():
            if slots < 1:  # nodes of that level would wait for ever
                raise ValueError(f"max_concurrent gives depth {depth} {slots} slots. Give each level at least 1.")

    def check(self, facts: SpawnFacts) -> None:
        """Refuse a spawn that would exceed a total.

        Raises:
            RecursionLimitError: Naming the total, the number and what to do instead.
        """
        children = facts.children + facts.asked
        nodes = facts.nodes + facts.asked
        if facts.depth > self.max_depth:
            raise self._refusal(LimitKind.DEPTH, facts, facts.depth, self.max_depth)
        if children > self.max_children:
            raise self._refusal(LimitKind.CHILDREN, facts, children, self.max_children)
        if nodes > self.max_nodes:
            raise self._refusal(LimitKind.NODES, facts, nodes, self.max_nodes)

    def slots_at(self, depth: int) -> int:
        """Return how many nodes may run at once at this depth of one tree."""
        named = [level for level in self.max_concurrent if level <= depth]
        return self.max_concurrent[max(named)] if named else max(self.max_concurrent.values(), default=1)

    @staticmethod
    def _refusal(kind: LimitKind, facts: SpawnFacts, value: int, limit: int) -> RecursionLimitError:
        return RecursionLimitError(kind=kind, depth=facts.depth, value=value, limit=limit, tree_id=facts.tree_id)


class SpawnGuard(Protocol):
    """The authority that a graph or an executor asks before it spawns, on the event loop, which it must not block."""

    def admit(self, parent_id: str | None, asked: int) -> int | Awaitable[int]:
        """Count `asked` new children of `parent_id` in and return their depth; plain or async.

        Raises:
            RecursionLimitError: Where a total would be exceeded; nothing is counted then.
        """
        ...


@runtime_checkable
class TrackingGuard(SpawnGuard, Protocol):
    """A guard that keeps its own state of a tree, and so is told of every node."""

    def register(self, node_id: str, *, parent_id: str | None, depth: int, root_id: str) -> None:
        """Register an admitted node before it runs; after a resume the same node may be registered again."""
        ...
