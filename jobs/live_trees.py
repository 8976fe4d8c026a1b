"""In-memory index of the live trees: each job as last committed, and the sums of every subtree."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import overload

from jobs.ids import contains
from jobs.model import LIVE, TERMINAL, Batch, Job, JobStatus, Rollup, Tree, Usage

KEPT_JOBS = 1000
"""Jobs of trees that are over and stay in memory: callers that waited for a tree read it once more after its end."""

NOTHING = Usage()

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
    counts: list[int] = field(default_factory=([0] * len(_PLACES)).copy)
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0
    deepest: int = 0
    own_running: Usage = NOTHING
    running: float = 0.0
    running_input: int = 0
    running_output: int = 0
    running_turns: int = 0
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

    def carry(self, before: Job | None, now: Job, *, running: Usage = NOTHING) -> None:
        """Add a change of its job to its own sums and to those of every node above it.

        Args:
            before: The job before the change, or None for a new one.
            now: The job.
            running: By how much more is known of what a running attempt consumed.
        """
        old, new = Usage() if before is None else before.usage, now.usage
        cost = new.cost_usd - old.cost_usd
        charged, below = cost + running.cost_usd, 0
        if self.batch is not None:
            bit = 1 << self.place
            self.batch.over = self.batch.over | bit if now.status in TERMINAL else self.batch.over & ~bit
        at: Node | None = self
        while at is not None:
            if before is not None:
                at.counts[_PLACES[before.status]] -= 1
            at.counts[_PLACES[now.status]] += 1
            at.cost += cost
            at.input_tokens += new.input_tokens - old.input_tokens
            at.output_tokens += new.output_tokens - old.output_tokens
            at.turns += new.turns - old.turns
            at.running += running.cost_usd
            at.running_input += running.input_tokens
            at.running_output += running.output_tokens
            at.running_turns += running.turns
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
        self._positions: dict[str, int] = {}

    def add(self, node: Node, job: Job) -> None:
        """Append a job."""
        node.batch, node.place = self, len(self._nodes)
        self._positions[job.id] = node.place
        self._nodes.append(node)

    def bit(self, job_id: str) -> int:
        """Return the bit of a job of the batch."""
        return 1 << self._positions[job_id]

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
    running = NOTHING
    for node in nodes:
        counts = [one + other for one, other in zip(counts, node.counts, strict=True)]
        costs += node.cost
        tokens_in += node.input_tokens
        tokens_out += node.output_tokens
        turns += node.turns
        deepest = max(deepest, node.deepest)
        running += Usage(
            # Sums of what is added and taken away again may be slightly below zero.
            cost_usd=max(0.0, node.running),
            input_tokens=node.running_input,
            output_tokens=node.running_output,
            turns=node.running_turns,
        )
    return Rollup(
        counts={status: counts[place] for status, place in _PLACES.items() if counts[place]},
        usage=Usage(cost_usd=costs, input_tokens=tokens_in, output_tokens=tokens_out, turns=turns),
        deepest=deepest,
        running=running,
    )


def _job_of(node: Node) -> Job:
    assert node.job is not None, "only jobs are in a batch"
    return node.job


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a submission takes of the budgets above it until its jobs are committed.

    Args:
        path: Path below which the new jobs will be.
        usd_owner: Path of the nearest budget of US dollars above them, or None.
        usd: US dollars that they ask for.
        jobs_owner: Path of the nearest budget of jobs above them, or None.
        rooms: Number of the new jobs and of those that they may spawn.
        count: Number of the new jobs.
    """

    path: str
    usd_owner: str | None
    usd: float
    jobs_owner: str | None
    rooms: int
    count: int


@dataclass(slots=True, eq=False)
class _Root:
    tree: Tree
    node: Node
    batches: set[str] = field(default_factory=set)


