"""Plays an engine whose disk fills up under running jobs, and prints what came of it as one JSON line.

With `tmpfs` it mounts a small file system over the state directory first, which needs a mount namespace of its own;
with `seam` it makes SQLite and the file system say the same.
"""

import ctypes
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio

from jobs.errors import DiskFullError
from jobs.maintenance.db_recovery import open_with_recovery
from jobs.model import JobStatus
from jobs.store import writer
from jobs.store.disk_reserve import RESERVE_BYTES
from jobs.store.sqlite import SqliteStore
from tests.unit.jobs.support import Parts, parts

TMPFS_BYTES = 28 * 1024 * 1024
ROUNDS = 20


class TmpfsDisk:
    """A real file system that is full."""

    def __init__(self, state: Path) -> None:
        self._filler = state / "filler"
        if ctypes.CDLL(None, use_errno=True).mount(
            b"tmpfs", os.fsencode(state), b"tmpfs", 0, f"size={TMPFS_BYTES}".encode()
        ):
            raise OSError(ctypes.get_errno(), "mount")

    def fill(self) -> None:
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1024 * 1024, 4096):
            try:
                while os.write(descriptor, bytes(size)):
                    pass
            except OSError:
                continue
        os.close(descriptor)

    def empty(self) -> None:
        self._filler.unlink()


class SeamDisk:
    """A disk that says it is full for as long as the reserve has not been given up."""

    def __init__(self, state: Path) -> None:
        self._full = False
        execute, statvfs = sqlite3.Connection.execute, os.statvfs

        def refusing(connection: writer.GroupConnection, *args: Any) -> Any:
            if (
                self._full
                and args[0] == "COMMIT"
                and "IMMEDIATE" in connection.begin
                and (state / "jobs.db.reserve").exists()
            ):
                execute(connection, "ROLLBACK")
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return execute(connection, *args)

        def measured(path: Path) -> Any:
            return SimpleNamespace(f_bavail=0, f_frsize=1) if self._full else statvfs(path)

        writer.GroupConnection.execute = refusing  # type: ignore[method-assign,assignment]  # a seam
        os.statvfs = measured  # type: ignore[assignment]  # a seam

    def fill(self) -> None:
        self._full = True

    def empty(self) -> None:
        self._full = False


async def _play(base: Path, make: Callable[[Path], TmpfsDisk | SeamDisk]) -> dict[str, Any]:
    state = base / "home"
    state.mkdir()
    disk = make(state)
    async with open_with_recovery(state / "jobs.db", state / "trees", SqliteStore.open) as store:
        stores: Any = store  # the parts say MemoryStore where any store will do
        async with parts(base, processes=True, store=stores) as engine:
            return await _scenario(base, disk, store, engine)


async def _scenario(base: Path, disk: TmpfsDisk | SeamDisk, store: SqliteStore, engine: Parts) -> dict[str, Any]:
    acknowledged = await engine.run("before")
    await engine.over(*acknowledged)
    running = await engine.run(*[f"stub:wait={base}/go stub:say=after"] * 3)
    for job_id in running:
        await engine.reaches(job_id, JobStatus.RUNNING)
        while not _begun(engine, await engine.job(job_id)):  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.02)
    queued_at = await store.newest_jobs(limit=1)
    disk.fill()
    refused = [await _refusal(engine) for _ in range(ROUNDS)]
    (base / "go").touch()
    ended = await engine.over(*running)
    refused_after = [await _refusal(engine) for _ in range(ROUNDS)]
    reserve = _reserve(base)
    unchanged = await store.newest_jobs(limit=1)
    disk.empty()
    recovered = await engine.run("again")
    again = await engine.over(*recovered)
    with closing(sqlite3.connect(base / "home" / "jobs.db")) as database:
        integrity = database.execute("PRAGMA integrity_check").fetchone()[0]
    return {
        "refused": [text for text in refused + refused_after if text],
        "asked": 2 * ROUNDS,
        "ended": [job.status for job in ended],
        "excerpts": [job.excerpt for job in ended],
        "reserveSpent": reserve < RESERVE_BYTES,
        "nothingAdmitted": queued_at[0].id == unchanged[0].id,
        "again": [job.status for job in again],
        "reserveBack": _reserve(base) == RESERVE_BYTES,
        "integrity": integrity,
        "stored": (await store.rollup_all()).total,
    }


def _reserve(base: Path) -> int:
    path = base / "home" / "jobs.db.reserve"
    return path.stat().st_size if path.exists() else 0


def _begun(engine: Parts, job: Any) -> bool:
    transcript = Path(engine.runner.transcript(job))
    return transcript.exists() and transcript.stat().st_size > 0


async def _refusal(engine: Parts) -> str:
    try:
        await engine.run("too much")
    except DiskFullError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    kinds: dict[str, Callable[[Path], TmpfsDisk | SeamDisk]] = {"tmpfs": TmpfsDisk, "seam": SeamDisk}
    print(json.dumps(anyio.run(_play, Path(sys.argv[2]), kinds[sys.argv[1]])))
