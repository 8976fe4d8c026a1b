"""The job feed: its watchers ask for one page after the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio

from jobs.paused import EVERYTHING
from server.feed.index import PAGE_SECONDS, Entry, FeedSources, JobIndex
from server.feed.rows import bytes_of, short_text

PAGE_BYTES: Final = 800_000
"""Most bytes of the rows of one page, about: a control answer may have 1 MiB."""

QUIET_SECONDS: Final = 20.0
"""Seconds after which a watcher gets an empty page, so that either end notices that the other one is gone."""


class JobFeed:
    """Rows of the live trees and of those that ended last, then what changed, for a screen that stays open.

    Nothing is kept while nobody watches. One index serves all watchers and each of them asks for its next page, so one
    that reads slowly or not at all costs no memory.

    Args:
        sources: What it reads.
    """

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources
        self._index = JobIndex(sources)

    @contextmanager
    def watch(self) -> Iterator["FeedWatch"]:
        """Return a watcher for as long as the block lasts; it costs nothing before its first page."""
        watcher = FeedWatch(self._index, self._sources)
        try:
            yield watcher
        finally:
            if watcher.is_counted:
                self._index.go()

    def drop(self, root_id: str) -> None:
        """Forget a tree, and tell the watchers."""
        self._index.drop(root_id)


class FeedWatch:
    """One watcher: asks for one page after the other.

    Args:
        index: The index.
        sources: What the feed reads.
    """

    def __init__(self, index: JobIndex, sources: FeedSources) -> None:
        self._index = index
        self._sources = sources
        self._last_page: float | None = None
        self._said_paused = False
        self.is_counted = False

    async def page(self, cursor: str | None = None, root_id: str | None = None) -> dict[str, Any]:
        """Return the rows that changed after a cursor, or all of them from the beginning.

        Waits for a change, for `QUIET_SECONDS` at most, and until `PAGE_SECONDS` have passed since the last page,
        unless that one said that there are more. `reset` says that rows of earlier pages are to be forgotten.

        Args:
            cursor: That of the last page, or None for everything. One of another engine counts as None.
            root_id: Only rows of this tree, or None.

        Raises:
            StoreError: The trees cannot be read now.
        """
        if not self.is_counted:
            self.is_counted = True
            self._index.come()
        await self._index.open(root_id)
        version = self._version_of(cursor)
        if version is not None:
            with anyio.move_on_after(QUIET_SECONDS):
                await self._until_changed(version, root_id)
        entries, reached, more = self._index.after(version or 0, root_id)
        rows, taken = self._rows_of(entries)
        if taken < len(entries):
            entries, reached, more = entries[:taken], entries[taken - 1].version, True
        self._last_page = None if more else self._sources.clock.monotonic()
        self._said_paused = self._is_all_paused()
        return {
            "ok": True,
            "cursor": f"{self._index.epoch}.{reached}",
            "reset": version is None,
            "more": more,
            "now": self._sources.clock.now(),
            "jobs": rows,
            "trees": await self._trees_of(entries),
            "gone": [entry.root_id for entry in entries if entry.job is None],
            "pauses": [
                {"until": pause.until, "because": short_text(pause.because), "waiting": pause.waiting}
                for pause in self._sources.pauses()
            ],
            "allPaused": self._said_paused,
        }

    def _is_all_paused(self) -> bool:
        return self._sources.is_paused(EVERYTHING)

    def _rows_of(self, entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], int]:
        """Return the rows of as many of the first entries as fit into a page, and how many entries that are."""
        rows: list[dict[str, Any]] = []
        room = PAGE_BYTES
        for taken, entry in enumerate(entries):
            if entry.job is None:
                continue
            row = self._index.row(entry)
            room -= bytes_of(row)
            if room < 0 and rows:
                return rows, taken
            rows.append(row)
        return rows, len(entries)

    async def _trees_of(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        changed = dict.fromkeys(entry.root_id for entry in entries if entry.job is not None)
        rows = [await self._index.tree_row(root_id) for root_id in changed]
        return [row for row in rows if row is not None]

    def _version_of(self, cursor: str | None) -> int | None:
        epoch, _, number = (cursor or "").partition(".")
        if epoch != self._index.epoch or not number.isdecimal() or not self._index.knows(int(number)):
            return None
        return int(number)

    async def _until_changed(self, version: int, root_id: str | None) -> None:
        if self._last_page is not None:
            await anyio.sleep(max(0.0, self._last_page + PAGE_SECONDS - self._sources.clock.monotonic()))
        while True:
            self._index.changed = anyio.Event() if self._index.changed.is_set() else self._index.changed
            changed = self._index.changed
            self._index.look_again()
            if self._index.after(version, root_id)[0] or self._is_all_paused() != self._said_paused:
                return
            with anyio.move_on_after(PAGE_SECONDS):
                await changed.wait()
