"""Counts the files and functions of this project that run on the way of five flows, from an engine in this process.

    python -m tests.architecture.trace_flows [-v] [--json] [flow ...]

A function counts once, whatever it is called. Comprehensions and lambdas count to the function that holds them.
Properties count: a reader opens them too. Methods that `dataclass` writes do not, nor does the body of a module or a
class. Not seen is what other processes run: the pump, which carries lines, and the fork server, which starts the shim.

Each flow starts in an idle engine that has run a job before. A timer may run something meanwhile, so each flow is
run several times, and what every run passed through counts.
"""

import argparse
import itertools
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from jobs.model import Job, JobStatus
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.process import Process, launch
from jobs.runner.launch import Launcher
from jobs.runner.settle import Settler
from jobs.runner.supervise import RunningAttempt
from jobs.settings_sources import ClientVariables
from server.client.state_dir import prepare
from server.client.wire import Hello, Role
from server.engine.app import serve
from tests.support.subtasks import asking
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
STUB = ROOT / "tests" / "fakes" / "claude_stub.sh"
PACKAGES = tuple(f"{ROOT / package}{os.sep}" for package in ("server", "jobs", "orchestration"))

SECONDS = 60.0
"""Longest that one step may take, on a busy machine."""
RUNS = 3
QUIET_SECONDS = 0.3
"""An engine in which nothing ran for so long is idle; its own timers come once a second."""

_INNER = re.compile(r"(\.<locals>)?\.<(lambda|listcomp|setcomp|dictcomp|genexpr)>")

Mark = tuple[Callable[..., object], Callable[[Any], bool]]
"""A function, and what tells from the value that it returns that the flow has come to its end there."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of this project.

    Args:
        file: Relative to the repository.
        name: With the names of what it is defined in.
        lines: How many lines it has; of one that was counted for a lambda alone, those of the lambda.
    """

    file: str
    name: str
    lines: int = field(compare=False)


class Trace:
    """Records which functions run, in every thread that starts after it."""

    def __init__(self) -> None:
        self._codes: dict[CodeType, None] = {}
        self._marks: list[Mark] = []
        self._open = False
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def clear(self) -> None:
        self._codes, self._marks, self._open = {}, [], True

    @property
    def empty(self) -> bool:
        return not self._codes

    @property
    def over(self) -> bool:
        return not self._open

    def end_at(self, *marks: Mark) -> None:
        """Start to record, and stop once each of the marks has been met."""
        self.clear()
        self._marks = list(marks)

    def stop(self) -> None:
        self._open = False

    def functions(self) -> list[Function]:
        """Return what ran, in the order of the first calls."""
        found: dict[tuple[str, str], Function] = {}
        for code in list(self._codes):
            name = _INNER.sub("", code.co_qualname)
            file = str(Path(code.co_filename).relative_to(ROOT))
            lines = {line for _, _, line in code.co_lines() if line is not None}
            found.setdefault((file, name), Function(file, name, max(lines) - min(lines) + 1))
        return list(found.values())

    def _event(self, frame: FrameType, event: str, value: Any) -> None:
        if not self._open or event not in {"call", "return"}:
            return
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGES):
            return
        # The body of a module or of a class has no variables of its own in fast slots; a function has.
        if code.co_flags & _FUNCTION:
            self._codes.setdefault(code)
        if event == "return" and self._marks:
            self._meet(code, value)

    def _meet(self, code: CodeType, value: Any) -> None:
        for mark in self._marks:
            function, is_end = mark
            # A coroutine that only waits returns a future here.
            if getattr(function, "__code__", None) is code and is_end(value):
                self._marks.remove(mark)
                self._open = bool(self._marks)
                return


_FUNCTION = 0x1 | 0x2
"""`CO_OPTIMIZED` and `CO_NEWLOCALS`."""


class Client:
    """An MCP client of the engine's socket.

    Args:
        stream: The connection.
    """

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._ids = itertools.count(1)

    async def greet(self, work: Path, **hello: Any) -> None:
        await self._stream.send(Hello(**{"cwd": str(work), "env": {"PATH": "/usr/bin:/bin"}, **hello}).encode())
        welcome = await self.receive()
        assert welcome["ok"], welcome

    async def shake_hands(self) -> None:
        info = {"name": "trace", "version": "1"}
        await self.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=info)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def send(self, message: dict[str, Any]) -> None:
        await self._stream.send(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any]:
        with anyio.fail_after(SECONDS):
            message: dict[str, Any] = json.loads(await self._lines.receive_until(b"\n", 1 << 26))
        return message

    async def begin(self, method: str, **params: Any) -> int:
        number = next(self._ids)
        await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    async def end(self, number: int) -> Any:
        while (answer := await self.receive()).get("id") != number:
            pass
        return answer["result"]

    async def ask(self, method: str, **params: Any) -> Any:
        return await self.end(await self.begin(method, **params))

    async def call(self, tool: str, **arguments: Any) -> Any:
        result = await self.ask("tools/call", name=tool, arguments=arguments)
        assert not result.get("isError"), result
        return json.loads(result["content"][0]["text"])


