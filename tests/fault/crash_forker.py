"""A process that has imported everything once and forks an engine for each order: hundreds of crashes are cheap.

Orders come as JSON lines on stdin: a state directory, whether to wait for a tracer, and a step of our own code at which
to die or to fail. The answers on stdout: the fork's pid at once, and its wait status once it is over.
"""

import ctypes
import fcntl
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from jobs.client_context import ClientContext
from jobs.errors import StoreError
from jobs.maintenance.db_recovery import open_with_recovery
from jobs.store import writer
from jobs.store.sqlite import SqliteStore
from tests.unit.jobs.support import Parts, parts

BATCHES = 2
JOBS = 2
_PR_SET_PTRACER = 0x59616D61


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(order)
        _say({"pid": pid})
        _say({"status": os.waitpid(pid, 0)[1]})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _run(order: dict[str, Any]) -> None:
    home = Path(order["home"])
    # The jobs must not hold the pipe on which the test waits.
    log = os.open(home / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if order["traced"]:
        _wait_for_tracer()
    if order["die_at"]:
        _die_at_step(order["die_at"])
    if order["fail_at"]:
        _fail_at_step(order["fail_at"], home)
    code = 1
    try:
        anyio.run(_engine, home)
        code = 0
    finally:
        os._exit(code)


def _wait_for_tracer() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, -1, 0, 0, 0)
    while "TracerPid:\t0\n" in Path("/proc/self/status").read_text():
        time.sleep(0.005)
    # From the attachment until the first system call is seen.
    time.sleep(0.05)


def _die_at_step(number: int) -> None:
    """The seam for machines without strace: die before the n-th step that our own code takes towards the disk."""
    left = [number]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step

    for name in ("rename", "mkdir", "unlink", "open", "posix_fallocate"):
        setattr(os, name, counted(getattr(os, name)))
    fcntl.flock = counted(fcntl.flock)
    execute = counted(sqlite3.Connection.execute)
    setattr(writer.GroupConnection, "execute", lambda self, *args: execute(self, *args))  # noqa: B010, PLW0108 - a seam, and a method must be a function


def _fail_at_step(number: int, home: Path) -> None:
    """The same for a full disk: fail the n-th statement of the open database as SQLite does."""
    left = [number]
    execute = sqlite3.Connection.execute

    def step(self: sqlite3.Connection, *args: Any) -> Any:
        left[0] -= 1
        if left[0]:
            return execute(self, *args)
        (home / "trace").write_text("(INJECTED)")
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    setattr(writer.GroupConnection, "execute", step)  # noqa: B010 - a seam


async def _engine(home: Path) -> None:
    """What an engine does: open, go on with what is there, admit what clients ask for again, and run it to its end."""
    state = home / "home"
    state.mkdir(exist_ok=True)
    async with open_with_recovery(state / "jobs.db", state / "trees", SqliteStore.open) as store:
        _note(home / "opened", "")
        # mypy: the parts say MemoryStore where any store will do.
        stores: Any = store
        async with parts(home, processes=True, store=stores) as engine:
            await engine.manager.resume()
            for number in range(BATCHES):
                await _submit(home, engine, number)
            while jobs := await _retrying(store.unfinished):  # noqa: ASYNC110 - the store is all there is to ask
                await anyio.sleep(0.01 * min(len(jobs), 2))
            for job in await _retrying(lambda: store.newest_jobs(limit=100)):
                _note(home / "ends", f"{job.id} {job.status} {job.ended_at}")


async def _submit(home: Path, engine: Parts, number: int) -> None:
    tasks = [f"stub:ledger={home}/ledger stub:say=answer{number}-{job}" for job in range(JOBS)]
    client_context = ClientContext(cwd=str(engine.work), env=engine.client_env, client="a client")
    admission = await _retrying(
        lambda: engine.manager.submit(tasks, client_context=client_context, idempotency_key=f"k{number}")
    )
    _note(home / "acknowledged", f"{admission.batch.id} {' '.join(job.id for job in admission.jobs)}")


async def _retrying(ask: Callable[[], Any]) -> Any:
    while True:
        try:
            return await ask()
        except StoreError as error:
            if not error.transient:
                raise
            await anyio.sleep(0.02)


def _note(path: Path, line: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


if __name__ == "__main__":
    main()
