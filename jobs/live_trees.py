"""In-memory index of the live trees: each job as last committed, and the sums of every subtree."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from jobs.ids import contains
from jobs.model import LIVE, Batch, Job, JobStatus, Rollup, Tree
from jobs.subtree import BatchJobs, Node

KEPT_JOBS = 1000
"""Jobs of trees that are over and stay in memory: callers that waited for a tree read it once more after its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a submission takes of the budgets above it until its jobs are committed.

    Args:
        path: Path below which the new jobs will be.
        usd_holder: Path of the nearest budget of US dollars above them, or None.
        usd: US dollars that they ask for.
        jobs_holder: Path of the nearest budget of jobs above them, or None.
        rooms: Number of the new jobs and of those that they may spawn.
        count: Number of the new jobs.
    """

    path: str
    usd_holder: str | None
    usd: float
    jobs_holder: str | None
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
        self._lock = threading.Lock()

    def enter(self, tree: Tree, jobs: Iterable[Job], batch: Batch | None = None) -> None:
        """Add a tree, its jobs in order of admission; one that is known is left as it is."""
        if tree.id in self._roots:
            return
        with self._lock:
            self._roots[tree.id] = _Root(tree, Node(tree.id, None, None))
            self._add(jobs, batch)
        self._note_end(tree.id)

    def admit(self, jobs: Sequence[Job], batch: Batch) -> None:
        """Add a batch of a tree that is known, in the place of its reservation; do nothing in another tree."""
        root = self._roots.get(batch.root_id)
        if root is None:
            return
        with self._lock:
            self._reserved.pop(batch.id, None)
            self._add(jobs, batch)
        self._note_end(batch.root_id)

    def put(self, job: Job) -> None:
        """Replace a job by its present state; do nothing where its tree is not known."""
        node = self._nodes.get(job.id)
        if node is None or node.job is None:
            return
        with self._lock:
            before, node.job = node.job, job
            settled = node.own_running if not _same_run(before, job) else 0.0
            node.own_running -= settled
            node.carry(before, job, running=-settled)
            self._mark(node, job)
        self._note_end(job.root_id)

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

    def line(self, job: Job) -> Sequence[Job]:
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

    def note_cost(self, job_id: str, attempt: int, cost_usd: float) -> bool:
        """Record the US dollars that a running attempt has cost so far, and tell whether the sum changed."""
        node = self._nodes.get(job_id)
        if node is None or node.job is None or node.job.status is not JobStatus.RUNNING:
            return False
        if node.job.attempt != attempt or node.own_running == cost_usd:
            return False
        with self._lock:
            more, node.own_running = cost_usd - node.own_running, cost_usd
            node.carry(node.job, node.job, running=more)
        return True

    # Budgets: the methods below may be called on the store's thread, which checks a spawn inside its transaction.

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Keep every sum as it is while the block lasts; the event loop waits, so make it short."""
        with self._lock:
            yield

    def reserve(self, batch_id: str, reservation: Reservation) -> None:
        """Count what a submission takes until it is admitted or released; call it inside `steady`."""
        self._reserved[batch_id] = reservation

    def unreserve(self, batch_id: str) -> None:
        """Forget the reservation of a submission, if it still has one; call it inside `steady`."""
        self._reserved.pop(batch_id, None)

    def release(self, batch_id: str) -> None:
        """Forget the reservation of a submission, if it still has one."""
        with self._lock:
            self.unreserve(batch_id)

    def spent(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, running attempts included."""
        node = self._at(path)
        return 0.0 if node is None else node.cost + node.running

    def charged(self, path: str) -> float:
        """Return the US dollars that a subtree has cost, and what the budgets inside it reserve beyond that."""
        node = self._at(path)
        asked = sum(one.usd for one in tuple(self._reserved.values()) if one.usd_holder == path)
        return asked if node is None else node.charged + asked

    def jobs(self, path: str) -> int:
        """Return how many jobs there are or may come below a path."""
        node = self._at(path)
        asked = sum(one.rooms for one in tuple(self._reserved.values()) if one.jobs_holder == path)
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
            self._batches[job.batch_id].add(node)
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


def _same_run(before: Job, now: Job) -> bool:
    return before.status is now.status is JobStatus.RUNNING and before.attempt == now.attempt
