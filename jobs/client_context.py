"""Client context of a tree: the directory and environment of its client, kept in a file and never in the database."""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio.to_thread

from jobs.errors import DiskFullError, StoreError
from jobs.ports import Store
from jobs.settings import TreeSettings, restored_tree_settings
from jobs.util.keyed import KeyedLock
from jobs.util.text import secrets_in

logger = logging.getLogger(__name__)

_FILE = "origin.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """Context of the client that began a tree: its directory, environment and settings.

    Args:
        cwd: Absolute path of its working directory: the default of every job in the tree.
        env: The part of its environment that its jobs get; every job of the tree runs in it.
        client: Who it is, for a person to read, or None.
        settings: What the client's settings give its tree, or None where it came with none: an engine's own count then.
        umask: Mask of the modes of the files that its jobs make, or None where it did not say.
    """

    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    client: str | None = None
    settings: TreeSettings | None = None
    umask: int | None = None


class ClientContextStore:
    """Keeps the client context of each tree in a file of mode 0600 for as long as the tree lives.

    Args:
        trees: Directory with one directory a tree.
    """

    def __init__(self, trees: Path) -> None:
        self._trees = trees
        # Every launch asks for it three times, and it does not change while its tree lives.
        self._known: dict[str, ClientContext] = {}
        self._turns = KeyedLock()
        self._on_forget: Callable[[str], None] = lambda _: None

    def hold(self, root_id: str) -> AbstractAsyncContextManager[None]:
        """Lock a tree's client context: held while it is saved or forgotten according to the tree's rows."""
        return self._turns.hold(root_id)

    def on_forget(self, observer: Callable[[str], None]) -> None:
        """Call `observer` with the id of each tree whose client context is forgotten; it must not wait."""
        self._on_forget = observer

    async def save(self, root_id: str, client_context: ClientContext) -> None:
        """Write the client context as `write` does, without blocking the event loop."""
        await anyio.to_thread.run_sync(self.write, root_id, client_context)

    def write(self, root_id: str, client_context: ClientContext) -> None:
        """Write the client context; it is on disk when this returns. Blocks.

        Raises:
            StoreError: The disk refused it.
        """
        kept = {
            "cwd": client_context.cwd,
            "env": dict(client_context.env),
            "client": client_context.client,
            "umask": client_context.umask,
        }
        settings = None if client_context.settings is None else asdict(client_context.settings)
        text = json.dumps(kept | {"settings": settings})
        directory = self._trees / root_id
        try:
            # Each by itself: a mode holds for the last directory of a path alone.
            self._trees.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(directory / _FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._withdraw(root_id)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError("keep the client's environment") from error
            raise StoreError("keep the client's environment", str(error)) from error
        self._known[root_id] = client_context

    def load(self, root_id: str) -> ClientContext:
        """Return a tree's client context.

        Raises:
            StoreError: It is gone or cannot be read; the tree's jobs cannot be launched without it.
        """
        if root_id not in self._known:
            self._known[root_id] = self._read(root_id)
        return self._known[root_id]

    def settings_of(self, root_id: str) -> TreeSettings | None:
        """Return what a tree took from its client's settings, or None where that is not known."""
        try:
            return self.load(root_id).settings
        except StoreError:
            return None

    def secrets_of(self, root_id: str) -> frozenset[str]:
        """Return the secret values in the environment of a tree's jobs; none where that environment is gone."""
        try:
            return secrets_in(self.load(root_id).env)
        except StoreError:
            return frozenset()

    def environments(self) -> list[Mapping[str, str]]:
        """Return the environments of the trees that live and were used since the engine began."""
        return [client_context.env for client_context in list(self._known.values())]

    def kept(self) -> list[str]:
        """Return the ids of the trees whose client context is on disk. Blocks."""
        return [path.parent.name for path in self._trees.glob(f"*/{_FILE}")]

    def forget(self, root_id: str) -> None:
        """Remove a tree's client context once the tree is over."""
        self._known.pop(root_id, None)
        self._on_forget(root_id)
        (self._trees / root_id / _FILE).unlink(missing_ok=True)

    async def forget_all_but(self, root_ids: Collection[str]) -> None:
        """Remove what a crash left: the client contexts of all other trees, and their directories where empty.

        Args:
            root_ids: Trees with live jobs.
        """
        await anyio.to_thread.run_sync(self._sweep, frozenset(root_ids))

    async def forget_if_ended(self, store: Store, root_id: str) -> None:
        """Remove a tree's client context where none of its jobs is live; errors are logged, the next start retries."""
        try:
            async with self.hold(root_id):
                if not (await store.rollup_under(root_id)).live:
                    self.forget(root_id)
        except (StoreError, OSError):
            # This runs in the engine's task group, where an error would end every other tree.
            logger.exception("the environment of tree %s could not be removed", root_id)

    async def forget_ended(self, store: Store) -> None:
        """Remove the client context of each tree that is over, as the engine exits: a batch may not get to do so."""
        for root_id in await anyio.to_thread.run_sync(self.kept):
            try:
                # What is not in the store may be admitted at this very moment.
                if (await store.rollup_under(root_id)).total:
                    await self.forget_if_ended(store, root_id)
            except StoreError:
                logger.exception("the environment of tree %s could not be read", root_id)

    def discard(self, root_id: str) -> None:
        """Remove everything of a tree that was not admitted after all."""
        self._known.pop(root_id, None)
        self._on_forget(root_id)
        shutil.rmtree(self._trees / root_id, ignore_errors=True)

    def _sweep(self, root_ids: Collection[str]) -> None:
        for root_id in self.kept():
            if root_id in root_ids:
                continue
            try:
                self.forget(root_id)
            except OSError:
                logger.exception("the environment of tree %s could not be removed", root_id)
            with suppress(OSError):
                (self._trees / root_id).rmdir()

    def _read(self, root_id: str) -> ClientContext:
        try:
            found = json.loads((self._trees / root_id / _FILE).read_text(encoding="utf-8"))
            given = found.get("settings")
            settings = None if given is None else restored_tree_settings(given)
            return ClientContext(
                cwd=found["cwd"],
                env=dict(found["env"]),
                client=found["client"],
                settings=settings,
                # A file of an older version says nothing of it.
                umask=found.get("umask"),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError("read the client's environment", str(error)) from error

    def _withdraw(self, root_id: str) -> None:
        # The tree may be one that is tried again: its directory holds the transcripts of its jobs.
        with suppress(OSError):
            self.forget(root_id)
            (self._trees / root_id).rmdir()
