"""Sums of a tree and of everything below each of its jobs, kept up to date: a change costs as much as it is deep."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.model import LIVE, Job, JobStatus, Usage
from jobs.waiting_for import WaitingFor

_STATUSES: Final = tuple(JobStatus)
_PLACES: Final = {status: place for place, status in enumerate(_STATUSES)}
_LIVE_PLACES: Final = tuple(_PLACES[status] for status in LIVE)


@dataclass(frozen=True, slots=True)
class _Share:
    """What one job adds to the sums above it."""

    place: int
    asks: bool
    usage: Usage


@dataclass(slots=True)
class Totals:
    """Sums over jobs.

    Attributes:
        counts: Number of jobs, by the place of their status in `JobStatus`.
        asking: How many of them wait for a permission.
        cost_usd: US dollars, running attempts included.
        input_tokens: Tokens read.
        output_tokens: Tokens written.
    """

    counts: list[int] = field(default_factory=([0] * len(_STATUSES)).copy)
    asking: int = 0
    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def jobs(self) -> int:
        """Number of jobs."""
        return sum(self.counts)

    @property
    def live(self) -> int:
        """Number of jobs that are queued or running."""
        return sum(self.counts[place] for place in _LIVE_PLACES)

    def change(self, before: _Share | None, now: _Share) -> None:
        """Count a job as it is now, and no more as it was."""
        old = Usage() if before is None else before.usage
        if before is not None:
            self.counts[before.place] -= 1
            self.asking -= before.asks
        self.counts[now.place] += 1
        self.asking += now.asks
        self.cost_usd += now.usage.cost_usd - old.cost_usd
        self.input_tokens += now.usage.input_tokens - old.input_tokens
        self.output_tokens += now.usage.output_tokens - old.output_tokens

    def as_row(self) -> dict[str, Any]:
        """Return the sums as a row has them; a status without jobs is left out."""
        return {
            "counts": {str(_STATUSES[place]): count for place, count in enumerate(self.counts) if count},
            "asking": self.asking,
            # What is added and taken away again may be slightly below zero.
            "costUsd": round(max(0.0, self.cost_usd), 6),
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
        }


@dataclass(slots=True, eq=False)
class SumNode:
    """A job, or the batch at the root of a tree.

    Attributes:
        id: Id of the job or the batch.
        above: The node above, or None for the root.
        children: Number of jobs right below it.
        below: Sums over all that is below it, or None where nothing is.
    """

    id: str
    above: "SumNode | None"
    children: int = 0
    below: Totals | None = None
    share: _Share | None = None


class TreeSums:
    """Sums of one tree.

    Args:
        root_id: Its root.

    Attributes:
        totals: Sums over the whole tree.
        deepest: Depth of its deepest job.
        ended_at: Seconds since the epoch at which a job of it ended last; 0 where none has.
        first: The root job, or the first job of the batch that is the root, as far as it is known.
    """

    def __init__(self, root_id: str) -> None:
        self._root = SumNode(root_id, None)
        self._nodes: dict[str, SumNode] = {root_id: self._root}
        self.totals = Totals()
        self.deepest = 0
        self.ended_at = 0.0
        self.first: Job | None = None

    @property
    def children(self) -> int:
        """Number of jobs right below the root."""
        return self._root.children

    def put(self, job: Job, running: Usage | None = None) -> Sequence[SumNode]:
        """Count a job as it is now, and return the nodes above it whose sums changed by that, the nearest first.

        Args:
            job: The job.
            running: What its running attempt has used so far, or None where that is not known.
        """
        usage = job.usage if running is None else job.usage + running
        asks = job.waiting_for is WaitingFor.PERMISSION and job.status in LIVE
        now = _Share(_PLACES[job.status], asks, usage)
        node = self.node(job)
        before = node.share
        if now == before:
            return ()
        self._note(job)
        node.share = now
        self.totals.change(before, now)
        if before is None and node.above is not None:
            node.above.children += 1
        changed = []
        at = node.above
        while at is not None:
            at.below = at.below or Totals()
            at.below.change(before, now)
            changed.append(at)
            at = at.above
        return changed

    def node(self, job: Job) -> SumNode:
        """Return the node of a job, made with those above it where they are not there."""
        if (known := self._nodes.get(job.id)) is not None:
            return known
        root_id, *ids = job.path.split("/")
        node = self._nodes[root_id]
        for id_ in ids:
            if id_ not in self._nodes:
                self._nodes[id_] = SumNode(id_, node)
            node = self._nodes[id_]
        return node

    def _note(self, job: Job) -> None:
        self.deepest = max(self.deepest, job.depth)
        # A job that is tried again ends later than it did.
        self.ended_at = max(self.ended_at, job.ended_at or 0.0)
        first = self.first
        if first is None or job.id == first.id or (job.depth, job.seq) < (first.depth, first.seq):
            self.first = job
