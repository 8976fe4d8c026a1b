"""What the benchmarks share: lines with the machine's load, and a detached engine looked at from outside."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.support.engines import House, Pump

TICKS = os.sysconf("SC_CLK_TCK")

ROOMY = {
    "CLAUDE_JOBS_MAX_CHILDREN": "20000",
    "CLAUDE_JOBS_MAX_JOBS": "20000",
    "CLAUDE_JOBS_MAX_CONCURRENT": json.dumps({"0": 20000}),
    "CLAUDE_JOBS_MEMORY_FLOOR_BYTES": "0",
    "CLAUDE_JOBS_MAX_RUNNING": "64",
    "CLAUDE_JOBS_MAX_STARTING": "64",
}
"""Settings that hold nothing back."""

_CALL = json.dumps(
    {
        "type": "assistant",
        "message": {"content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "make test"}}]},
    }
)

_QUIET_SECONDS = 1.0
_QUIET_CPU = 0.02
_TIMEOUT_SECONDS = 60.0


def told(what: str, measured: str, aim: str) -> None:
    """Print one row of the table: what was measured, what is aimed at, and the load of the last minute."""
    print(f"\n{what}: {measured} (aim {aim}; load {os.getloadavg()[0]:.1f})", end="")


def milliseconds(call: Callable[[], object], rounds: int) -> list[float]:
    """Return how long each of several calls took, the fastest one first."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1e3)
    return sorted(taken)


def median_ms(call: Callable[[], object], rounds: int) -> float:
    """Return how long a call takes at the median."""
    return statistics.median(milliseconds(call, rounds))


class Spent(NamedTuple):
    """What a process has spent since it began.

    Args:
        cpu: Seconds of CPU, without those of its children.
        voluntary: Context switches in which a thread had to wait.
        involuntary: Context switches in which a thread was made to.
    """

    cpu: float
    voluntary: int
    involuntary: int


class Onlooker:
    """Looks at one process from outside.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._switches: dict[str, tuple[int, int]] = {}

    def spent(self) -> Spent:
        """Return what it has spent; the switches of a thread that has ended count as they were last seen."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                lines = (thread / "status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            counts = {name: value for name, _, value in (line.partition(":") for line in lines)}
            self._switches[thread.name] = (
                int(counts["voluntary_ctxt_switches"]),
                int(counts["nonvoluntary_ctxt_switches"]),
            )
        voluntary, involuntary = (sum(column) for column in zip(*self._switches.values(), strict=True))
        return Spent((int(fields[11]) + int(fields[12])) / TICKS, voluntary, involuntary)

    def quiet(self) -> Spent:
        """Wait until it hardly works any more, and return what it has spent by then."""
        until = time.monotonic() + _TIMEOUT_SECONDS
        spent = self.spent()
        while time.monotonic() < until:
            time.sleep(_QUIET_SECONDS)
            before, spent = spent, self.spent()
            if spent.cpu - before.cpu < _QUIET_CPU:
                break
        return spent

    def memory(self) -> float:
        """Return its resident memory in MB."""
        return float(psutil.Process(self.pid).memory_info().rss / 1e6)


def engine_of(house: House) -> Onlooker:
    """Return an onlooker of the engine that serves a house; it is started where none runs."""
    house.start_engine()
    status = house.control("status")
    assert status is not None
    return Onlooker(status["pid"])


def with_chatty_jobs(house: House) -> House:
    """Return a house whose jobs call a tool each second for eight seconds."""
    script = house.base / "chatty"
    init = '{"type":"system","subtype":"init"}'
    result = '{"type":"result","subtype":"success","is_error":false,"result":"x","terminal_reason":"completed"}'
    calls = f"echo '{_CALL}'; sleep 1; " * 8
    script.write_text(f"#!/bin/sh\nIFS= read -r first; IFS= read -r second\necho '{init}'\n{calls}\necho '{result}'\n")
    script.chmod(0o755)
    return House(base=house.base, environ={**house.environ, "CLAUDE_JOBS_CLI": str(script)}, pids=house.pids)


def fork_server_of(engine: Onlooker) -> Onlooker | None:
    """Return an onlooker of the process that starts an engine's shims, or None where it has none."""
    for child in psutil.Process(engine.pid).children():
        if any("fork_server" in word for word in child.cmdline()):
            return Onlooker(child.pid)
    return None


def run_batch(client: Pump, tasks: Sequence[Any], **options: Any) -> float:
    """Run a batch and return the seconds from its submission until the client has seen all jobs done."""
    began = time.monotonic()
    summary = client.json("claude_run_batch", tasks=list(tasks), **options)["results_summary"]
    took = time.monotonic() - began
    assert summary["successful"] == len(tasks), summary
    return took


def tree_cpu(roots: Iterable[int], seen: dict[tuple[int, float], float]) -> None:
    """Note in `seen` the CPU seconds of processes and everything below them; one that ends keeps what was last seen."""
    for root in roots:
        try:
            process = psutil.Process(root)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for one in family:
            try:
                times = one.cpu_times()
                seen[one.pid, one.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
