"""The index of the job feed: each job as it was last announced, in the order of the changes."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, Final

import anyio

from jobs.activity import Activity
from jobs.event_bus import JobEventBus
from jobs.limits.throttle import Pause
from jobs.model import LIVE, Job, JobStatus
from jobs.ports import Clock, Store
from jobs.waiting_for import Wait
from server.feed.rows import row_of, tree_row_of

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


@dataclass(slots=True, kw_only=True)
class Entry:
    """A job in the index, or a tree that was dropped."""

    version: int
    root_id: str
    job: Job | None
    """None for a tree that was dropped."""
    said: "tuple[Wait | None, bool]" = (None, False)
    """What its last row said that nothing announces: what it waits for, and whether it is paused."""


@dataclass(slots=True)
class _KnownTree:
    jobs: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSources:
    """What the feed reads.

    Args:
        store: Where trees are kept.
        event_bus: Where changes of jobs are announced.
        wait_of: Returns what a job waits for, or None.
        activity_of: Returns what a job does now, or None where no attempt of it runs.
        is_paused: Tells whether a person or a job has paused a path, or what is above it.
        pauses: Returns until when accounts are paused, and why.
        clock: Time.
    """

    store: Store
    event_bus: JobEventBus
    wait_of: Callable[[Job], Wait | None]
    activity_of: Callable[[Job], Activity | None]
    is_paused: Callable[[str], bool]
    pauses: Callable[[], Sequence[Pause]]
    clock: Clock


class JobIndex:
    """What all watchers share; nothing is kept while nobody watches.

    Args:
        sources: What it reads.
    """

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources
        self._watchers = 0
        self._stop_observing: Callable[[], None] = lambda: None
        self._opening = anyio.Lock()
        self.changed = anyio.Event()
        self._clear()

    def _clear(self) -> None:
        # A cursor of an earlier index means nothing in this one.
        self.epoch = secrets.token_hex(4)
        self.version = 0
        self._is_open = False
        self._forgotten = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._trees: dict[str, _KnownTree] = {}
        self._over: OrderedDict[str, int] = OrderedDict()
        self._over_jobs = 0
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, None] = {}
        self._queued: dict[str, None] = {}
        self._looked_at = 0.0

    def come(self) -> None:
        """Count a watcher that asks for its first page."""
        self._watchers += 1

    def go(self) -> None:
        """Count a watcher less; the last one clears the index."""
        self._watchers -= 1
        if not self._watchers:
            self._stop_observing()
            self._clear()

    async def open(self, root_id: str | None) -> None:
        """Read the trees that are shown first, unless that was done already.

        Args:
            root_id: A tree to read too, or None.

        Raises:
            StoreError: They cannot be read now.
        """
        async with self._opening:
            if not self._is_open:
                self._stop_observing()
                self._stop_observing = self._observe()
                await self._read_first()
                self._is_open = True
            if root_id is not None and root_id not in self._trees:
                await self._read_tree(root_id)

    def _observe(self) -> Callable[[], None]:
        event_bus = self._sources.event_bus
        stops = (event_bus.observe(self._put), event_bus.observe_activity(self._note_activity))

        def stop() -> None:
            for each in stops:
                each()

        return stop

    async def _read_first(self) -> None:
        store = self._sources.store
        for root_id in dict.fromkeys(job.root_id for job in await store.unfinished()):
            await self._read_tree(root_id)
        newest = await store.newest_jobs(limit=ENDED_JOBS)
        ended = [root_id for root_id in dict.fromkeys(job.root_id for job in newest) if root_id not in self._trees]
        room = ENDED_JOBS
        chosen: list[Sequence[Job]] = []
        for root_id in ended:
            jobs = await store.jobs_under(root_id)
            room -= len(jobs)
            if room < 0 and chosen:
                break
            chosen.append(jobs)
        # The one that began last is dropped last.
        for jobs in reversed(chosen):
            self._put_known(jobs)

    async def _read_tree(self, root_id: str) -> None:
        self._put_known(await self._sources.store.jobs_under(root_id))

    def _put_known(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            # What was announced meanwhile is newer.
            if job.id not in self._entries:
                self._put(job)

    def _put(self, job: Job) -> None:
        """Take in a job as it is now: called for every change of any job while somebody watches."""
        self.version += 1
        entry = self._entries.pop(job.id, None)
        said = (None, False) if entry is None else entry.said
        self._entries[job.id] = Entry(version=self.version, root_id=job.root_id, job=job, said=said)
        tree = self._trees.get(job.root_id)
        if tree is None:
            tree = self._trees[job.root_id] = _KnownTree()
            self._gone.pop(_gone(job.root_id), None)
            self._entries.pop(_gone(job.root_id), None)
        tree.jobs.add(job.id)
        self._mark(job, tree)
        self.changed.set()

    def _note_activity(self, claimed: Job) -> None:
        # The job as it was claimed: it may be over by now.
        entry = self._entries.get(claimed.id)
        if entry is not None and entry.job is not None and entry.job.status is JobStatus.RUNNING:
            self._put(entry.job)

    def _mark(self, job: Job, tree: _KnownTree) -> None:
        for status, marked in ((JobStatus.RUNNING, self._running), (JobStatus.QUEUED, self._queued)):
            if job.status is status:
                marked[job.id] = None
            else:
                marked.pop(job.id, None)
        self._over_jobs -= self._over.pop(job.root_id, 0)
        if job.status in LIVE:
            tree.live.add(job.id)
            return
        tree.live.discard(job.id)
        if not tree.live:
            self._over[job.root_id] = len(tree.jobs)
            self._over_jobs += len(tree.jobs)
            while self._over_jobs > ENDED_JOBS and len(self._over) > 1:
                self.drop(next(iter(self._over)))

    def drop(self, root_id: str) -> None:
        """Forget a tree, and tell the watchers."""
        tree = self._trees.pop(root_id, None)
        if tree is None:
            return
        for job_id in tree.jobs:
            self._entries.pop(job_id, None)
            self._running.pop(job_id, None)
            self._queued.pop(job_id, None)
        self._over_jobs -= self._over.pop(root_id, 0)
        self.version += 1
        self._entries[_gone(root_id)] = Entry(version=self.version, root_id=root_id, job=None)
        self._gone[_gone(root_id)] = None
        if len(self._gone) > GONE_TREES:
            oldest, _ = self._gone.popitem(last=False)
            self._forgotten = self._entries.pop(oldest).version
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
            if entry.job is not None and entry.said != self._to_say(entry.job):
                self._put(entry.job)

    def _to_say(self, job: Job) -> tuple[Wait | None, bool]:
        return self._sources.wait_of(job), job.status in LIVE and self._sources.is_paused(job.path)

    def knows(self, version: int) -> bool:
        """Tell whether everything that changed after a version is still known."""
        return self._forgotten <= version <= self.version

    def after(self, version: int, root_id: str | None) -> tuple[list[Entry], int, bool]:
        """Return at most `PAGE_ROWS` entries that changed after a version, the version they reach, and if more did.

        Args:
            version: The last version that is known already.
            root_id: Only of this tree, or None.
        """
        newest_first = takewhile(lambda entry: entry.version > version, reversed(self._entries.values()))
        found = [entry for entry in newest_first if root_id in (None, entry.root_id)][::-1]
        if len(found) <= PAGE_ROWS:
            return found, self.version, False
        page = found[:PAGE_ROWS]
        return page, page[-1].version, True

    def row(self, entry: Entry) -> dict[str, Any]:
        """Return the row of an entry, and remember what it says that nothing announces."""
        assert entry.job is not None
        entry.said = self._to_say(entry.job)
        wait, is_paused = entry.said
        return row_of(entry.job, wait, self._sources.activity_of(entry.job)) | ({"paused": True} if is_paused else {})

    async def tree_row(self, root_id: str) -> dict[str, Any] | None:
        """Return a tree's totals and budget, or None where it is gone."""
        tree = await self._sources.store.tree(root_id)
        if tree is None:
            return None
        row = tree_row_of(tree, await self._sources.store.rollup_under(root_id))
        return row | ({"paused": True} if self._sources.is_paused(root_id) else {})


def _gone(root_id: str) -> str:
    """Return the key of the entry that says a tree is gone; a job may have the tree's id itself."""
    return f"gone {root_id}"
