"""How long the pump takes: from its start to the first line that came back through a warm engine."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from server.client.connect import pump_command
from server.client.engine_socket import ensure_engine
from tests.unit.client.conftest import MakeEndpoint
from tests.unit.client.conftest import make_endpoint as make_endpoint  # noqa: PLC0414 - pytest finds fixtures by name
from tests.unit.client.conftest import paths as paths  # noqa: PLC0414 - likewise

ROUNDS = 20
ROOT = Path(__file__).resolve().parents[2]
BARE = (sys.executable, "-I", "-S", "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.readline())")


def first_echo(command: Sequence[str]) -> float:
    """Seconds from the start of a command to the first line that it gives back."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env={}) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hi\n"
        taken = time.perf_counter() - begun
        process.stdin.close()
        process.stdout.read()
    return taken


def test_start_of_the_pump_to_the_first_echoed_line(make_endpoint: MakeEndpoint):
    endpoint = make_endpoint()
    ensure_engine(endpoint).close()
    program, arguments = pump_command(endpoint.paths.home)
    commands = {
        "bare interpreter": BARE,
        "pump as a script": (program, *arguments),
        "command `mcp`": (program, "-m", "server", "mcp", "--home", str(endpoint.paths.home)),
    }
    # In turns, so that the machine's other work falls on all of them alike.
    rounds = [{name: first_echo(command) for name, command in commands.items()} for _ in range(ROUNDS)]
    bare = median(taken["bare interpreter"] for taken in rounds)
    for name in commands:
        figure = median(taken[name] for taken in rounds)
        print(f"{name}: {figure * 1000:.0f} ms to the first echoed line, {figure / bare:.1f} times a bare interpreter")
