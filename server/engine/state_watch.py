"""Keeps an engine reachable: its socket, its lock file and its state directory are where clients look for them.

Cleaners of temporary directories remove old sockets and old files, and people move or remove directories.
"""

import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import SocketListener, SocketStream

from server.client.engine_socket import is_at, lock
from server.client.lock_file import sign_lock
from server.client.state_dir import StatePaths, prepare
from server.client.wire import ClientError
from server.engine.listener import accept_all
from server.engine.supervised_tasks import beat

logger = logging.getLogger(__name__)

WATCH_SECONDS = 2.0
"""Seconds between two checks: a removed socket is bound again within 5 s, also on a busy machine."""

LOCK_SECONDS = 1.0
"""How long another process may hold a lock file that was made again before it counts as another engine."""

Handle = Callable[[SocketStream], Coroutine[Any, Any, None]]


class EngineSocket:
    """The unix socket of an engine, which is bound again where its file is gone.

    Args:
        path: Where it is; its directory exists.
        handle: Serves one connection.
        start: Starts a task, whose errors are logged and end it alone.
    """

    def __init__(self, path: Path, handle: Handle, start: Callable[..., None]) -> None:
        self._path = path
        self._handle = handle
        self._start = start
        self._accepting = anyio.CancelScope()
        self._file: tuple[int, int] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the engine is exiting, so that clients must not find it any more."""
        return self._closed

    @property
    def is_there(self) -> bool:
        """Whether the file at the path is the socket that this engine bound last."""
        return self._file is not None and _file_at(self._path) == self._file

    async def bind(self) -> None:
        """Bind the socket and accept connections on it, and no longer on one that was bound before.

        Raises:
            OSError: It cannot be bound.
        """
        listener = await anyio.create_unix_listener(self._path, mode=0o600)
        self._file = _file_at(self._path)
        self._accepting.cancel()
        self._accepting = anyio.CancelScope()
        self._start(self._accept, listener, self._accepting)

    def close(self) -> None:
        """Remove the socket's file, unless it is another engine's; it is not bound again."""
        self._closed = True
        if self.is_there:
            self._path.unlink(missing_ok=True)

    async def _accept(self, listener: SocketListener, scope: anyio.CancelScope) -> None:
        async with listener:
            with scope:
                try:
                    await accept_all(listener, self._handle, self._start)
                finally:
                    if not scope.cancel_called:
                        self._file = None  # broken: the next check binds another


class StateWatch:
    """Watches and repairs the files by which clients find an engine.

    Args:
        paths: The state directory.
        held: The engine's lock file, open and locked.
        socket: The engine's socket.
        leave: Makes the engine stop; called with whether its jobs must end too, because no engine can take them over.
    """

    def __init__(self, paths: StatePaths, held: int, socket: EngineSocket, leave: Callable[[bool], None]) -> None:
        self._paths = paths
        self._held = [held]
        self._socket = socket
        self._leave = leave

    async def keep(self) -> None:
        """Check and repair the files until the state directory is replaced or gone, or another engine serves it."""
        # Kept open: only an open directory tells whether it was moved or removed.
        home = os.open(self._paths.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while is_at(home, self._paths.home):
                if not await self._holds_lock():
                    logger.error("stopping: another engine has taken %s", self._paths.engine_lock)
                    # Its socket is there too: nothing more is repaired.
                    self._leave(False)
                    return
                await self._repair()
                await beat(WATCH_SECONDS)
            removed = not os.fstat(home).st_nlink
        finally:
            os.close(home)
            while len(self._held) > 1:
                os.close(self._held.pop())
        what = "was removed: its jobs are ended" if removed else "was moved or replaced"
        logger.error("stopping: the state directory %s %s", self._paths.home, what)
        self._leave(removed)

    async def _repair(self) -> None:
        # An engine that is exiting has removed its socket itself, and its jobs may take seconds to end.
        if self._socket.closed or self._socket.is_there:
            return
        logger.warning("the socket %s is gone or another's; binding it again", self._paths.socket)
        try:
            prepare(self._paths.home)
            await self._socket.bind()
        except (ClientError, OSError) as error:
            logger.warning("clients cannot find this engine now: %s", error)

    async def _holds_lock(self) -> bool:
        """Take the lock again where its file was removed; return False where another engine has taken it meanwhile."""
        if is_at(self._held[-1], self._paths.engine_lock):
            return True
        try:
            # It retries: a client that checks whether an engine runs holds the lock for a moment.
            held = await anyio.to_thread.run_sync(lock, self._paths.engine_lock, LOCK_SECONDS)
        except (ClientError, OSError) as error:
            logger.warning("the lock file cannot be made again now: %s", error)
            return True
        if held is None:
            return False
        logger.warning("the lock file %s was removed; it is made again", self._paths.engine_lock)
        sign_lock(held)
        self._held.append(held)
        return True


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
