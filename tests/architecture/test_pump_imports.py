"""What the pump imports before its first reply, for which clients and jobs wait, and what every command imports."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from server.client.connect import pump_command
from server.client.engine_socket import EngineEndpoint, ensure_engine
from tests.unit.client.conftest import MakeEndpoint
from tests.unit.client.conftest import make_endpoint as make_endpoint  # noqa: PLC0414 - pytest finds fixtures by name
from tests.unit.client.conftest import paths as paths  # noqa: PLC0414 - likewise

ROOT = Path(__file__).parents[2]

COSTLY = {
    "collections": 3,
    "contextlib": 7,
    "dataclasses": 20,
    "enum": 7,
    "functools": 5,
    "json": 14,
    "pathlib": 24,
    "platformdirs": 75,
    "re": 11,
    "selectors": 9,
    "signal": 8,
    "socket": 12,
    "subprocess": 30,
    "threading": 7,
    "typing": 17,
}
"""Modules that an earlier pump imported before its first reply, and the milliseconds of CPU that importing each alone
adds to an interpreter that takes 13 from start to end (least of 40 runs with `-I -S`, CPython 3.11)."""


@pytest.fixture
def engine(make_endpoint: MakeEndpoint) -> EngineEndpoint:
    """A stand-in engine that runs, and gives back what it is sent."""
    endpoint = make_endpoint()
    ensure_engine(endpoint).close()
    return endpoint


def imported(command: Sequence[str], sent: bytes) -> set[str]:
    """Return the modules that a Python command has imported when it has read its input and ends."""
    program, *arguments = command
    done = subprocess.run(
        [program, "-X", "importtime", *arguments],
        input=sent,
        capture_output=True,
        timeout=60,
        check=True,
        cwd=ROOT,
        env={},
    )
    assert done.stdout.startswith(sent)
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr.decode(), re.MULTILINE))


def test_the_pump_of_a_job_imports_only_what_its_first_reply_needs(engine: EngineEndpoint):
    program, arguments = pump_command(engine.paths.home)

    names = imported([program, *arguments], b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')

    assert "server.pump" in names
    assert names.isdisjoint(COSTLY)
    assert {name.partition(".")[0] for name in names} - {"server"} <= sys.stdlib_module_names | {"encodings"}


def test_the_command_of_a_person_imports_no_more_than_that(engine: EngineEndpoint):
    script = "import sys; from server.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "mcp", "--home", str(engine.paths.home)]

    names = imported(command, b'{"jsonrpc":"2.0","id":1,"method":"initialize"}\n')

    # What an installation has every interpreter import is not the pump's.
    assert "server.pump" in names
    assert names.isdisjoint(COSTLY.keys() - imported([sys.executable, "-c", ""], b""))


def test_the_state_directory_of_the_platform_is_found_without_them():
    program = "import os, sys; sys.path.append('.'); from server.pump import state_dir; state_dir(os.environ)"

    names = imported([sys.executable, "-I", "-S", "-c", program], b"")

    assert "server.pump" in names
    assert names.isdisjoint(COSTLY)


def test_the_commands_import_pydantic_and_psutil_only_where_one_needs_them():
    names = imported([sys.executable, "-c", "import server.cli.app"], b"")

    assert "server.cli.app" in names
    # 0.15 s of the 0.3 s that the import of all commands took.
    assert names.isdisjoint({"pydantic", "psutil", "mcp", "langgraph", "aiosqlite", "textual"})
