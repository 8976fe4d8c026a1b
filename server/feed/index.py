"""The index of the job feed: each job as it was last announced, in the order of the changes."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import anyio

from jobs.activity import Activity
from jobs.event_bus import JobEventBus, PauseChange
from jobs.limits.throttle import Pause
from jobs.model import LIVE, Job, JobStatus
from jobs.paused import EVERYTHING, PausedPaths
from jobs.ports import Clock, Store
from jobs.waiting_for import Wait
from server.feed.entries import ChangeOrder, EndedTrees, Entry, KnownTree, Said
from server.feed.scope import FeedScope
from server.feed.sums import TreeSums
from server.feed.times import WaitsOf

PAGE_ROWS: Final = 250
"""Most rows of one page. Building one takes 15 µs, for which the engine does nothing else."""

ENDED_JOBS: Final = 1000
"""Jobs of trees that are over which the feed keeps; the tree that ended last is kept however large it is."""

GONE_TREES: Final = 1000
"""Trees that were dropped and are remembered for watchers that have not been told yet."""

PAGE_SECONDS: Final = 1.0
"""Least seconds between two pages with changes for one watcher."""

QUEUED_LOOKS: Final = 200
"""Queued jobs whose wait is looked up again each second: nothing announces why a job waits for a slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSources:
    """What the feed reads.

    Args:
        store: Where trees are kept.
        event_bus: Where changes of jobs are announced.
        wait_of: Returns what a job waits for, or None.
        activity_of: Returns what a job does now, or None where no attempt of it runs.
        paused_paths: What a person or a job has paused.
        waits_of: Returns the waits of the running attempt of a job so far.
        pauses: Returns until when accounts are paused, and why.
        clock: Time.
    """

    store: Store
    event_bus: JobEventBus
    wait_of: Callable[[Job], Wait | None]
    activity_of: Callable[[Job], Activity | None]
    paused_paths: PausedPaths
    waits_of: WaitsOf
    pauses: Callable[[], Sequence[Pause]]
    clock: Clock

    def to_say(self, job: Job) -> Said:
        """Return what nothing announces of a job."""
        return Said(self.wait_of(job), job.status in LIVE and self.paused_paths.holds(job.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed after a version.

    Args:
        entries: The entries with the versions of their changes, the earliest first.
        reached: The version up to which that is all.
        more: Whether there is more after that.
    """

    entries: Sequence[tuple[Entry, int]]
    reached: int
    more: bool


class JobIndex:
    """What all watchers share; nothing is kept while nobody watches.

    Args:
        sources: What it reads.

    Attributes:
        changed: Set at the next change.
        epoch: Names this index: a cursor of an earlier one means nothing here.
        version: Number of the last change.
    """

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources
        self.changed = anyio.Event()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.epoch = secrets.token_hex(4)
        self.version = 0
        self._forgotten = 0
        self._entries: dict[str, Entry] = {}
        self._trees: dict[str, KnownTree] = {}
        # Trees of which not all jobs have been read.
        self._partial: dict[str, None] = {}
        self._short, self._detailed, self._of_trees = ChangeOrder(), ChangeOrder(), ChangeOrder()
        self._over = EndedTrees()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, None] = {}
        self._queued: dict[str, None] = {}
        self._looked_at = 0.0

    def name(self, root_id: str) -> None:
        """Keep a tree for a watcher that names it."""
        self._over.name(root_id)

    def unname(self, root_id: str) -> None:
        """Keep a tree no longer for a watcher."""
        if self._over.unname(root_id) and (tree := self._trees.get(root_id)) is not None and not tree.live:
            # What was read for that watcher alone must not take the place of newer trees.
            self._over.add(root_id, len(tree.jobs), is_next=tree.was_asked_for)
            self._drop_surplus()

    def put_read(self, jobs: Sequence[Job]) -> None:
        """Take in jobs as they were read, without those that were announced meanwhile: these are newer."""
        for job in jobs:
            if job.id not in self._entries:
                self.put(job)

    def note_whole(self, root_id: str) -> None:
        """Note that all jobs of a tree have been taken in."""
        self._partial.pop(root_id, None)

    def put(self, job: Job) -> None:
        """Take in a job as it is now: called for every change of any job while somebody watches."""
        tree = self._trees.get(job.root_id) or self._new_tree(job.root_id)
        entry = self._entries.get(job.id)
        if entry is None:
            entry = self._entries[job.id] = Entry(root_id=job.root_id, node=tree.sums.node(job))
            tree.jobs.add(job.id)
        entry.job, entry.said, entry.short, entry.detailed = job, None, None, None
        # An attempt that has just been settled may be known as a running one for a moment: it would count twice.
        entry.activity = self._sources.activity_of(job) if job.status is JobStatus.RUNNING else None
        self._note_change(job.root_id, tree)
        self._short.put(job.id, self.version)
        self._detailed.put(job.id, self.version)
        for node in tree.sums.put(job, None if entry.activity is None else entry.activity.usage):
            # A batch at the root has no row of its own.
            if (above := self._entries.get(node.id)) is not None:
                self.version += 1
                above.detailed = None
                self._detailed.put(node.id, self.version)
        self._mark(job, tree)

    def _note_change(self, root_id: str, tree: KnownTree) -> None:
        self.version += 1
        tree.version = self.version
        self._of_trees.put(_tree(root_id), self.version)
        self.changed.set()

    def _new_tree(self, root_id: str) -> KnownTree:
        tree = self._trees[root_id] = KnownTree(TreeSums(root_id))
        self._entries[_tree(root_id)] = Entry(root_id=root_id)
        # A tree that was over and is tried again has jobs of which nothing is announced.
        self._partial[root_id] = None
        self._gone.pop(_gone(root_id), None)
        self._forget(_gone(root_id))
        return tree

    def _forget(self, key: str) -> int:
        self._entries.pop(key, None)
        return max(order.drop(key) for order in (self._short, self._detailed, self._of_trees))

    def note_activity(self, claimed: Job) -> None:
        """Take in what a running job does, given the job as it was claimed: it may be over by now."""
        entry = self._entries.get(claimed.id)
        if entry is not None and entry.job is not None and entry.job.status is JobStatus.RUNNING:
            self.put(entry.job)

    def note_pauses(self, change: PauseChange) -> None:
        """Note that something was paused or resumed: rows of its trees say so, also where no job changed by it."""
        roots = {pause.path.partition("/")[0] for pause in change.pauses}
        if EVERYTHING in roots:
            roots = {root_id for root_id, tree in self._trees.items() if tree.live}
        for root_id in roots:
            if (tree := self._trees.get(root_id)) is not None:
                tree.ended_pauses = None
                self._note_change(root_id, tree)
                self._short.put(_tree(root_id), self.version)
                self._detailed.put(_tree(root_id), self.version)

    def _mark(self, job: Job, tree: KnownTree) -> None:
        for status, marked in ((JobStatus.RUNNING, self._running), (JobStatus.QUEUED, self._queued)):
            if job.status is status:
                marked[job.id] = None
            else:
                marked.pop(job.id, None)
        if job.status in LIVE:
            tree.live.add(job.id)
        else:
            tree.live.discard(job.id)
        if tree.live:
            self._over.take(job.root_id)
            tree.was_asked_for = False
        else:
            self._over.add(job.root_id, len(tree.jobs))
            self._drop_surplus()

    def _drop_surplus(self) -> None:
        while (root_id := self._over.surplus(ENDED_JOBS)) is not None:
            self.drop(root_id)

    def drop(self, root_id: str) -> None:
        """Forget a tree, and tell the watchers."""
        tree = self._trees.pop(root_id, None)
        if tree is None:
            return
        for job_id in tree.jobs:
            self._forget(job_id)
            self._running.pop(job_id, None)
            self._queued.pop(job_id, None)
        self._forget(_tree(root_id))
        self._partial.pop(root_id, None)
        self._over.take(root_id)
        self.version += 1
        self._entries[_gone(root_id)] = Entry(root_id=root_id, is_gone=True)
        for order in (self._short, self._detailed, self._of_trees):
            order.put(_gone(root_id), self.version)
        self._gone[_gone(root_id)] = None
        if len(self._gone) > GONE_TREES:
            oldest, _ = self._gone.popitem(last=False)
            self._forgotten = self._forget(oldest)
        self.changed.set()

    def look_again(self) -> None:
        """Note which jobs wait for something else than before, at most once a second for all watchers."""
        now = self._sources.clock.monotonic()
        if now - self._looked_at < PAGE_SECONDS * 0.9:
            return
        self._looked_at = now
        some = list(islice(self._queued, QUEUED_LOOKS))
        for job_id in some:
            # The others come first the next time.
            self._queued[job_id] = self._queued.pop(job_id)
        for job_id in (*self._running, *some):
            entry = self._entries[job_id]
            if entry.job is None:
                continue
            before, said = entry.said, self._sources.to_say(entry.job)
            if before is not None and not before.is_like(said):
                self.put(entry.job)
            if before is None or entry.said is None:
                entry.said = said

    def knows(self, version: int) -> bool:
        """Tell whether everything that changed after a version is still known."""
        return self._forgotten <= version <= self.version

    @property
    def partial(self) -> Sequence[str]:
        """The trees of which not all jobs have been taken in."""
        return tuple(self._partial)

    def tree(self, root_id: str) -> KnownTree | None:
        """Return a tree, or None where it is not known."""
        return self._trees.get(root_id)

    def has_changes(self, version: int, scope: FeedScope) -> bool:
        """Tell whether something that a watcher wants to see changed after a version."""
        return next(self._newest_first(version, scope), None) is not None

    def after(self, version: int, scope: FeedScope) -> Changes:
        """Return at most `PAGE_ROWS` entries that changed after a version.

        Args:
            version: The last version that is known already.
            scope: What the watcher wants to see.
        """
        found = list(self._newest_first(version, scope))[::-1]
        if len(found) <= PAGE_ROWS:
            return Changes(entries=found, reached=self.version, more=False)
        page = found[:PAGE_ROWS]
        return Changes(entries=page, reached=page[-1][1], more=True)

    def _newest_first(self, version: int, scope: FeedScope) -> Iterator[tuple[Entry, int]]:
        order = self._of_trees if scope.trees_only else self._detailed if scope.detailed else self._short
        for key, changed in order.newest_first(version):
            entry = self._entries[key]
            if scope.has_tree(entry.root_id) if entry.job is None else scope.has_job(entry.job):
                yield entry, changed


def _tree(root_id: str) -> str:
    """Return the key of the entry of a tree; a job may have the tree's id itself."""
    return f"tree {root_id}"


def _gone(root_id: str) -> str:
    """Return the key of the entry that says a tree is gone."""
    return f"gone {root_id}"