class Bench:
    """An engine in this process, a client of it, and what the flows have in common.

    Args:
        base: A directory of its own.
        trace: What records.
    """

    def __init__(self, base: Path, trace: Trace) -> None:
        self.trace = trace
        self.state = prepare(base / "state")
        self.work = base / "work"
        self.work.mkdir(exist_ok=True)
        self._names = itertools.count(1)

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[None]:
        variables = {"CLAUDE_JOBS_CLI": str(STUB), "CLAUDE_JOBS_GRACE_SECONDS": "0.2"}
        ready = anyio.Event()
        async with anyio.create_task_group() as group:
            run = partial(serve, self.state.home, ClientVariables(values=variables), on_ready=ready.set)
            group.start_soon(run)
            with anyio.fail_after(SECONDS):
                await ready.wait()
            yield
            self.trace.stop()
            async with await anyio.connect_unix(self.state.socket) as stream:
                client = Client(stream)
                await client.greet(self.work, role=Role.CONTROL)
                await client.send({"do": "stop"})
                assert (await client.receive())["leaving"]

    @asynccontextmanager
    async def client(self, **hello: Any) -> AsyncIterator[Client]:
        async with await anyio.connect_unix(self.state.socket) as stream:
            client = Client(stream)
            await client.greet(self.work, **hello)
            await client.shake_hands()
            yield client

    def file(self) -> Path:
        """Return the path of a file in the working directory that is not there yet."""
        return self.work / f"f{next(self._names)}"

    async def running(self, client: Client, **arguments: Any) -> str:
        """Start a job whose process waits, and return its id once that has said something."""
        job_id: str = (await client.call("claude_run_async", **arguments))["jobId"]

        async def speaks() -> bool:
            return any(path.stat().st_size for path in self._attempts(job_id, "out"))

        await until(speaks, SECONDS)
        return job_id

    def attempt_file(self, job_id: str, name: str) -> Path:
        return next(self._attempts(job_id, name))

    async def quiet(self) -> None:
        """Wait until nothing of this project runs."""
        self.trace.clear()
        with anyio.fail_after(SECONDS):
            while True:
                await anyio.sleep(QUIET_SECONDS)
                if self.trace.empty:
                    return
                self.trace.clear()

    async def recorded(self) -> list[Function]:
        """Return what ran until the flow's end."""

        async def over() -> bool:
            return self.trace.over

        await until(over, SECONDS)
        return self.trace.functions()

    def _attempts(self, job_id: str, name: str) -> Iterator[Path]:
        return self.state.trees.glob(f"*/{job_id}/*/{name}")


async def batch_call(bench: Bench) -> list[Function]:
    """From a call of claude_run_batch_async on the socket to the start of its job's process."""
    async with bench.engine(), bench.client() as client:
        await _warmed(client)
        await bench.quiet()
        gate = bench.file()
        bench.trace.end_at(_LAUNCHED)
        batch = await client.call("claude_run_batch_async", tasks=[f"stub:wait={gate}"])
        functions = await bench.recorded()
        gate.touch()
        await client.call("claude_wait", batchId=batch["batchId"])
    return functions


async def childs_end(bench: Bench) -> list[Function]:
    """From the last output of a child to the answer of its parent's claude_wait."""
    async with bench.engine(), bench.client() as client:
        await _warmed(client)
        gate, parents_gate = bench.file(), bench.file()
        parent = await bench.running(client, task=f"stub:wait={parents_gate}")
        token = json.loads(bench.attempt_file(parent, "in").read_bytes().splitlines()[0])["claude_jobs_token"]
        async with bench.client(token=token) as job:
            child = await bench.running(job, task=f"stub:wait={gate}")
            request = await job.begin("tools/call", name="claude_wait", arguments={"jobIds": [child]})
            await bench.quiet()
            bench.trace.clear()
            gate.touch()
            await job.end(request)
            bench.trace.stop()
        functions = bench.trace.functions()
        parents_gate.touch()
        await client.call("claude_wait", jobIds=[parent])
    return functions


