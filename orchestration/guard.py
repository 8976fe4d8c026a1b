"""MemoryGuard: a guard that keeps trees in memory, for executors and programs without a store."""

from collections import Counter
from dataclasses import dataclass, field

from orchestration.calls import settled
from orchestration.limits import SpawnFacts, SpawnGuard, TrackingGuard, TreeLimits


class UnknownParentError(LookupError):
    """The node that was named as a parent is not registered here, or its tree is over.

    Args:
        parent_id: What was given.
    """

    def __init__(self, parent_id: str) -> None:
        self.parent_id = parent_id
        super().__init__(
            f"No running node {parent_id!r} to spawn under. Give the id of a node while its work runs, or no parent "
            "to begin a new tree."
        )


@dataclass(slots=True)
class _Tree:
    nodes: int = 0
    depths: dict[str, int] = field(default_factory=dict)
    children: Counter[str] = field(default_factory=Counter)
    numbered: Counter[str] = field(default_factory=Counter)


class MemoryGuard:
    """Holds trees to their limits; a `TrackingGuard`.

    Only what was admitted by this object is counted: after a resume from a checkpoint, what had been admitted by the
    earlier process is not.

    Args:
        limits: What one tree may grow to.
        authority: Asked in place of the limits, where it is given; this object then only keeps the positions of nodes.
    """

    def __init__(self, limits: TreeLimits, authority: SpawnGuard | None = None) -> None:
        self._limits = limits
        self._authority = authority
        self._batches: set[str] = set()
        self._trees: dict[str, _Tree] = {}
        self._root_of: dict[str, str] = {}

    def open(self, root_id: str) -> None:
        """Begin a tree whose root, at depth 0, is no node but the batch itself."""
        self._batches.add(root_id)
        self._trees.setdefault(root_id, _Tree()).depths[root_id] = 0
        self._root_of[root_id] = root_id

    def register(self, node_id: str, *, parent_id: str | None, depth: int, root_id: str) -> None:
        """Register the position of an admitted node, and tell the authority where that is a `TrackingGuard`."""
        if isinstance(self._authority, TrackingGuard):
            self._authority.register(node_id, parent_id=parent_id, depth=depth, root_id=root_id)
        tree = self._trees.setdefault(root_id, _Tree())
        if parent_id is None and node_id not in tree.depths:
            tree.nodes += 1  # a root is admitted before its tree has a name
        tree.depths[node_id] = depth
        self._root_of[node_id] = root_id

    async def admit(self, parent_id: str | None, asked: int) -> int:
        """Count `asked` new children of `parent_id` in and return their depth.

        Raises:
            RecursionLimitError: A total would be exceeded; nothing is counted.
            UnknownParentError: `parent_id` is not registered.
        """
        if self._authority is not None:
            # A batch without a parent is known here only.
            asker = None if parent_id in self._batches else parent_id
            return int(await settled(self._authority.admit, asker, asked))
        if parent_id is None:
            self._limits.check(SpawnFacts(depth=0, asked=asked))
            return 0
        root_id = self.root_of(parent_id)
        tree = self._trees[root_id]
        depth = tree.depths[parent_id] + 1
        children = tree.children[parent_id]
        self._limits.check(SpawnFacts(depth=depth, asked=asked, children=children, nodes=tree.nodes, tree_id=root_id))
        tree.children[parent_id] += asked
        tree.nodes += asked
        return depth

    def root_of(self, node_id: str) -> str:
        """Return the tree of a registered node.

        Raises:
            UnknownParentError: It is not registered.
        """
        try:
            return self._root_of[node_id]
        except KeyError:
            raise UnknownParentError(node_id) from None

    def number(self, parent_id: str, count: int) -> int:
        """Set `count` indices under a registered node aside and return the first.

        Raises:
            UnknownParentError: It is not registered.
        """
        numbered = self._trees[self.root_of(parent_id)].numbered
        numbered[parent_id] += count
        return numbered[parent_id] - count

    def forget(self, root_id: str) -> None:
        """Drop a tree that is over."""
        self._batches.discard(root_id)
        tree = self._trees.pop(root_id, _Tree())
        for node_id in tree.depths:
            self._root_of.pop(node_id, None)
