"""Runs forked engines under fault injection, and says what of their promises the next engine did not keep."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.cli.transcript import Selection, transcript_of
from server.client.state_dir import StatePaths
from tests.fault.crash_forker import BATCHES, JOBS

ROOT = Path(__file__).parents[2]
STRACE = shutil.which("strace")
STEPS = (
    "pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "rename", "renameat", "mkdir", "unlink", "flock",
    "vfork",
)  # fmt: skip
"""Every system call by which an engine changes what outlives it, but for plain writes of its log."""

DISK_STEPS = ("pwrite64", "fdatasync")
"""The calls by which SQLite writes."""

KINDS = ["system", "assistant", "result"]


@dataclass(frozen=True)
class Point:
    """One fault: the n-th time that a thread makes a system call, or the n-th step of our own code.

    Args:
        call: The system call, or "" for a step of our own code.
        number: From 1.
        fault: As strace spells it.
    """

    call: str
    number: int
    fault: str = "signal=KILL"


class CrashForker:
    """Forks engines."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, home: Path, point: Point | None = None) -> int:
        """Run an engine until its jobs are over or it dies, and return its wait status."""
        traced = point is not None and bool(point.call)
        seam = point if point is not None and not point.call else None
        die_at = seam.number if seam and "signal" in seam.fault else 0
        fail_at = seam.number if seam and "error" in seam.fault else 0
        self._send({"home": str(home), "traced": traced, "die_at": die_at, "fail_at": fail_at})
        pid = self._receive()["pid"]
        if point is None or not traced:
            return self._receive()["status"]
        inject = f"inject={point.call}:{point.fault}:when={point.number}"
        return self._watched(pid, home, ["-e", f"trace={point.call}", "-e", inject])

    def count(self, home: Path) -> Mapping[str, int]:
        """Run an engine and return how often the busiest thread made each of the calls."""
        self._send({"home": str(home), "traced": True, "die_at": 0, "fail_at": 0})
        status = self._watched(self._receive()["pid"], home, ["-e", f"trace={','.join(STEPS)}"])
        assert status == 0
        by_thread: Counter[tuple[str, str]] = Counter()
        for line in (home / "trace").read_text().splitlines():
            thread, _, call = line.partition(" ")
            if (name := call.strip().partition("(")[0]) in STEPS:
                by_thread[thread, name] += 1
        most: defaultdict[str, int] = defaultdict(int)
        for (_, name), count in by_thread.items():
            most[name] = max(most[name], count)
        return most

    def _watched(self, pid: int, home: Path, options: Sequence[str]) -> int:
        assert STRACE is not None
        command = [STRACE, "-f", "-qq", "-o", str(home / "trace"), "-p", str(pid), *options]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
            status = self._receive()["status"]
            strace.wait(30)
        return status

    def _send(self, order: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> dict[str, int]:
        assert self._process.stdout is not None
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def crash_forker() -> Iterator[CrashForker]:
    """Start the process that forks engines, and end it."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.fault.crash_forker"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield CrashForker(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def survived(engines: CrashForker, home: Path, point: Point) -> tuple[bool, list[str]]:
    """Run an engine into a fault and another one after it; return whether the fault came, and every broken promise."""
    home.mkdir()
    status = engines.run(home, point)
    promised = _lines(home / "ends")
    came = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if "error" in point.fault:
        came = "(INJECTED)" in "".join(_lines(home / "trace"))
        if status and (home / "opened").exists():
            # It may refuse to open a database on a failing disk, but what it has opened it must go on with.
            return came, [f"{point}: the engine itself ended: {(home / 'engine.log').read_text()[-2000:]}"]
    after = engines.run(home)
    if after:
        return came, [f"{point}: the next engine ended with {after}: {(home / 'engine.log').read_text()[-2000:]}"]
    return came, [f"{point}: {problem}" for problem in _broken(home, promised)]


def _broken(home: Path, promised: Sequence[str]) -> Iterator[str]:
    with closing(sqlite3.connect(home / "home" / "jobs.db")) as database:
        if (check := database.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
            yield f"integrity: {check}"
        jobs = database.execute(
            "SELECT id, batch_id, status, session_id, excerpt, ended_at, root_id, attempt FROM job"
        ).fetchall()
    by_batch: defaultdict[str, set[str]] = defaultdict(set)
    for id_, batch_id, *_ in jobs:
        by_batch[batch_id].add(id_)
    for line in _lines(home / "acknowledged"):
        batch_id, *ids = line.split()
        if by_batch.get(batch_id) != set(ids):
            yield f"acknowledged {line}, stored {by_batch.get(batch_id)}"
    if [len(batch) for batch in by_batch.values()] != [JOBS] * BATCHES:
        yield f"torn or doubled batches: {dict(by_batch)}"
    yield from _broken_outcomes(jobs, promised)
    yield from _broken_processes(home, jobs)


def _broken_outcomes(jobs: Sequence[Any], promised: Sequence[str]) -> Iterator[str]:
    expected = sorted(f"answer{batch}-{job}" for batch in range(BATCHES) for job in range(JOBS))
    if sorted(str(job[4]) for job in jobs) != expected or {job[2] for job in jobs} != {"completed"}:
        yield f"wrong outcomes: {jobs}"
    if missing := set(promised) - {f"{job[0]} {job[2]} {job[5]}" for job in jobs}:
        yield f"an outcome changed: {missing}"


def _broken_processes(home: Path, jobs: Sequence[Any]) -> Iterator[str]:
    starts = Counter(line for line in _lines(home / "ledger") if line.endswith(" begin"))
    if starts != {f"{job[3]} begin": 1 for job in jobs}:
        yield f"starts: {starts} of {[job[3] for job in jobs]}"
    for id_, *_, root_id, attempt in jobs:
        # A second one where the engine was killed between the claim and the launch.
        status = {"jobId": id_, "rootId": root_id, "attempt": attempt, "task": "", "status": "completed"}
        frames = [json.loads(line) for line in transcript_of(StatePaths(home / "home"), status, Selection(raw=True))]
        if (kinds := [frame["type"] for frame in frames if frame["type"] in KINDS]) != KINDS:
            yield f"transcript of {id_}: {kinds}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
