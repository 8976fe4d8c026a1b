"""The registrations that the README offers: Claude Code takes them, starts us by them, and is answered."""

import json
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.support.engines import ROOT, SYSTEM_PATH, House, house

SCRIPTS = sysconfig.get_path("scripts")


@pytest.fixture
def made() -> Iterator[House]:
    with house() as one:
        yield one


def claude(cli: Path, made: House, *arguments: str, cwd: Path, api_url: str = "http://127.0.0.1:9") -> str:
    """Run a command of the real binary and return what it printed; without an API it asks no model."""
    environ = isolated_environment(made.base / "home", api_url, path=f"{SCRIPTS}:{SYSTEM_PATH}")
    ours = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
    done = subprocess.run(
        [str(cli), *arguments],
        env=environ | ours,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def register(cli: Path, made: House, *, remove: bool = False) -> None:
    """Register us as the README says, in one project, or remove us as it says."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(rf"^claude (mcp {'remove' if remove else 'add'} .+)$", readme, re.MULTILINE)
    claude(cli, made, *shlex.split(command.replace("$PWD/.venv/bin", SCRIPTS)), cwd=made.work)


@pytest.fixture
def elsewhere(made: House) -> Path:
    """Another project of the same person."""
    path = made.base / "elsewhere"
    path.mkdir()
    return path


def test_the_readmes_commands_register_us_for_every_project_and_remove_us(
    claude_cli: Path, made: House, elsewhere: Path
):
    register(claude_cli, made)
    listed = claude(claude_cli, made, "mcp", "list", cwd=elsewhere)
    assert re.search(r"^claude-jobs: \S*claude-jobs mcp .*Connected", listed, re.MULTILINE), listed
    register(claude_cli, made, remove=True)
    assert "claude-jobs" not in claude(claude_cli, made, "mcp", "list", cwd=elsewhere)


@pytest.mark.parametrize("told", [None, "--allowedTools", "permissions"])
def test_the_readmes_lines_spare_the_question_before_a_call(
    claude_cli: Path, made: House, elsewhere: Path, scripted: Callable[[Story], ScriptedApi], told: str | None
):
    register(claude_cli, made)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    options: list[str] = []
    if told == "permissions":
        [rule] = re.findall(r'`("permissions": .+?)` in `~/\.claude/settings\.json`', readme)
        (made.base / "home" / ".claude").mkdir(exist_ok=True)
        (made.base / "home" / ".claude" / "settings.json").write_text(f"{{{rule}}}")
    elif told:
        [option] = re.findall(rf"`claude ({told} .+?)`", readme)
        options = shlex.split(option)
    assert calls_a_tool(claude_cli, made, elsewhere, scripted, *options) == (told is not None)


def calls_a_tool(cli: Path, made: House, cwd: Path, scripted: Callable[[Story], ScriptedApi], *options: str) -> bool:
    """Have the real binary call one of our tools, and tell whether that was permitted."""
    turns = [{"tool_calls": [{"name": "mcp__claude-jobs__claude_dashboard", "input": {}}]}, {"text": "Done."}]
    api = scripted(Story.model_validate({"roles": {"default": turns}}))
    # The CLI waits only so long for a server before its first turn: with an engine there, ours answers at once.
    made.start_engine()
    said = claude(cli, made, "-p", "Go.", "--output-format=json", *options, cwd=cwd, api_url=api.url)
    # On a busy machine the CLI adds a message behind the result: that our tools have become available.
    [result] = [text for message in api.requests[-1].body["messages"] if "tool_result" in (text := str(message))]
    assert ("running" in result) == (json.loads(said)["permission_denials"] == []), result
    return "running" in result


def test_the_file_of_the_repository_is_a_registration_that_claude_code_reads(
    claude_cli: Path, made: House, scripted: Callable[[Story], ScriptedApi]
):
    shutil.copy(ROOT / "mcp.json", made.work / ".mcp.json")
    listed = claude(claude_cli, made, "mcp", "list", cwd=made.work)
    # Listed and not started: the servers of a project wait until the person has approved them.
    assert re.search(r"^claude-jobs: claude-jobs mcp ", listed, re.MULTILINE), listed
    given = f"--mcp-config={ROOT / 'mcp.json'}"
    assert calls_a_tool(claude_cli, made, made.base, scripted, given, "--allowedTools", "mcp__claude-jobs")
