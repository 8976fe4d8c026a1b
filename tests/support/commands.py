"""Commands of `claude-jobs`, run to their end as processes of their own."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests.support.command_server import MAIN

LANG = "C.UTF-8"
_READ_LATE = ("CLAUDE", "ANTHROPIC", "COLUMNS", "HOME", "PATH", "TERM", "LANG", "TMPDIR", "TZ")
"""How the variables begin that Python and the libraries do not read when they are loaded."""


def run_command(
    arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path, seconds: float, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run `claude-jobs` with this on its standard input; one that does not end within the seconds is killed."""
    # Files, not pipes: an engine that this command starts must not hold the test.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        streams = (given, out, err)
        server = _server() if _can_be_forked(arguments, environ) else None
        if server is not None and server.free.acquire(blocking=False):
            try:
                code = server.run(arguments, environ=environ, cwd=cwd, streams=streams, seconds=seconds)
            finally:
                server.free.release()
        else:
            code = subprocess.run(
                [sys.executable, str(MAIN), *arguments], env=dict(environ), cwd=cwd, stdin=given, stdout=out,
                stderr=err, timeout=seconds, check=False,
            ).returncode  # fmt: skip
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([str(MAIN), *arguments], code, out.read(), err.read())


def _can_be_forked(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Tell whether it is a command of the command line, and what Python reads at its start is as usual."""
    read_late = all(name.startswith(_READ_LATE) for name in environ) and environ.get("LANG") == LANG
    return read_late and not {"mcp", "engine", "demo"}.intersection(arguments[:1])


class _CommandServer:
    """The server of this test process."""

    def __init__(self) -> None:
        self.free = threading.Lock()
        self._ours, theirs = socket.socketpair()
        with theirs:
            program = Path(__file__).with_name("command_server.py")
            self._process = subprocess.Popen(
                [sys.executable, str(program), str(theirs.fileno())],
                env={"PATH": os.defpath, "LANG": LANG, "HOME": "/nonexistent"},
                cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._answers = self._ours.makefile("r", encoding="ascii")

    def run(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], cwd: Path, streams: Sequence[IO[Any]],
        seconds: float,
    ) -> int:  # fmt: skip
        umask = os.umask(0o022)
        os.umask(umask)
        order = {"arguments": list(arguments), "environ": dict(environ), "cwd": str(cwd), "umask": umask}
        with tempfile.TemporaryFile("w+") as file:
            json.dump(order, file)
            file.seek(0)
            socket.send_fds(self._ours, [b"x"], [each.fileno() for each in (*streams, file)])
        pid = int(self._answers.readline())
        timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
        timer.start()
        try:
            return int(self._answers.readline())
        finally:
            timer.cancel()

    def close(self) -> None:
        self._answers.close()
        self._ours.close()
        self._process.wait()


@cache
def _server() -> _CommandServer:
    server = _CommandServer()
    atexit.register(server.close)
    return server
