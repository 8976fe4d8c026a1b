"""Subtrees in memory: their sums, updated from a changed job up to the root, and the jobs of a batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

from jobs.model import LIVE, TERMINAL, Job, JobStatus, Rollup, Usage

_PLACES = {status: place for place, status in enumerate(JobStatus)}
_LIVE_PLACES = tuple(_PLACES[status] for status in LIVE)


@dataclass(slots=True, eq=False)
class Node:
    """A job, or a batch that began a tree, with the sums of everything at and below it.

    `charged` and `below` are what its budget has to carry: a live job with a budget counts above it with all of that.
    `share` and `room` are what the node counts with in the two sums of its parent.
    """

    path: str
    parent: "Node | None"
    job: Job | None
    batch: "BatchJobs | None" = None
    place: int = 0
    children: "list[Node]" = field(default_factory=list)
    counts: list[int] = field(default_factory=lambda: [0] * len(_PLACES))
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0
    deepest: int = 0
    own_running: float = 0.0
    running: float = 0.0
    charged: float = 0.0
    below: int = 0
    share: float = 0.0
    room: int = 0

    @property
    def live(self) -> int:
        """How many jobs at and below it are queued or running."""
        return sum(self.counts[place] for place in _LIVE_PLACES)

    def claims(self) -> tuple[float, int]:
        """Return what it adds to `charged` and `below` of its parent."""
        if self.job is None:
            return self.charged, self.below
        budget, room = (self.job.spec.max_budget_usd or 0.0, self.job.spec.max_jobs or 0) if self.live else (0.0, 0)
        return max(self.charged, budget), 1 + max(self.below, room)

    def rollup(self) -> Rollup:
        """Return its sums."""
        return rollup_of((self,))

    def walk(self) -> "Iterator[Node]":
        """Yield it and everything below it, in no order."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(node.children)

    def carry(self, before: Job | None, now: Job, *, running: float = 0.0) -> None:
        """Add a change of its job to its own sums and to those of every node above it.

        Args:
            before: The job before the change, or None for a new one.
            now: The job.
            running: By how many US dollars more is known of what a running attempt cost.
        """
        old, new = Usage() if before is None else before.usage, now.usage
        cost = new.cost_usd - old.cost_usd
        charged, below = cost + running, 0
        if self.batch is not None:
            self.batch.mark(self.place, over=now.status in TERMINAL)
        at: Node | None = self
        while at is not None:
            if before is not None:
                at.counts[_PLACES[before.status]] -= 1
            at.counts[_PLACES[now.status]] += 1
            at.cost += cost
            at.input_tokens += new.input_tokens - old.input_tokens
            at.output_tokens += new.output_tokens - old.output_tokens
            at.turns += new.turns - old.turns
            at.running += running
            at.deepest = max(at.deepest, now.depth)
            at.charged += charged
            at.below += below
            share, room = at.claims()
            charged, below = share - at.share, room - at.room
            at.share, at.room = share, room
            at = at.parent


class BatchJobs(Sequence[Job]):
    """The jobs of a batch in the order of their submission, each as it is at the moment when it is asked for.

    Args:
        id: The batch.
        root_id: Its tree.
    """

    def __init__(self, id: str, root_id: str) -> None:  # noqa: A002 - as a batch calls it
        self.id = id
        self.root_id = root_id
        self.over = 0
        self._nodes: list[Node] = []
        self._places: dict[str, int] = {}

    def add(self, node: Node) -> None:
        """Append a job."""
        node.batch, node.place = self, len(self._nodes)
        self._places[_job_of(node).id] = node.place
        self._nodes.append(node)

    def bit(self, job_id: str) -> int:
        """Return the bit of a job of the batch."""
        return 1 << self._places[job_id]

    def mark(self, place: int, *, over: bool) -> None:
        """Note whether the job at a place is over."""
        self.over = self.over | 1 << place if over else self.over & ~(1 << place)

    @property
    def open(self) -> int:
        """One bit for each job that is not over, as `over` has one for each that is; the first job's is the lowest."""
        return (1 << len(self._nodes)) - 1 & ~self.over

    def rollup(self) -> Rollup:
        """Sum up its jobs and everything below them."""
        return rollup_of(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @overload
    def __getitem__(self, index: int) -> Job: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Job]: ...

    def __getitem__(self, index: int | slice) -> Job | Sequence[Job]:
        if isinstance(index, slice):
            return [_job_of(node) for node in self._nodes[index]]
        return _job_of(self._nodes[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # its jobs change


def rollup_of(nodes: Iterable[Node]) -> Rollup:
    """Sum up subtrees that do not overlap."""
    counts, costs, tokens_in, tokens_out, turns, deepest = [0] * len(_PLACES), 0.0, 0, 0, 0, 0
    for node in nodes:
        counts = [one + other for one, other in zip(counts, node.counts, strict=True)]
        costs += node.cost
        tokens_in += node.input_tokens
        tokens_out += node.output_tokens
        turns += node.turns
        deepest = max(deepest, node.deepest)
    return Rollup(
        counts={status: counts[place] for status, place in _PLACES.items() if counts[place]},
        usage=Usage(cost_usd=costs, input_tokens=tokens_in, output_tokens=tokens_out, turns=turns),
        deepest=deepest,
    )


def _job_of(node: Node) -> Job:
    assert node.job is not None, "only jobs are in a batch"
    return node.job
