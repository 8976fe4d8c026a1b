"""What the engine adds to the processes it runs: throughput, latency, CPU, and trees beside their critical path."""

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
import pytest

import orchestration.patterns  # noqa: F401 - an engine has loaded it half a second after its start
from jobs.client_context import ClientContext
from jobs.model import Job, JobStatus
from jobs.permissions.visibility import JobSelection, Visibility
from jobs.processes import process as shim
from jobs.settings import Settings
from jobs.spec import TaskRequest
from jobs.waiting import WaitMode
from server.client.state_dir import prepare
from server.engine.app import assemble, freeze_imports_for_gc
from server.mcp.connection_state import Services
from tests.benchmarks.watched import Onlooker, fork_server_of, told

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
STUB = HERE.parent / "fakes" / "claude_stub.sh"
ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
TIMEOUT_SECONDS = 300.0
STRETCH = 5.0
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
        # As the engine does in its own process.
        freeze_imports_for_gc()
        yield services
        group.cancel_scope.cancel()


async def run(services: Services, tasks: Sequence[str | TaskRequest], cwd: Path) -> Sequence[Job]:
    """Run a batch to its end and return its jobs, all of which must have completed."""
    ids = await services.manager.execute_batch_async(tasks, client_context=ClientContext(cwd=str(cwd), env=ENVIRONMENT))
    visibility = Visibility(services.store, None)

    async def read() -> JobSelection:
        return JobSelection(jobs=await visibility.jobs(ids))

    report = await services.waiting.wait(read, mode=WaitMode.ALL, seconds=TIMEOUT_SECONDS)
    assert [job.status for job in report.done] == [JobStatus.COMPLETED] * len(tasks), report.done
    return report.done


async def test_a_random_tree_of_five_hundred_jobs_beside_its_critical_path(tmp_path: Path):
    root = random_tree(random.Random(1), 500, STRETCH)
    write_plan(root, tmp_path)
    async with engine(tmp_path / "state", node_stub(tmp_path), max_running=1000) as services:
        began, cpu = time.monotonic(), time.process_time()
        await run(services, [TaskRequest(task="node:0 ", can_decompose=True)], tmp_path)
        took, spent = time.monotonic() - began, time.process_time() - cpu
        server = fork_server_of(Onlooker(os.getpid()))
        assert server is not None
        launching = psutil.Process(server.pid).cpu_times()
        total = (await services.store.rollup_all()).total
    told(
        f"{total} jobs of {10 * STRETCH:.0f} to {300 * STRETCH:.0f} ms",
        f"{took / root.critical:.2f} of the critical path of {root.critical:.2f} s; "
        f"CPU: engine {spent:.2f} s, fork server {launching.user + launching.system:.2f} s",
        "<= 1.10",
    )


def xargs(directory: Path, count: int) -> float:
    """Run the stub through the same shim by `xargs -P` and return the seconds."""
    task = json.dumps({"type": "user", "message": {"role": "user", "content": "hello"}})
    for number in range(count):
        attempt = directory / str(number)
        attempt.mkdir(parents=True)
        (attempt / "in").write_text(f"{{}}\n{task}\n")
    script = 'exec /bin/sh -c "$SHIM" claude-jobs "$1" / "" "" 022 "$STUB" -p'
    environ = {**ENVIRONMENT, "SHIM": shim.SHIM, "STUB": str(STUB)}
    numbers = "\n".join(str(directory / str(number)) for number in range(count))
    parallel = str(4 * (os.cpu_count() or 1))
    began = time.monotonic()
    subprocess.run(
        [shutil.which("xargs") or "xargs", "-P", parallel, "-I{}", "/bin/sh", "-c", script, "sh", "{}"],
        input=numbers.encode(),
        env=environ,
        # The shim's own exit status says nothing; how the stub ended is in its file.
        check=False,
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


def node_stub(directory: Path) -> Path:
    """Return the program that plays the nodes of a tree: in C where there is a compiler, else a shell script."""
    compiler, stub = shutil.which("cc"), directory / "node_stub"
    if compiler is None:
        return HERE / "node_stub.sh"
    subprocess.run([compiler, "-O1", "-o", str(stub), str(HERE / "node_stub.c")], check=True)
    return stub


def write_plan(node: Node, directory: Path) -> None:
    """Write what the stub plays for a node and everything below it."""
    subtasks = [f"node:{child.number} " for child in node.children]
    output = {"subtasks": subtasks} if subtasks else {"answer": "done"}
    tail = f'"is_error":false,"result":"done","structured_output":{json.dumps(output)}}}'
    (directory / str(node.number)).write_text(f"{node.seconds:.3f}\n{tail}\n")
    for child in node.children:
        write_plan(child, directory)
