"""What the engine adds to the processes it runs: throughput, latency, CPU, and trees beside their critical path."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from jobs.attempts.origin import Origin
from jobs.claude import process as shim
from jobs.intake import TaskRequest
from jobs.model import Job, JobStatus
from jobs.rights.visibility import Scope, Visibility
from jobs.settings import Settings
from jobs.waiting import WaitMode
from server.engine import assemble
from server.front_door.locate import pump_command
from server.front_door.places import prepare
from server.protocol.tools import Services

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
STUB = HERE.parent / "fakes" / "claude_stub.sh"
NODE_STUB = HERE / "node_stub.sh"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
PATIENCE = 300.0
STRETCHES = (1.0, 5.0)
"""A tree of 500 jobs of 10 to 300 ms costs more CPU than two cores have in its critical path; five times as long it
waits rather than computes, as a tree of Claude jobs does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One job of a random tree."""

    number: int
    seconds: float
    children: "tuple[Node, ...]" = ()

    @property
    def critical(self) -> float:
        """Seconds from its start to its end if nothing but its own work and its children's holds it up."""
        return self.seconds + max((child.critical for child in self.children), default=0.0)


@asynccontextmanager
async def engine(home: Path, cli: Path, *, max_running: int = 64) -> AsyncIterator[Services]:
    """Assemble an engine's services in this process, with limits that hold nothing back."""
    settings = Settings(
        home=home,
        cli=cli,
        max_children=5000,
        max_jobs=5000,
        max_concurrent={0: 5000},
        max_running=max_running,
        max_starting=max_running,
    )
    async with anyio.create_task_group() as group, assemble(settings, prepare(home), group) as services:
        yield services
        group.cancel_scope.cancel()


async def run(services: Services, tasks: Sequence[str | TaskRequest], cwd: Path) -> Sequence[Job]:
    """Run a batch to its end and return its jobs, all of which must have completed."""
    ids = await services.manager.execute_batch_async(tasks, origin=Origin(cwd=str(cwd), env=ENVIRONMENT))
    sight = Visibility(services.store, None)

    async def read() -> Scope:
        return Scope(jobs=await sight.jobs(ids))

    report = await services.waiting.wait(read, mode=WaitMode.ALL, seconds=PATIENCE)
    assert [job.status for job in report.done] == [JobStatus.COMPLETED] * len(tasks), report.done
    return report.done


async def test_two_hundred_jobs_that_answer_at_once_beside_xargs(tmp_path: Path):
    count = 200
    plain = min(xargs(tmp_path / f"xargs{turn}", count) for turn in range(2))
    print(f"\n{'runner':>12} {'s':>6} {'jobs/s':>7} {'of xargs':>8} {'engine CPU ms/job':>18}")
    print(f"{'xargs -P':>12} {plain:>6.2f} {count / plain:>7.0f} {1:>8.2f}")
    async with engine(tmp_path / "state", STUB) as services:
        for turn in ("cold", "warm", "warm"):
            began, cpu = time.monotonic(), time.process_time()
            await run(services, ["hello"] * count, tmp_path)
            took, spent = time.monotonic() - began, time.process_time() - cpu
            ratio, each = plain / took, spent / count * 1e3
            print(f"{'engine ' + turn:>12} {took:>6.2f} {count / took:>7.0f} {ratio:>8.2f} {each:>18.2f}")


