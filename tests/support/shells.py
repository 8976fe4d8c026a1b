"""A job's own shell, driven by the test: commands that run inside the job, with whatever trick stands before them."""

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.engines import FAKES, MAIN, SYSTEM_PATH, House, Pump
from tests.support.tokens import running

SHELL_CLI = str(FAKES / "shell_stub.sh")
"""For `CLAUDE_JOBS_CLI`: a `claude` that runs what the test tells it to."""


@dataclass(frozen=True, kw_only=True)
class JobShell:
    """The shell of a running job.

    Args:
        house: Whose engine runs the job.
        job: The job's status.
        connection: To the job's `claude`.
    """

    house: House
    job: dict[str, Any]
    connection: socket.socket

    def run(self, *command: str) -> str:
        """Run a command inside the job and return what it wrote, once nothing holds its output any more."""
        self.connection.sendall(json.dumps(command).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            if not (part := self.connection.recv(65536)):
                raise EOFError("the job's shell has ended")
            line += part
        return str(json.loads(line))

    @property
    def with_home(self) -> Sequence[str]:
        """What lets a command find the engine in the job's environment."""
        return ("env", f"CLAUDE_JOBS_HOME={self.house.paths.home}")

    @property
    def bare(self) -> Sequence[str]:
        """What takes a command's environment, the job's mark included, except for what leads to the engine."""
        home = self.house.base / "home"
        return ("env", "-i", f"PATH={SYSTEM_PATH}", f"HOME={home}", f"CLAUDE_JOBS_HOME={self.house.paths.home}")

    @property
    def orphaned(self) -> Sequence[str]:
        """What makes a command an orphan without the job's mark, in a session of its own."""
        return (*self.bare, "python3", "-I", "-S", str(FAKES / "orphan.py"))

    def raw(self, role: str, token: str = "", connector: str = "itself") -> Sequence[str]:
        """Return a command that speaks to the engine's socket by hand."""
        script = str(FAKES / "raw_socket_client.py")
        return ("python3", "-I", "-S", script, str(self.house.paths.socket), role, token, connector)

    def cli(self, *arguments: str) -> Sequence[str]:
        """Return a `claude-jobs` command."""
        return (sys.executable, str(MAIN), *arguments)

    def pump(self, *arguments: str) -> Sequence[str]:
        """Return a command that starts a pump and calls a tool through it."""
        info = {"name": "x", "version": "1"}
        first = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        call = {"name": "claude_run_async", "arguments": {"task": "a way out"}}
        lines = [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": first},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
        ]
        said = "".join(f"{json.dumps(line)}\n" for line in lines)
        script = 'printf %s "$1" | { shift; "$@"; echo "status $?"; }'
        return ("/bin/sh", "-c", script, "sh", said, *self.cli("mcp", *arguments))


@contextmanager
def job_shell(house: House, pump: Pump, **arguments: Any) -> Iterator[JobShell]:
    """Start a job and hold its shell; the job completes at the end.

    Args:
        house: Its settings name `SHELL_CLI` as the binary.
        pump: Who starts the job.
        arguments: For `claude_run_async`, besides the task.
    """
    path = house.base / f"shell{os.urandom(4).hex()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        listener.settimeout(30.0)
        started = pump.json("claude_run_async", task=f"stub:shell={path}", **arguments)
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(60.0)
        yield JobShell(house=house, job=running(pump, started["jobId"]), connection=connection)
