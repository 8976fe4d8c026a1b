"""Makes the rows of the job feed from its index: each once, until something about it changes."""

from collections.abc import Sequence
from typing import Any

from jobs.model import Tree
from jobs.paused import EVERYTHING
from server.feed.entries import Entry, KnownTree, Rendered
from server.feed.index import FeedSources, JobIndex
from server.feed.rows import details_of, row_of, tree_details_of, tree_row_of
from server.feed.scope import FeedScope
from server.feed.times import AttemptTimes, pauses_row


class Renderer:
    """Makes rows.

    Args:
        sources: What it reads.
        index: The index.
    """

    def __init__(self, sources: FeedSources, index: JobIndex) -> None:
        self._sources = sources
        self._index = index
        self._times = AttemptTimes(sources.store, sources.waits_of)

    async def prepare(self, entries: Sequence[Entry], scope: FeedScope) -> None:
        """Read what the rows of some entries need and is not known.

        Raises:
            StoreError: It cannot be read now.
        """
        if scope.detailed and not scope.trees_only:
            await self._times.load(entries)

    def job(self, entry: Entry, scope: FeedScope) -> Rendered:
        """Return the row of an entry of a job."""
        if scope.detailed:
            if entry.detailed is None:
                entry.detailed = Rendered(self._detailed_row(entry))
            return entry.detailed
        if entry.short is None:
            entry.short = Rendered(self._row(entry))
        return entry.short

    def _detailed_row(self, entry: Entry) -> dict[str, Any]:
        assert entry.node is not None, "only jobs have rows"
        row = {**self._row(entry), **details_of(entry.node)}
        if attempts := self._times.of(entry):
            row["attempts"] = attempts
        return row

    def _row(self, entry: Entry) -> dict[str, Any]:
        assert entry.job is not None, "only jobs have rows"
        # The same in both rows, and kept, so that a change of it is noticed.
        said = entry.said = entry.said or self._sources.to_say(entry.job)
        return row_of(entry.job, said.wait, entry.activity) | ({"paused": True} if said.is_paused else {})

    async def trees(self, root_ids: Sequence[str], scope: FeedScope) -> list[Rendered]:
        """Return the rows of trees; those that are gone are left out.

        Raises:
            StoreError: They cannot be read now.
        """
        rows = [await self._tree(root_id, scope) for root_id in root_ids]
        return [row for row in rows if row is not None]

    async def _tree(self, root_id: str, scope: FeedScope) -> Rendered | None:
        known = self._index.tree(root_id)
        if known is None or not await self._is_current(root_id, known):
            return None
        assert known.tree is not None, "it was just read"
        if known.short is None:
            row = tree_row_of(known.tree, known.sums) | ({"paused": True} if known.is_paused else {})
            known.short, known.detailed = Rendered(row), None
        if not (scope.detailed or scope.trees_only):
            return known.short
        if known.detailed is None:
            known.detailed = Rendered({**known.short.row, **tree_details_of(known.tree, known.sums)})
            known.timed = None
        if scope.trees_only or scope.root_id is None:
            return known.detailed
        return await self._with_pauses(root_id, known, known.detailed)

    async def _with_pauses(self, root_id: str, known: KnownTree, detailed: Rendered) -> Rendered:
        if known.timed is not None:
            return known.timed
        version, ended = known.version, known.ended_pauses
        if ended is None:
            ended = await self._sources.store.ended_pauses(root_id)
        paused = self._sources.paused_paths
        everything = paused.at(EVERYTHING)
        lasting = (*paused.under(root_id), *(() if everything is None else (everything,)))
        pauses = pauses_row(ended, lasting)
        row = Rendered({**detailed.row, "pauses": pauses} if pauses else detailed.row)
        if known.version == version:
            # Otherwise one may have ended while these were read.
            known.ended_pauses, known.timed = ended, row
        return row

    async def _is_current(self, root_id: str, known: KnownTree) -> bool:
        """Make sure that a known tree has what its rows say, and tell whether there is such a tree."""
        tree: Tree | None = known.tree
        # The limits of one that lives may change, of which nothing is announced; it is read from memory.
        if tree is None or known.live or known.made_at != known.version:
            tree = await self._sources.store.tree(root_id)
        is_paused = self._sources.paused_paths.holds(root_id)
        if known.made_at != known.version or tree != known.tree or is_paused != known.is_paused:
            known.short = known.detailed = None
        known.tree, known.is_paused, known.made_at = tree, is_paused, known.version
        return tree is not None
