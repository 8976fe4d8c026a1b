"""The job feed: its watchers ask for one page after the other."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import anyio

from jobs.paused import EVERYTHING
from server.feed.entries import Entry, Rendered
from server.feed.index import PAGE_SECONDS, FeedSources, JobIndex
from server.feed.reading import IndexReader
from server.feed.rendering import Renderer
from server.feed.rows import short_text
from server.feed.scope import WHOLE, FeedScope

PAGE_BYTES: Final = 800_000
"""Most bytes of the rows of one page, about: a control answer may have 1 MiB."""

QUIET_SECONDS: Final = 20.0
"""Seconds after which a watcher gets an empty page, so that either end notices that the other one is gone."""

LOOK_SECONDS: Final = 0.2
"""Least seconds between two looks of one watcher at changes that may not be for it: another tree may be busy."""


class JobFeed:
    """Rows of the live trees and of those that ended last, then what changed, for a screen that stays open.

    Nothing is kept while nobody watches. One index serves all watchers and each of them asks for its next page, so one
    that reads slowly or not at all costs no memory.

    Args:
        sources: What it reads.
    """

    def __init__(self, sources: FeedSources) -> None:
        self._sources = sources

    @contextmanager
    def watch(self) -> Iterator["FeedWatch"]:
        """Return a watcher for as long as the block lasts; it costs nothing before its first page."""
        watcher = FeedWatch(self._parts)
        try:
            yield watcher
        finally:
            watcher.close()

    def drop(self, root_id: str) -> None:
        """Forget a tree, and tell the watchers."""
        self._parts.index.drop(root_id)

    @cached_property
    def _parts(self) -> "_Parts":
        # Made for the first watcher: most engines never have one.
        index = JobIndex(self._sources)
        return _Parts(
            sources=self._sources,
            index=index,
            reader=IndexReader(self._sources, index),
            renderer=Renderer(self._sources, index),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What all watchers share.

    Args:
        sources: What the feed reads.
        index: The index.
        reader: Fills it.
        renderer: Makes its rows.
    """

    sources: FeedSources
    index: JobIndex
    reader: IndexReader
    renderer: Renderer


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPage:
    """One page of the feed.

    Args:
        cursor: Names what is known with it.
        text: The page as JSON in ASCII, in one line.
        more: Whether there is another one already.
    """

    cursor: str
    text: str
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """A page before it is written.

    Args:
        head: The fields before the rows.
        jobs: Rows of jobs.
        trees: Rows of trees.
        tail: The fields after the rows.
    """

    head: dict[str, Any]
    jobs: Sequence[Rendered]
    trees: Sequence[Rendered]
    tail: dict[str, Any]


