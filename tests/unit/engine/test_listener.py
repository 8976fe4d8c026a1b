"""How the engine takes connections where descriptors are scarce."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio.abc import SocketStream

from server.engine import listener
from server.engine.listener import accept_all
from server.engine.supervised_tasks import SupervisedTasks

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, resource, sys
sys.path.append(sys.argv[1])
from server.engine.listener import FILES, allow_many_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
print(json.dumps([allow_many_files(), most, resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard]))
"""


class Listener:
    """Gives what a test lists: connections, or errors that it raises."""

    def __init__(self, *given: str | OSError) -> None:
        self._given = list(given)

    async def accept(self) -> SocketStream:
        await anyio.lowlevel.checkpoint()
        if not self._given:
            await anyio.sleep_forever()
        one = self._given.pop(0)
        if isinstance(one, OSError):
            raise one
        return cast("SocketStream", one)


async def taken(listener: Listener, count: int) -> list[Any]:
    found: list[Any] = []
    enough = anyio.Event()

    async def handle(stream: SocketStream) -> None:
        found.append(stream)
        if len(found) == count:
            enough.set()

    async with anyio.create_task_group() as group:
        group.start_soon(accept_all, listener, handle, SupervisedTasks(group).start)
        with anyio.fail_after(60):
            await enough.wait()
        group.cancel_scope.cancel()
    return found


async def test_without_a_descriptor_the_next_client_waits_and_nobody_else_is_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(listener, "RETRY_SECONDS", 0.0)
    accepting = Listener("a", OSError(errno.EMFILE, "too many"), OSError(errno.ENFILE, "too many"), "b")
    assert await taken(accepting, 2) == ["a", "b"]


async def test_a_listener_that_is_broken_is_an_error():
    with pytest.RaisesGroup(OSError):
        await taken(Listener(OSError(errno.EBADF, "bad")), 1)


def test_the_limit_of_open_files_is_lifted_as_far_as_may_be():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    lifted, most, same = json.loads(done.stdout)
    assert (lifted, same) == (most, True)
