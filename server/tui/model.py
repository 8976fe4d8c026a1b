"""The jobs that the terminal view knows, as a tree: order, totals, what is folded and what the filter leaves.

Nothing here draws. A page with changes costs as much as the trees are deep, one with new jobs a pass over all jobs.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from server.cli.doing import state_of
from server.cli.tree_view import LIVE_STATES, STATES
from server.tui.filters import Matches

Row = Mapping[str, Any]
"""A row of the job feed."""


RETRIED: Final = STATES[4:]
"""The states that a retry runs again."""


@dataclass(slots=True, eq=False)
class Node:
    """A job, or the batch at the root of a tree.

    Attributes:
        id: Id of the job or the batch.
        row: The job's row, or None for a batch.
        tree: The tree's row where it is a root and that is known.
        parent: The node above, or None for a root.
        children: The nodes below, in the order of their admission.
        depth: Nodes above it.
        counts: Jobs at and below it by state, as `state_of` returns it.
        asking: How many of them ask for a permission.
        cost: What they cost, in US dollars, running attempts included.
        is_folded: Whether the nodes below it are hidden.
    """

    id: str
    row: Row | None = None
    tree: Row | None = None
    parent: "Node | None" = None
    children: "list[Node]" = field(default_factory=list)
    depth: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    asking: int = 0
    cost: float = 0.0
    is_folded: bool = False

    @property
    def total(self) -> int:
        """Number of jobs at and below it."""
        return sum(self.counts.values())

    @property
    def live(self) -> int:
        """Number of jobs at and below it that are not over."""
        return sum(self.counts.get(state, 0) for state in LIVE_STATES)

    def failures(self) -> Mapping[str, int]:
        """Return how many jobs at and below it a retry runs again, by state."""
        return {state: count for state in RETRIED if (count := self.counts.get(state))}

    @property
    def is_paused(self) -> bool:
        """Whether a person or a job has paused it, or what is above it."""
        return bool((self.row or self.tree or {}).get("paused"))

    def dependents(self) -> "list[Node]":
        """Return the jobs beside it that are cancelled with it: those that depend on it, or on one of these."""
        beside = [] if self.parent is None else [one for one in self.parent.children if one.live]
        found = {self.id: self}
        while more := [one for one in beside if one.id not in found and one.depends_on_any(found)]:
            found.update((one.id, one) for one in more)
        return list(found.values())[1:]

    def depends_on_any(self, job_ids: Container[str]) -> bool:
        """Tell whether it waits for one of these jobs of its batch."""
        return any(one in job_ids for one in (self.row or {}).get("dependsOn", ()))

    def own_cost(self) -> float:
        """Return what the job itself cost, its running attempt included."""
        return 0.0 if self.row is None else float(self.row.get("costUsd", 0.0))

    def times(self) -> tuple[float | None, float | None]:
        """Return when it began and when it ended, in seconds since the epoch; None where it has not."""
        if self.row is not None:
            return self.row.get("startedAt"), self.row.get("endedAt")
        began = [one.row["createdAt"] for one in self.children if one.row is not None and "createdAt" in one.row]
        if self.live or not began:
            return min(began, default=None), None
        ended = [one.row.get("endedAt", 0.0) for one in self.walk() if one.row is not None]
        return min(began), max(ended)

    def walk(self) -> "Iterator[Node]":
        """Yield it and everything below it, parents first."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))


