"""The files by which clients find an engine, where it leaves or another engine has come."""

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from server.client.engine_socket import lock
from server.client.state_dir import StatePaths, prepare
from server.engine import state_watch
from server.engine.state_watch import EngineSocket, StateWatch
from server.engine.supervised_tasks import SupervisedTasks
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

TIMEOUT_SECONDS = 10.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_watch, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(state_watch, "LOCK_SECONDS", 0.5)


@pytest.fixture
def paths(home: Path) -> StatePaths:
    return prepare(home / "state")


@contextmanager
def locked(paths: StatePaths) -> Iterator[int]:
    held = lock(paths.engine_lock)
    assert held is not None
    try:
        yield held
    finally:
        os.close(held)


async def hang_up(stream: SocketStream) -> None:
    await stream.aclose()


async def test_an_engine_that_leaves_does_not_bind_its_socket_again(paths: StatePaths):
    with locked(paths) as held:
        async with anyio.create_task_group() as group:
            tasks = SupervisedTasks(group)
            own = EngineSocket(paths.socket, hang_up, tasks.start)
            await own.bind()
            tasks.start(StateWatch(paths, held, own, lambda _removed: None).keep)
            own.close()
            assert not paths.socket.exists()
            # A lock file that is there again shows that the watch has looked since, and the next one that it looked on.
            for _ in range(2):
                paths.engine_lock.unlink()
                await until(_exists(paths.engine_lock))
            assert not paths.socket.exists()
            group.cancel_scope.cancel()


async def test_an_engine_whose_lock_another_one_has_leaves_that_ones_socket_alone(paths: StatePaths):
    left: list[bool] = []
    with locked(paths) as held:
        async with anyio.create_task_group() as group:
            own = EngineSocket(paths.socket, hang_up, SupervisedTasks(group).start)
            await own.bind()
            paths.engine_lock.unlink()
            paths.socket.unlink()
            with locked(paths), socket.socket(socket.AF_UNIX) as other:
                other.bind(os.fspath(paths.socket))
                before = paths.socket.lstat()
                with anyio.fail_after(TIMEOUT_SECONDS):
                    await StateWatch(paths, held, own, left.append).keep()
                own.close()
                assert os.path.samestat(paths.socket.lstat(), before)
            group.cancel_scope.cancel()
    assert left == [False]


async def test_a_client_that_holds_a_new_lock_file_for_a_moment_is_not_taken_for_another_engine(paths: StatePaths):
    left: list[bool] = []
    with locked(paths) as held:
        async with anyio.create_task_group() as group:
            tasks = SupervisedTasks(group)
            own = EngineSocket(paths.socket, hang_up, tasks.start)
            await own.bind()
            paths.engine_lock.unlink()
            with locked(paths):
                tasks.start(StateWatch(paths, held, own, left.append).keep)
                await anyio.wait_all_tasks_blocked()
            await until(_locked(paths))
            assert left == []
            group.cancel_scope.cancel()


def _exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def exists() -> bool:
        return path.exists()

    return exists


def _locked(paths: StatePaths) -> Callable[[], Awaitable[bool]]:
    async def is_locked() -> bool:
        handle = lock(paths.engine_lock)
        if handle is None:
            return True
        os.close(handle)
        return False

    return is_locked
