"""A detached engine over a state directory of its own, and clients that reach it through the real pump."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.client.connect import control
from server.client.engine_socket import EngineEndpoint, ensure_engine, lock
from server.client.state_dir import StatePaths, prepare
from server.client.wire import ClientError, Hello
from tests.support.commands import run_command
from tests.support.waiting import until_now

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "server" / "__main__.py"
FAKES = ROOT / "tests" / "fakes"
SHELL_STUB = FAKES / "claude_stub.sh"
PYTHON_STUB = FAKES / "claude_stub.py"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
SECONDS = 60.0
"""Bound of one command; an engine needs about three to start on a busy core."""


@dataclass(frozen=True, kw_only=True)
class House:
    """A state directory with a working directory beside it, and the environment of the client who lives there.

    Args:
        base: Holds both, with a short path.
        environ: The client's environment.
    """

    base: Path
    environ: Mapping[str, str]
    pids: set[int] = field(default_factory=set)

    @property
    def paths(self) -> StatePaths:
        return StatePaths(self.base / "state")

    @property
    def work(self) -> Path:
        return self.base / "work"

    def bare_connection(self, seconds: float) -> socket.socket:
        """A connection to the engine on which nothing was said; a read or write may take so many seconds."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        connection.connect(self.paths.address)
        return connection

    @property
    def endpoint(self) -> EngineEndpoint:
        return EngineEndpoint(paths=prepare(self.paths.home), environ=self.environ)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `claude-jobs` to its end."""
        return self.fed("", *arguments, **environ)

    def fed(self, text: str | bytes, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `claude-jobs` to its end with this on its standard input."""
        given = text if isinstance(text, bytes) else text.encode()
        return run_command(arguments, environ={**self.environ, **environ}, cwd=self.work, seconds=SECONDS, stdin=given)

    def control(self, do: str) -> dict[str, Any] | None:
        """Ask the engine something; None where none runs."""
        answer = control(self.endpoint, {"do": do}, Hello(cwd="/", client="test"))
        if answer and "pid" in answer:
            self.pids.add(answer["pid"])
        return answer

    def start_engine(self) -> None:
        """Have an engine run; on a machine that is busy it may take longer to start than a client waits."""
        ensure_engine(self.endpoint.replace(timeout=2 * SECONDS)).close()

    def kill_engine(self) -> int:
        """Kill the engine with SIGKILL, and return its process id."""
        status = self.control("status")
        assert status is not None
        pid = int(status["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def engine_is_gone(self) -> bool:
        """Whether nobody holds the engine's lock."""
        held = lock(self.paths.engine_lock)
        if held is not None:
            os.close(held)
        return held is not None

    def wait_for_the_engine_to_go(self) -> None:
        until_now(self.engine_is_gone, 20.0, "the engine's end")

    def wait_for_another_engine(self, than: int) -> None:
        """Wait until an engine with another process id answers."""

        def answers() -> bool:
            try:
                status = self.control("status")
            except (ClientError, OSError):
                # It takes no more questions, and is not gone yet.
                return False
            return status is not None and status["pid"] != than

        until_now(answers, SECONDS, "another engine")

    @contextmanager
    def pump(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        meta: Mapping[str, Any] | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> Iterator["Pump"]:
        """Start `claude-jobs mcp` and shake hands with the engine behind it.

        Args:
            environ: Variables besides the house's own.
            meta: What each request says of itself in an era without a handshake; None shakes hands.
            capabilities: What the client can do.
        """
        process = subprocess.Popen(
            [sys.executable, str(MAIN), "mcp"],
            env={**self.environ, **(environ or {})},
            cwd=self.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with process:
            try:
                pump = Pump(process, meta)
                if meta is None:
                    pump.shake_hands(capabilities)
                yield pump
            finally:
                process.kill()

    def close(self) -> None:
        """Cancel what runs and end the engine."""
        with contextlib.suppress(ClientError, OSError):
            if self.control("status"):
                with self.pump() as pump:
                    for status in ("running", "queued"):
                        # A page at a time: killed ones are of neither status.
                        while jobs := pump.json("claude_list_jobs", limit=1000, status=status):
                            killed = [
                                pump.json("claude_kill_job", jobId=job["jobId"]) for job in jobs if "jobId" in job
                            ]
                            if not any(each["success"] for each in killed):
                                break
                self.control("stop")
        try:
            self.wait_for_the_engine_to_go()
        except TimeoutError:
            for pid in self.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise
        finally:
            shutil.rmtree(self.base, ignore_errors=True)


def at_work_below(base: Path) -> list[str]:
    """Return the commands of the processes that work below a directory, though it is removed; on Linux."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(base):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


class RefusedError(AssertionError):
    """A tool answered with an error where the test wanted a reply."""


class Pump:
    """An MCP client over the stdio of a pump.

    Args:
        process: A pump whose stdin and stdout are pipes.
        meta: Goes along with every request.
    """

    def __init__(self, process: subprocess.Popen[bytes], meta: Mapping[str, Any] | None = None) -> None:
        self.process = process
        self._meta = meta
        self._ids = 0
        self._answers: dict[int, Any] = {}
        self.told: list[Any] = []

    def shake_hands(self, capabilities: Mapping[str, Any] | None = None) -> None:
        info = {"name": "test", "version": "1"}
        self.ask("initialize", protocolVersion="2025-11-25", capabilities=dict(capabilities or {}), clientInfo=info)
        self.write({"method": "notifications/initialized"})

    def ask(self, method: str, **params: Any) -> Any:
        """Send a request and return its result."""
        return self.answer(self.send(method, **params))

    def answer(self, number: int) -> Any:
        """Return the result of a request that was sent."""
        assert self.process.stdout is not None
        while number not in self._answers:
            if not (line := self.process.stdout.readline()):
                raise EOFError("the pump has ended")
            message = json.loads(line)
            if "method" not in message:
                self._answers[message["id"]] = message.get("result", message)
            elif "id" not in message:
                self.told.append(message)
        return self._answers.pop(number)

    def in_flight(self, method: str, **params: Any) -> int:
        """Send a request and return its number once the engine has its line; a job of it may not exist yet."""
        number = self.send(method, **params)
        # Lines are taken in their order.
        self.ask("tools/list")
        return number

    def send(self, method: str, **params: Any) -> int:
        """Send a request without waiting for its answer."""
        self._ids += 1
        if self._meta is not None:
            params["_meta"] = dict(self._meta)
        self.write({"id": self._ids, "method": method, "params": params})
        return self._ids

    def write(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def text(self, tool: str, **arguments: Any) -> str:
        """Call a tool that succeeds and return its text."""
        result = self.ask("tools/call", name=tool, arguments=arguments)
        if result.get("isError") or "error" in result:
            raise RefusedError(str(result))
        return str(result["content"][0]["text"])

    def json(self, tool: str, **arguments: Any) -> Any:
        """Call a tool that succeeds and return the JSON in its text."""
        return json.loads(self.text(tool, **arguments))

    def refusal(self, tool: str, **arguments: Any) -> str:
        """Call a tool that refuses and return its words."""
        result = self.ask("tools/call", name=tool, arguments=arguments)
        assert result.get("isError") is True, result
        words = str(result["content"][0]["text"])
        assert "Traceback" not in words
        return words

    def settled(self, job_id: str) -> Any:
        """Wait for a job's end and return its status."""
        # A wait also ends where a job below asks for a permission, once for each request.
        while self.json("claude_wait", jobIds=[job_id])["pending"]:
            pass
        return self.json("claude_status", jobId=job_id)


def client_environment_of(home: Path, state: Path, **more: str) -> dict[str, str]:
    """Return an environment built from nothing, for a client whose engine runs the stub."""
    return {
        "HOME": str(home),
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "COLUMNS": "200",
        "CLAUDE_JOBS_HOME": str(state),
        "CLAUDE_JOBS_CLI": str(SHELL_STUB),
        "CLAUDE_JOBS_GRACE_SECONDS": "0.5",
        **more,
    }


@contextmanager
def house(**environ: str) -> Iterator[House]:
    """Make a house; at its end the engine is stopped and everything is removed."""
    # A path of its own under the temporary directory: that of a test would decide by its length where the socket is.
    base = Path(tempfile.mkdtemp(prefix="cj-")).resolve()
    home = base / "home"
    for directory in (home, base / "work"):
        directory.mkdir()
    built = House(base=base, environ=client_environment_of(home, base / "state", **environ))
    try:
        yield built
    finally:
        built.close()
