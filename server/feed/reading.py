"""Fills the index of the job feed while somebody watches: first from the store, then with what is announced."""

from collections.abc import Callable, Sequence
from typing import Final

import anyio
from anyio.lowlevel import checkpoint

from jobs.model import Job
from server.feed.index import ENDED_JOBS, FeedSources, JobIndex

_AT_ONCE: Final = 500
"""Jobs that are taken in before others of the engine have their turn: about 5 ms."""


class IndexReader:
    """Reads trees into the index and keeps it up to date; nothing is kept while nobody watches.

    Args:
        sources: What it reads.
        index: The index.
    """

    def __init__(self, sources: FeedSources, index: JobIndex) -> None:
        self._sources = sources
        self._index = index
        self._watchers = 0
        self._is_open = False
        self._stop_observing: Callable[[], None] = lambda: None
        self._opening = anyio.Lock()

    def come(self) -> None:
        """Count a watcher that asks for its first page."""
        self._watchers += 1

    def go(self) -> None:
        """Count a watcher less; the last one clears the index."""
        self._watchers -= 1
        if not self._watchers:
            self._stop_observing()
            self._is_open = False
            self._index.clear()

    async def open(self, root_id: str | None) -> None:
        """Read the trees that are shown first, unless that was done already, and what lacks of the others.

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
            if root_id is not None and self._index.tree(root_id) is None:
                await self._read_tree(root_id)
                if (tree := self._index.tree(root_id)) is not None:
                    tree.was_asked_for = not tree.live
            for partial in self._index.partial:
                await self._read_tree(partial)

    def _observe(self) -> Callable[[], None]:
        event_bus, index = self._sources.event_bus, self._index
        stops = (
            event_bus.observe(index.put),
            event_bus.observe_activity(index.note_activity),
            event_bus.observe_pauses(index.note_pauses),
        )

        def stop() -> None:
            for each in stops:
                each()

        return stop

    async def _read_first(self) -> None:
        store = self._sources.store
        for root_id in dict.fromkeys(job.root_id for job in await store.unfinished()):
            await self._read_tree(root_id)
        newest = await store.newest_jobs(limit=ENDED_JOBS)
        ended = dict.fromkeys(job.root_id for job in newest if self._index.tree(job.root_id) is None)
        room = ENDED_JOBS
        chosen: dict[str, Sequence[Job]] = {}
        for root_id in ended:
            jobs = await store.jobs_under(root_id)
            room -= len(jobs)
            if room < 0 and chosen:
                break
            chosen[root_id] = jobs
        # The one that began last is dropped last.
        for root_id, jobs in reversed(chosen.items()):
            await self._put_all(root_id, jobs)

    async def _read_tree(self, root_id: str) -> None:
        await self._put_all(root_id, await self._sources.store.jobs_under(root_id))

    async def _put_all(self, root_id: str, jobs: Sequence[Job]) -> None:
        for first in range(0, len(jobs), _AT_ONCE):
            self._index.put_read(jobs[first : first + _AT_ONCE])
            await checkpoint()
        self._index.note_whole(root_id)