class FeedWatch:
    """One watcher: asks for one page after the other.

    Args:
        parts: What all watchers share.
    """

    def __init__(self, parts: _Parts) -> None:
        self._sources, self._index = parts.sources, parts.index
        self._reader, self._renderer = parts.reader, parts.renderer
        self._last_page: float | None = None
        self._said_paused = False
        self._is_counted = False
        self._named: str | None = None

    async def page(self, cursor: str | None = None, scope: FeedScope = WHOLE) -> dict[str, Any]:
        """Return the rows that changed after a cursor, or all of them from the beginning.

        Waits for a change, for `QUIET_SECONDS` at most, and until `PAGE_SECONDS` have passed since the last page,
        unless that one said that there are more. `reset` says that rows of earlier pages are to be forgotten.

        Args:
            cursor: That of the last page, or None for everything. One of another engine counts as None.
            scope: What the watcher wants to see. With another scope than at the last page it begins without a cursor.

        Raises:
            StoreError: The trees cannot be read now.
        """
        page = await self._next(cursor, scope)
        jobs, trees = ([row.row for row in rows] for rows in (page.jobs, page.trees))
        return {**page.head, "jobs": jobs, "trees": trees, **page.tail}

    async def page_json(
        self, cursor: str | None = None, scope: FeedScope = WHOLE, *, wait: float | None = None
    ) -> JsonPage:
        """Return a page as `page` does, as JSON; rows that other watchers were sent cost no time.

        Args:
            cursor: As of `page`.
            scope: As of `page`.
            wait: Most seconds to wait for a change, or None for as many as `page` waits.

        Raises:
            StoreError: The trees cannot be read now.
        """
        page = await self._next(cursor, scope, wait)
        jobs, trees = (",".join([row.text for row in rows]) for rows in (page.jobs, page.trees))
        head, tail = (json.dumps(part)[1:-1] for part in (page.head, page.tail))
        text = f'{{{head}, "jobs": [{jobs}], "trees": [{trees}], {tail}}}'
        return JsonPage(cursor=page.head["cursor"], text=text, more=page.head["more"])

    def close(self) -> None:
        """End the watch."""
        self._name(None)
        if self._is_counted:
            self._is_counted = False
            self._reader.go()

    async def _next(self, cursor: str | None, scope: FeedScope, wait: float | None = None) -> _Page:
        if not self._is_counted:
            self._is_counted = True
            self._reader.come()
        self._name(scope.root_id)
        await self._reader.open(scope.root_id)
        version = self._version_of(cursor)
        if version is not None:
            with anyio.move_on_after(QUIET_SECONDS if wait is None else wait):
                await self._until_changed(version, scope)
            # A tree that came meanwhile may have to be read.
            await self._reader.open(scope.root_id)
            # More trees may have gone at once than are remembered.
            version = version if self._index.knows(version) else None
        changes = self._index.after(version or 0, scope)
        entries, reached, more = changes.entries, changes.reached, changes.more
        await self._renderer.prepare([entry for entry, _ in entries], scope)
        rows, taken = self._rows_of([entry for entry, _ in entries], scope)
        if taken < len(entries):
            entries, reached, more = entries[:taken], entries[taken - 1][1], True
        roots = dict.fromkeys(entry.root_id for entry, _ in entries if not entry.is_gone)
        trees = await self._renderer.trees(tuple(roots), scope)
        self._last_page = None if more else self._sources.clock.monotonic()
        self._said_paused = self._is_all_paused()
        head = {
            "ok": True,
            "cursor": f"{self._index.epoch}.{reached}",
            "reset": version is None,
            "more": more,
            "now": self._sources.clock.now(),
        }
        tail = {
            "gone": [entry.root_id for entry, _ in entries if entry.is_gone],
            "pauses": [
                {"until": pause.until, "because": short_text(pause.because), "waiting": pause.waiting}
                for pause in self._sources.pauses()
            ],
            "allPaused": self._said_paused,
        }
        return _Page(head=head, jobs=rows, trees=trees, tail=tail)

    def _name(self, root_id: str | None) -> None:
        """Keep the tree that the watcher names, and the last one no longer."""
        if root_id == self._named:
            return
        before, self._named = self._named, root_id
        if root_id is not None:
            self._index.name(root_id)
        if before is not None:
            self._index.unname(before)

    def _is_all_paused(self) -> bool:
        return self._sources.paused_paths.holds(EVERYTHING)

    def _rows_of(self, entries: Sequence[Entry], scope: FeedScope) -> tuple[list[Rendered], int]:
        """Return the rows of as many of the first entries as fit into a page, and how many entries that are."""
        rows: list[Rendered] = []
        room = PAGE_BYTES
        for taken, entry in enumerate(entries):
            if entry.job is None:
                continue
            row = self._renderer.job(entry, scope)
            room -= len(row.text) if scope.detailed else row.about_bytes()
            if room < 0 and rows:
                return rows, taken
            rows.append(row)
        return rows, len(entries)

    def _version_of(self, cursor: str | None) -> int | None:
        epoch, _, number = (cursor or "").partition(".")
        if epoch != self._index.epoch or not number.isdecimal() or not self._index.knows(int(number)):
            return None
        return int(number)

    async def _until_changed(self, version: int, scope: FeedScope) -> None:
        if self._last_page is not None:
            await anyio.sleep(max(0.0, self._last_page + PAGE_SECONDS - self._sources.clock.monotonic()))
        seen = version
        while True:
            self._index.changed = anyio.Event() if self._index.changed.is_set() else self._index.changed
            changed = self._index.changed
            self._index.look_again()
            if self._index.has_changes(seen, scope) or self._is_all_paused() != self._said_paused:
                return
            # Looked at once: otherwise each change of another tree would cost as much as all before it.
            seen = self._index.version
            with anyio.move_on_after(PAGE_SECONDS):
                await anyio.sleep(LOOK_SECONDS)
                await changed.wait()