async def cancel(bench: Bench) -> list[Function]:
    """From a call of claude_kill_job on the socket to the outcome of the job that ran, written."""
    async with bench.engine(), bench.client() as client:
        await _warmed(client)
        job_id = await bench.running(client, task=f"stub:wait={bench.file()}")
        await bench.quiet()
        bench.trace.end_at((Settler.write, lambda job: isinstance(job, Job) and job.status is JobStatus.CANCELLED))
        await client.call("claude_kill_job", jobId=job_id)
        return await bench.recorded()


async def restart(bench: Bench) -> list[Function]:
    """From an engine's start to one job of the last engine adopted, and another, lost meanwhile, started again."""
    gate = bench.file()
    async with bench.engine(), bench.client() as client:
        await _warmed(client)
        lives = await bench.running(client, task=f"stub:wait={gate}")
        lost = await bench.running(client, task=f"stub:wait={gate}")
    shim = AttemptDirectory(bench.attempt_file(lost, "in").parent).shim_pid()
    assert shim is not None
    os.killpg(shim, signal.SIGKILL)
    bench.trace.end_at(_ADOPTED, _ADOPTED, _LAUNCHED)
    async with bench.engine(), bench.client() as client:
        functions = await bench.recorded()
        gate.touch()
        await client.call("claude_wait", jobIds=[lives, lost])
    return functions


async def decompose(bench: Bench) -> list[Function]:
    """From a job's answer that asks for two subtasks to its session's next start, with what they answered."""
    async with bench.engine(), bench.client() as client:
        await _warmed(client)
        pipe = bench.file()
        os.mkfifo(pipe)
        started = await client.call("claude_run_async", task=f"stub:replay={pipe}", strategy="decompose")
        # Opened once its process reads.
        async with await anyio.open_file(pipe, "w") as output:
            await bench.quiet()
            bench.trace.end_at(_LAUNCHED, _LAUNCHED, _LAUNCHED)
            await output.write(asking("stub:say=one", "stub:say=two"))
        functions = await bench.recorded()
        await client.call("claude_wait", jobIds=[started["jobId"]])
    return functions


_LAUNCHED: Mark = (launch, lambda value: isinstance(value, Process))
_ADOPTED: Mark = (Launcher.adopt, lambda value: isinstance(value, RunningAttempt))

FLOWS: Mapping[str, Callable[[Bench], Awaitable[list[Function]]]] = {
    flow.__name__: flow for flow in (batch_call, childs_end, cancel, restart, decompose)
}


async def _warmed(client: Client) -> None:
    """Have done what only a first job does: the graph is loaded, and the version of the `claude` is known."""
    batch = await client.call("claude_run_batch_async", tasks=["stub:say=warm"])
    await client.call("claude_wait", batchId=batch["batchId"])


async def traced(flow: Callable[[Bench], Awaitable[list[Function]]], trace: Trace, times: int) -> list[Function]:
    """Run a flow some times, and return the functions that every run passed through."""
    runs = []
    for _ in range(times):
        with _directory() as base:
            runs.append(await flow(Bench(base, trace)))
    return [function for function in runs[0] if all(function in run for run in runs)]


@contextmanager
def _directory() -> Iterator[Path]:
    # With a short path: its length decides where the socket is.
    with tempfile.TemporaryDirectory(prefix="cj-", ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


def report(name: str, functions: Sequence[Function], *, verbose: bool) -> str:
    """Return the numbers of a flow, and with `verbose` its files and functions in the order of their first calls."""
    files = Counter(function.file for function in functions)
    head = f"{name}: {len(files)} files, {len(functions)} functions"
    if not verbose:
        return head
    lines = [head, "", "  functions  lines  file"]
    for file, count in files.items():
        size = sum(function.lines for function in functions if function.file == file)
        lines.append(f"  {count:9}  {size:5}  {file} ({len((ROOT / file).read_text().splitlines())} lines)")
    return "\n".join([*lines, "", *(f"  {one.file}: {one.name}" for one in functions), ""])


def main() -> None:
    """Trace every flow and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="list the files and functions of each flow")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--runs", type=int, default=RUNS, help="how often each flow is run (default: %(default)s)")
    parser.add_argument("flows", nargs="*", metavar="flow", help=f"of {', '.join(FLOWS)}")
    options = parser.parse_args()
    logging.disable()
    trace = Trace()
    found = {name: anyio.run(traced, FLOWS[name], trace, options.runs) for name in options.flows or FLOWS}
    if options.json:
        counts = {
            name: {"files": len({one.file for one in functions}), "functions": len(functions)}
            for name, functions in found.items()
        }
        print(json.dumps(counts))
        return
    for name, functions in found.items():
        print(report(name, functions, verbose=options.verbose))


if __name__ == "__main__":
    main()
