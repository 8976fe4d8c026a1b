"""The registrations that the README offers: Claude Code takes them, starts us by them, and is answered."""

import json
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.demo.environment import isolated_environment
from tests.support.engines import ROOT, SYSTEM_PATH, House, house

SCRIPTS = sysconfig.get_path("scripts")


@pytest.fixture
def made() -> Iterator[House]:
    with house() as one:
        yield one


def claude(cli: Path, made: House, *arguments: str) -> str:
    """Run a command of the real binary that asks no model, and return what it printed."""
    environ = isolated_environment(made.base / "home", "http://127.0.0.1:9", path=f"{SCRIPTS}:{SYSTEM_PATH}")
    ours = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
    done = subprocess.run(
        [str(cli), *arguments],
        env=environ | ours,
        cwd=made.work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readmes_command_registers_us_and_claude_code_connects(claude_cli: Path, made: House):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^claude (mcp add .+)$", readme, re.MULTILINE)
    claude(claude_cli, made, *shlex.split(command.replace("$PWD/.venv/bin", SCRIPTS)))
    listed = claude(claude_cli, made, "mcp", "list")
    assert re.search(r"^claude-jobs: \S*claude-jobs mcp .*Connected", listed, re.MULTILINE), listed


def test_the_file_of_the_repository_is_a_registration_that_claude_code_reads(claude_cli: Path, made: House):
    shutil.copy(ROOT / "mcp.json", made.work / ".mcp.json")
    listed = claude(claude_cli, made, "mcp", "list")
    # Listed and not started: the servers of a project wait until the person has approved them.
    assert re.search(r"^claude-jobs: claude-jobs mcp ", listed, re.MULTILINE), listed
    assert json.loads((ROOT / "mcp.json").read_text(encoding="utf-8")).keys() == {"mcpServers"}