async def test_sixty_jobs_of_one_second(tmp_path: Path):
    async with engine(tmp_path / "state", STUB) as services:
        await run(services, ["hello"] * 5, tmp_path)
        began = time.monotonic()
        await run(services, ["stub:sleep=1"] * 60, tmp_path)
        print(f"\n60 jobs of one second: {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize("stretch", STRETCHES)
async def test_a_random_tree_of_five_hundred_jobs_beside_its_critical_path(tmp_path: Path, stretch: float):
    root = random_tree(random.Random(1), 500, stretch)
    write_plan(root, tmp_path)
    async with engine(tmp_path / "state", NODE_STUB, max_running=1000) as services:
        began, cpu = time.monotonic(), time.process_time()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        await run(services, [TaskRequest(task="node:0 ", divisible=True)], tmp_path)
        took, spent = time.monotonic() - began, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        total = (await services.store.rollup_all()).total
    print(
        f"\n{total} jobs of {10 * stretch:.0f} to {300 * stretch:.0f} ms: critical path {root.critical:.2f} s, "
        f"makespan {took:.2f} s, {took / root.critical:.2f} of it; "
        f"CPU: engine {spent:.2f} s, processes {children:.2f} s on {os.cpu_count()} cores"
    )


def test_first_reply_of_the_pump_with_the_real_engine(tmp_path: Path):
    home = tmp_path / "state"
    environ = {**ENVIRONMENT, "HOME": str(tmp_path), "CLAUDE_JOBS_HOME": str(home), "CLAUDE_JOBS_CLI": str(STUB)}
    try:
        cold = first_reply(home, environ)
        warm = sorted(first_reply(home, environ) for _ in range(9))
    finally:
        subprocess.run(
            [sys.executable, "-I", str(HERE.parents[1] / "server" / "__main__.py"), "engine", "stop"],
            env=environ,
            check=True,
            capture_output=True,
        )
    print(f"\nfirst reply: cold {cold:.2f} s, warm median {warm[4] * 1e3:.0f} ms, worst {warm[-1] * 1e3:.0f} ms")


def first_reply(home: Path, environ: dict[str, str]) -> float:
    """Start the pump as a client does and return the seconds until it answers `initialize`."""
    command, arguments = pump_command(home)
    began = time.monotonic()
    with subprocess.Popen([command, *arguments], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pump:
        assert pump.stdin is not None
        assert pump.stdout is not None
        info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        pump.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}).encode() + b"\n"
        )
        pump.stdin.flush()
        reply = json.loads(pump.stdout.readline())
        took = time.monotonic() - began
        assert reply["result"]["serverInfo"]["name"] == "claude-jobs"
    return took


def xargs(directory: Path, count: int) -> float:
    """Run the stub through the same shim by `xargs -P` and return the seconds."""
    task = json.dumps({"type": "user", "message": {"role": "user", "content": "hello"}})
    for number in range(count):
        attempt = directory / str(number)
        attempt.mkdir(parents=True)
        (attempt / "in").write_text(f"{{}}\n{task}\n")
    script = 'exec /bin/sh -c "$SHIM" claude-jobs "$1" / "" "$STUB" -p'
    environ = {**ENVIRONMENT, "SHIM": shim._SHIM, "STUB": str(STUB)}
    numbers = "\n".join(str(directory / str(number)) for number in range(count))
    parallel = str(4 * (os.cpu_count() or 1))
    began = time.monotonic()
    subprocess.run(
        [shutil.which("xargs") or "xargs", "-P", parallel, "-I{}", "/bin/sh", "-c", script, "sh", "{}"],
        input=numbers.encode(),
        env=environ,
        check=True,
    )
    took = time.monotonic() - began
    assert all((directory / str(number) / "lock").read_text().endswith("exit 0\n") for number in range(count))
    return took


def random_tree(dice: random.Random, count: int, stretch: float) -> Node:
    """Return an irregular tree of `count` nodes, at most five levels deep."""
    parents: list[tuple[int, int]] = [(0, 0)]
    below: dict[int, list[int]] = {}
    for number in range(1, count):
        parent, depth = dice.choice([place for place in parents if place[1] < 4])
        below.setdefault(parent, []).append(number)
        parents.append((number, depth + 1))
    seconds = [dice.uniform(0.01, 0.3) * stretch for _ in range(count)]

    def node(number: int) -> Node:
        children = tuple(node(child) for child in below.get(number, ()))
        return Node(number=number, seconds=seconds[number], children=children)

    return node(0)


def write_plan(node: Node, directory: Path) -> None:
    """Write what the stub plays for a node and everything below it."""
    subtasks = [f"node:{child.number} " for child in node.children]
    output = {"subtasks": subtasks} if subtasks else {"answer": "done"}
    tail = f'"is_error":false,"result":"done","structured_output":{json.dumps(output)}}}'
    (directory / str(node.number)).write_text(f"{node.seconds:.3f}\n{tail}\n")
    for child in node.children:
        write_plan(child, directory)
