"""Prunes trees that are over, by age and by size: their rows and their directories together."""

import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from jobs.errors import StoreError
from jobs.ports import Clock, EndedTree, Store

logger = logging.getLogger(__name__)

BEAT_SECONDS = 3600.0
"""Seconds between two prunings."""

_YOUNG_SECONDS = 3600.0
"""A tree that ended this recently is not pruned for its size: its results may not have been read yet."""

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a pruning forgot, or would forget.

    Args:
        trees: The trees, the longest ended first.
        jobs: Their jobs.
        bytes: The size of their directories.
        kept_bytes: The size of the directories of all other trees.
    """

    trees: Sequence[str]
    jobs: int
    bytes: int
    kept_bytes: int


class Retention:
    """Prunes the trees of a state directory.

    A tree's directory is moved to a waste directory, its rows are deleted, and then the waste is: a crash in between
    leaves either a tree that is whole once its directory is moved back, or waste without rows.

    Args:
        store: Where trees are kept.
        trees: Directory of the job directories, one directory a tree.
        keep_days: Days for which a tree is kept after its end.
        keep_bytes: Most bytes of all trees' directories; the longest ended go first.
        clock: Time.
        forget_texts: Removes what is kept elsewhere of trees that have been deleted.
    """

    def __init__(
        self,
        *,
        store: Store,
        trees: Path,
        keep_days: float,
        keep_bytes: int,
        clock: Clock,
        forget_texts: Callable[[], Awaitable[None]] = checkpoint,
    ) -> None:
        self._forget_texts = forget_texts
        self._store = store
        self._trees = trees
        self._waste = trees.with_name(f"{trees.name}.pruned")
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._turn = anyio.Lock()

    async def keep(self) -> None:
        """Prune once an hour, for ever."""
        while True:
            try:
                await self.recover()
                pruned = await self.prune()
                if pruned.trees:
                    logger.info("pruned %d trees, %d jobs, %d bytes", len(pruned.trees), pruned.jobs, pruned.bytes)
            except (StoreError, OSError):
                logger.exception("trees that are over could not be pruned; trying again in an hour")
            await anyio.sleep(BEAT_SECONDS)

    async def recover(self) -> None:
        """Finish or undo what a crash interrupted."""
        async with self._turn:
            for directory in await anyio.to_thread.run_sync(_children, self._waste):
                if await self._store.tree(directory.name) is None:
                    await anyio.to_thread.run_sync(shutil.rmtree, directory)
                else:
                    await anyio.to_thread.run_sync(self._move_back, directory.name)

    async def prune(self, *, dry_run: bool = False, only: Collection[str] = ()) -> Pruned:
        """Forget what is too old or too much, and return what that was.

        Args:
            dry_run: Only tell.
            only: Ids of trees: of those that are over, these are forgotten at any age, and no others.

        Raises:
            StoreError: The rows cannot be read or deleted now.
            OSError: A directory cannot be moved or removed.
        """
        async with self._turn:
            sizes = await anyio.to_thread.run_sync(self._sizes)
            ended = await self._store.ended_trees(before=self._clock.now())
            chosen = [tree for tree in ended if tree.id in only] if only else self._chosen(ended, sizes)
            if not dry_run:
                chosen = [tree for tree in chosen if await self._forget(tree.id)]
                if chosen:
                    await self._shrink()
            gone = sum(sizes.get(tree.id, 0) for tree in chosen)
            return Pruned(
                trees=[tree.id for tree in chosen],
                jobs=sum(tree.jobs for tree in chosen),
                bytes=gone,
                kept_bytes=sum(sizes.values()) - gone,
            )

    def _chosen(self, ended: Sequence[EndedTree], sizes: dict[str, int]) -> list[EndedTree]:
        now = self._clock.now()
        left = sum(sizes.values())
        chosen = []
        for tree in ended:
            age = now - tree.ended_at
            if age > self._keep_days * _DAY_SECONDS or (left > self._keep_bytes and age > _YOUNG_SECONDS):
                chosen.append(tree)
                left -= sizes.get(tree.id, 0)
        return chosen

    async def _forget(self, root_id: str) -> bool:
        # Directory first: were the rows deleted first, a recovery of the database would restore the tree from it.
        # Shielded: a request that is cancelled must not leave a tree between its two places.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._move_away, root_id)
            try:
                forgotten = await self._store.delete_tree(root_id)
            except StoreError:
                await anyio.to_thread.run_sync(self._move_back, root_id)
                raise
            if forgotten:
                await anyio.to_thread.run_sync(_remove, self._waste / root_id)
            else:
                await anyio.to_thread.run_sync(self._move_back, root_id)
        return forgotten

    async def _shrink(self) -> None:
        try:
            await self._forget_texts()
            await self._store.shrink()
        except StoreError as error:
            # What was forgotten is forgotten; the next pruning gives its space back, the next search drops its texts.
            logger.warning("the database or the index of the search keeps its size for now: %s", error)

    def _move_away(self, root_id: str) -> None:
        self._waste.mkdir(mode=0o700, exist_ok=True)
        if (self._trees / root_id).exists():
            (self._trees / root_id).rename(self._waste / root_id)

    def _move_back(self, root_id: str) -> None:
        _merge(self._waste / root_id, self._trees / root_id)

    def _sizes(self) -> dict[str, int]:
        return {directory.name: _size(directory) for directory in _children(self._trees)}


def _children(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except FileNotFoundError:
        return []


def _merge(source: Path, target: Path) -> None:
    """Move a directory to its place; what a retry has made there meanwhile is newer and stays."""
    if not target.exists():
        if source.exists():
            source.rename(target)
        return
    if source.is_dir():
        for child in _children(source):
            _merge(child, target / child.name)
        shutil.rmtree(source)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _size(path: Path) -> int:
    """Return the bytes that a directory takes on the disk; what vanishes meanwhile takes none."""
    total, pending = 0, [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
        except OSError:
            continue
    return total