class LiveTrees:
    """Live trees, in which a job is queued or running, and the trees that ended last.

    A change of a job costs the depth of its tree, and so does every question but those that return many jobs. It is
    changed on the event loop, as transactions are committed; the sums of budgets may be asked from another thread.

    Attributes:
        subtree_slots: By path, how many jobs of a subtree may run at once; only where a job has such a limit.
        lock: While it is held, every sum stays as it is; the event loop waits for it, so hold it for a moment only.
    """

    def __init__(self) -> None:
        self._roots: dict[str, _Root] = {}
        self._nodes: dict[str, Node] = {}
        self._live: dict[str, Node] = {}
        self._batches: dict[str, BatchJobs] = {}
        self._batch_values: dict[str, Batch] = {}
        self._over: OrderedDict[str, int] = OrderedDict()
        self._over_jobs = 0
        self._held: Counter[str] = Counter()
        self._reserved: dict[str, Reservation] = {}
        self.subtree_slots: dict[str, int] = {}
        self.lock = threading.Lock()

    def enter(self, tree: Tree, jobs: Iterable[Job], batch: Batch | None = None) -> None:
        """Add a tree, its jobs in order of admission; one that is known is left as it is."""
        if tree.id in self._roots:
            return
        with self.lock:
            self._roots[tree.id] = _Root(tree, Node(tree.id, None, None))
            self._add(jobs, batch)
        self._note_end(tree.id)

    def admit(self, jobs: Sequence[Job], batch: Batch) -> None:
        """Add a batch of a tree that is known, in the place of its reservation; do nothing in another tree."""
        root = self._roots.get(batch.root_id)
        if root is None:
            return
        with self.lock:
            self._reserved.pop(batch.id, None)
            self._add(jobs, batch)
        self._note_end(batch.root_id)

    def put(self, job: Job) -> None:
        """Replace a job by its present state; do nothing where its tree is not known."""
        node = self._nodes.get(job.id)
        if node is None or node.job is None:
            return
        with self.lock:
            before, node.job = node.job, job
            if job.spec is not before.spec:
                self._note_slots(job)
            goes_on = before.status is job.status is JobStatus.RUNNING and before.attempt == job.attempt
            settled = NOTHING if goes_on else node.own_running
            node.own_running = node.own_running if goes_on else NOTHING
            node.carry(before, job, running=NOTHING if settled is NOTHING else NOTHING - settled)
            self._mark(node, job)
        self._note_end(job.root_id)

    def limit(self, tree: Tree) -> None:
        """Replace a tree, whose limits have changed; do nothing where it is not known."""
        if tree.id in self._roots:
            self._roots[tree.id].tree = tree

    def forget(self, root_id: str) -> None:
        """Drop a tree."""
        self._over_jobs -= self._over.pop(root_id, 0)
        root = self._roots.pop(root_id, None)
        if root is None:
            return
        for node in root.node.walk():
            if node.job is not None:
                self._nodes.pop(node.job.id, None)
                self._live.pop(node.job.id, None)
                self.subtree_slots.pop(node.job.path, None)
        for batch_id in root.batches:
            self._batches.pop(batch_id, None)
            self._batch_values.pop(batch_id, None)

    @contextmanager
    def held(self, root_id: str) -> Iterator[None]:
        """Keep a tree in memory while the block lasts, also where it is over."""
        self._held[root_id] += 1
        # Other trees that end meanwhile must not drop it.
        self._over_jobs -= self._over.pop(root_id, 0)
        try:
            yield
        finally:
            self._held[root_id] -= 1
            if not self._held[root_id]:
                del self._held[root_id]
                self._note_end(root_id)

    def __contains__(self, root_id: object) -> bool:
        """Tell whether a tree is known."""
        return root_id in self._roots

    def job(self, job_id: str) -> Job | None:
        """Return a job, or None where it is not known."""
        node = self._nodes.get(job_id)
        return None if node is None else node.job

    def tree(self, root_id: str) -> Tree | None:
        """Return a tree, or None where it is not known."""
        root = self._roots.get(root_id)
        return None if root is None else root.tree

    def batch(self, batch_id: str) -> Batch | None:
        """Return a batch, or None where it is not known."""
        return self._batch_values.get(batch_id)

    def in_batch(self, batch_id: str) -> BatchJobs | None:
        """Return a batch's jobs in the order of their submission, or None where it is not known."""
        return self._batches.get(batch_id)

    def under(self, path: str) -> Sequence[Job] | None:
        """Return every job at or below a path in order of admission, or None where it is not known."""
        node = self._at(path)
        if node is None:
            return None
        return sorted((one.job for one in node.walk() if one.job is not None), key=lambda job: job.seq)

    def live_under(self, path: str) -> Iterator[Job]:
        """Yield every queued or running job at or below a path, in no order; none where it is not known."""
        node = self._at(path)
        for one in () if node is None else node.walk():
            if one.job is not None and one.job.status in LIVE:
                yield one.job

    def ancestry(self, job: Job) -> Sequence[Job]:
        """Return a job and its ancestors, the root first; only the job where its tree is not known."""
        node = self._nodes.get(job.id)
        found: list[Job] = []
        while node is not None:
            if node.job is not None:
                found.append(node.job)
            node = node.parent
        return found[::-1] or [job]

    def live(self) -> Sequence[Job]:
        """Return every job that is queued or running, in order of admission."""
        return sorted((node.job for node in self._live.values() if node.job is not None), key=lambda job: job.seq)

    def any_live(self) -> bool:
        """Tell whether a job is queued or running."""
        return bool(self._live)

    def lives(self, path: str) -> bool:
        """Tell whether a job at or below a path is queued or running; with no path, any job."""
        if not path:
            return self.any_live()
        node = self._at(path)
        return node is not None and node.live > 0

    def rollup(self, path: str) -> Rollup | None:
        """Sum up a subtree, or return None where it is not known."""
        node = self._at(path)
        return None if node is None else node.rollup()

    def rollup_batch(self, batch_id: str) -> Rollup | None:
        """Sum up a batch and everything below it, or return None where it is not known."""
        root = self._roots.get(batch_id)
        if root is not None and root.node.job is None:
            return root.node.rollup()
        jobs = self._batches.get(batch_id)
        return None if jobs is None else jobs.rollup()

    def note_usage(self, job_id: str, attempt: int, usage: Usage) -> bool:
        """Record what a running attempt has consumed so far, and tell whether that changed."""
        node = self._nodes.get(job_id)
        if node is None or node.job is None or node.job.status is not JobStatus.RUNNING:
            return False
        if node.job.attempt != attempt or node.own_running == usage:
            return False
        with self.lock:
            more, node.own_running = usage - node.own_running, usage
            node.carry(node.job, node.job, running=more)
        return True

    def running_usage(self) -> Usage:
        """Return what all running attempts have consumed so far."""
        return rollup_of(root.node for root in self._roots.values() if root.node.live).running

    # Budgets: the methods below may be called on the store's thread, which checks a spawn inside its transaction.

    def reserve(self, batch_id: str, reservation: Reservation | None) -> None:
        """Count what a submission takes until it is admitted, or from now on nothing; call it with the lock held."""
        if reservation is None:
            self._reserved.pop(batch_id, None)
        else:
            self._reserved[batch_id] = reservation

    def spent(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, running attempts included."""
        node = self._at(path)
        return 0.0 if node is None else node.cost + node.running

    def charged(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, and what the budgets inside it reserve beyond that."""
        node = self._at(path)
        asked = sum(one.usd for one in tuple(self._reserved.values()) if one.usd_owner == path)
        return asked if node is None else node.charged + asked

    def jobs(self, path: str) -> int:
        """Return how many jobs there are or may come below a path."""
        node = self._at(path)
        asked = sum(one.rooms for one in tuple(self._reserved.values()) if one.jobs_owner == path)
        return asked if node is None else node.below + asked

    def present(self, path: str) -> int:
        """Return how many jobs there are below a path."""
        node = self._at(path)
        asked = sum(one.count for one in tuple(self._reserved.values()) if contains(path, one.path))
        return asked if node is None else sum(node.counts) - (node.job is not None) + asked

    def _at(self, path: str) -> Node | None:
        name = path.rpartition("/")[2]
        root = self._roots.get(name)
        node = self._nodes.get(name) if root is None else root.node
        return node if node is not None and node.path == path else None

    def _add(self, jobs: Iterable[Job], batch: Batch | None) -> None:
        if batch is not None:
            self._batch_values[batch.id] = batch
        for job in jobs:
            root = self._roots[job.root_id]
            node = self._new_node(root, job)
            self._nodes[job.id] = node
            root.batches.add(job.batch_id)
            if job.batch_id not in self._batches:
                self._batches[job.batch_id] = BatchJobs(job.batch_id, job.root_id)
            self._batches[job.batch_id].add(node, job)
            self._note_slots(job)
            node.carry(None, job)
            self._mark(node, job)

    def _new_node(self, root: _Root, job: Job) -> Node:
        if job.path == root.node.path:
            # The job is the root itself.
            root.node.job = job
            return root.node
        above = job.path.rpartition("/")[0].rpartition("/")[2]
        parent = self._nodes.get(above) or root.node
        node = Node(job.path, parent, job)
        parent.children.append(node)
        return node

    def _note_slots(self, job: Job) -> None:
        if job.spec.subtree_slots is not None:
            self.subtree_slots[job.path] = job.spec.subtree_slots

    def _mark(self, node: Node, job: Job) -> None:
        if job.status in LIVE:
            self._live[job.id] = node
        else:
            self._live.pop(job.id, None)

    def _note_end(self, root_id: str) -> None:
        root = self._roots.get(root_id)
        if root is None or root_id in self._held:
            return
        self._over_jobs -= self._over.pop(root_id, 0)
        if root.node.live:
            return
        self._over[root_id] = size = sum(root.node.counts)
        self._over_jobs += size
        while self._over_jobs > KEPT_JOBS:
            self.forget(next(iter(self._over)))