class JobTable:
    """All nodes, and those that are visible.

    Args:
        under: Id of the job or batch whose subtree alone is shown, or None for every tree.

    Attributes:
        visible: The nodes that have a line, from top to bottom.
        is_complete: Whether everything that there is has arrived.
        pauses: Until when accounts are paused, and why.
        is_all_paused: Whether somebody has paused everything.
    """

    def __init__(self, under: str | None = None) -> None:
        self.visible: Sequence[Node] = ()
        self.is_complete = False
        self.pauses: Sequence[Row] = ()
        self.is_all_paused = False
        self._under = under
        self._rows: dict[str, Row] = {}
        self._trees: dict[str, Row] = {}
        self._nodes: dict[str, Node] = {}
        self._roots: list[Node] = []
        self._lines: dict[str, int] = {}
        self._folded: dict[str, bool] = {}
        self._matches: Matches | None = None
        self._first_match: str | None = None
        self._changed: list[str] = []
        self._is_new = False

    def apply(self, page: Row) -> None:
        """Take in a page of the feed; `arrange` shows it.

        Args:
            page: As `FeedWatch.page` returns it.
        """
        if page["reset"]:
            self._rows.clear()
            self._trees.clear()
        for row in page["jobs"]:
            self._is_new |= row["jobId"] not in self._nodes
            self._changed.append(row["jobId"])
            self._rows[row["jobId"]] = row
        self._is_new |= bool(page["reset"] or page["gone"] or page["more"] or not self.is_complete)
        self._trees.update((row["rootId"], row) for row in page["trees"])
        for root_id in page["gone"]:
            self._trees.pop(root_id, None)
            self._rows = {name: row for name, row in self._rows.items() if row["rootId"] != root_id}
        self.pauses = page["pauses"]
        self.is_all_paused = page.get("allPaused", False)
        self.is_complete = not page["more"]

    def arrange(self) -> None:
        """Show the rows that have arrived: new jobs build the tree again, others change what is above them."""
        changed, self._changed = dict.fromkeys(self._changed), []
        if self._is_new:
            self._build()
        else:
            for job_id in changed:
                self._replace(self._nodes[job_id], self._rows[job_id])
            for root in self._roots:
                root.tree = self._trees.get(root.id)
            if self._matches is not None:
                self.choose()

    def _replace(self, node: Node, row: Row) -> None:
        """Give a node its new row, and everything above it the difference."""
        assert node.row is not None
        before, cost, asked = state_of(node.row), node.own_cost(), _asks(node)
        node.row = row
        state, more, asks = state_of(row), node.own_cost() - cost, _asks(node) - asked
        above: Node | None = node
        while above is not None:
            above.counts[before] -= 1
            above.counts[state] = above.counts.get(state, 0) + 1
            above.cost += more
            above.asking += asks
            above = above.parent

    def _build(self) -> None:
        self._is_new = False
        ordered = sorted(self._rows.values(), key=lambda row: row.get("order", 0))
        self._nodes = {}
        self._roots = []
        for row in ordered:
            self._add(row)
        for row in reversed(ordered):
            self._carry(self._nodes[row["jobId"]])
        for root in self._roots:
            root.tree = self._trees.get(root.id)
            if root.row is None:
                self._sum_up(root)
        # The newest tree is on top; a row never moves while it is there.
        self._roots.reverse()
        self._fold_what_is_over()
        self.choose()

    def _add(self, row: Row) -> None:
        node = Node(row["jobId"], row)
        parent = self._nodes.get(row.get("parentJobId", "")) or self._batch_root(row)
        self._nodes[node.id] = node
        if parent is None:
            self._roots.append(node)
        else:
            node.parent, node.depth = parent, parent.depth + 1
            parent.children.append(node)

    def _batch_root(self, row: Row) -> Node | None:
        root_id = row["rootId"]
        if root_id == row["jobId"] or row.get("parentJobId"):
            return None
        if root_id not in self._nodes:
            self._nodes[root_id] = Node(root_id)
            self._roots.append(self._nodes[root_id])
        return self._nodes[root_id]

    def _carry(self, node: Node) -> None:
        """Add up a node whose children are added up already."""
        assert node.row is not None
        self._sum_up(node)
        state = state_of(node.row)
        node.counts[state] = node.counts.get(state, 0) + 1
        node.asking += node.row.get("waitingFor") == "permission"
        node.cost += node.own_cost()

    def _sum_up(self, node: Node) -> None:
        for child in node.children:
            for state, count in child.counts.items():
                node.counts[state] = node.counts.get(state, 0) + count
            node.asking += child.asking
            node.cost += child.cost

    def _fold_what_is_over(self) -> None:
        """Fold trees that were over when they were first seen; where all are, the newest one stays open."""
        if self.is_complete:
            any_live = any(root.live for root in self._roots)
            for index, root in enumerate(self._roots):
                is_shown = root.live or self._under is not None or (index == 0 and not any_live)
                self._folded.setdefault(root.id, not is_shown)
        for node in self._nodes.values():
            node.is_folded = self._folded.get(node.id, False)

    def choose(self) -> None:
        """Choose what is visible by what is folded and by the filter."""
        self.visible = list(self._found() if self._matches is not None else self._unfolded())
        self._lines = {node.id: line for line, node in enumerate(self.visible)}

    def _tops(self) -> Sequence[Node]:
        if self._under is None:
            return self._roots
        found = self._nodes.get(self._under)
        if found is not None:
            return [found]
        # A batch that a job submitted is no node: its jobs are.
        return [node for node in self._nodes.values() if node.row is not None and node.row["batchId"] == self._under]

    def _unfolded(self) -> Iterator[Node]:
        pending = [*reversed(self._tops())]
        while pending:
            node = pending.pop()
            yield node
            if not node.is_folded:
                pending.extend(reversed(node.children))

    def _found(self) -> Iterator[Node]:
        assert self._matches is not None
        shown: set[str] = set()
        self._first_match = None
        everything = [node for top in self._tops() for node in top.walk()]
        for node in everything:
            above: Node | None = node if node.row is not None and self._matches(node.row, node.cost) else None
            if above is not None and self._first_match is None:
                self._first_match = node.id
            while above is not None and above.id not in shown:
                shown.add(above.id)
                above = above.parent
        return (node for node in everything if node.id in shown)

    def filter(self, matches: Matches | None) -> None:
        """Show only the rows that match and what is above them; None shows all."""
        self._matches = matches
        self.choose()

    def first_match(self) -> int | None:
        """Return the line of the first node that the filter matches; None without a filter, and where none does."""
        return None if self._first_match is None or self._matches is None else self._lines.get(self._first_match)

    def fold(self, node: Node, folded: bool) -> None:
        """Hide or show what is below a node."""
        self._folded[node.id] = node.is_folded = folded
        self.choose()

    def line_of(self, identity: str) -> int | None:
        """Return the line of a node, or of the nearest visible one above it; None where there is none."""
        node = self._nodes.get(identity)
        while node is not None:
            if node.id in self._lines:
                return self._lines[node.id]
            node = node.parent
        return None

    def node(self, identity: str) -> Node | None:
        """Return a node, or None."""
        return self._nodes.get(identity)

    def tops(self) -> Iterable[Node]:
        """Return the nodes at the top of what is shown."""
        return self._tops()

    def asking(self) -> Node | None:
        """Return the first job that asks for a permission, or None."""
        for top in self._tops():
            if top.asking:
                return next((node for node in top.walk() if _asks(node)), None)
        return None


def _asks(node: Node) -> bool:
    return node.row is not None and node.row.get("waitingFor") == "permission"


def added_up(nodes: Iterable[Node]) -> tuple[dict[str, int], float]:
    """Return how many jobs of some subtrees are in each state, and what all of them cost in US dollars."""
    shown = list(nodes)
    counts = {state: sum(node.counts.get(state, 0) for node in shown) for state in STATES}
    return {state: count for state, count in counts.items() if count}, sum(node.cost for node in shown)
