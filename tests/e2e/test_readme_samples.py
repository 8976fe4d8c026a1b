"""The READMEs' shell samples and tables of commands: each runs, or is there as it is written."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from server.cli.app import app
from tests.support.engines import MAIN, ROOT, house

README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS_README = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS = typer.main.get_command(app)


def shell_commands() -> Iterator[list[str]]:
    for block in re.findall(r"^```sh\n(.*?)^```$", README + TESTS_README, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            for command in line.split("&&"):
                yield shlex.split(command, comments=True)


def table_commands() -> Iterator[str]:
    [section] = re.findall(r"^## From the terminal$(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    for row in re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE):
        yield from re.findall(r"`(?:claude-jobs )?(.+?)`", row)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command", [each for each in shell_commands() if each[0].endswith("/claude-jobs")], ids=" ".join
)
def test_a_command_of_ours_in_a_shell_sample_runs(command: list[str], claude_cli: Path):
    with house(CLAUDE_JOBS_CLI=str(claude_cli), ANTHROPIC_API_KEY="sk-fake-not-real") as made:
        done = subprocess.run(
            [sys.executable, str(MAIN), *command[1:]],
            env=dict(made.environ),
            cwd=made.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert command[1:] != ["demo"] or "10 jobs: 10 completed" in done.stdout


def test_every_other_command_of_a_shell_sample_names_what_there_is():
    for command in shell_commands():
        match command:
            case ["python3", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"] | [".venv/bin/claude-jobs", *_]:
                pass
            case [".venv/bin/pip", "install", "-q", "-e", where]:
                assert where.removeprefix(".[").removesuffix("]") in PROJECT["project"]["optional-dependencies"]
            case [".venv/bin/poe", *tasks]:
                assert set(tasks) <= PROJECT["tool"]["poe"]["tasks"].keys()
            case ["claude", "mcp", "add" | "remove", *_]:
                pass  # tests/e2e/test_registration.py runs it
            case _:
                pytest.fail(f"no test runs the sample {shlex.join(command)!r}")


def test_every_task_of_the_readme_is_one_of_the_project():
    table = "".join(re.findall(r"^\| (`poe .+?) \|", TESTS_README, re.MULTILINE))
    assert set(re.findall(r"`(?:poe )?(\w+)`", table)) == PROJECT["tool"]["poe"]["tasks"].keys()


@pytest.mark.parametrize("written", list(table_commands()))
def test_a_command_of_the_table_is_there_with_its_options(written: str):
    found = COMMANDS
    words = re.findall(r"--?[\w-]+|[a-z]+", re.sub(r'"[^"]*"', "", written))
    while words and (below := getattr(found, "commands", {}).get(words[0])):
        found = below
        words.pop(0)
    assert found is not COMMANDS
    given = {word for word in words if word.startswith("--") or (word.startswith("-") and len(word) == 2)}
    assert given <= {option for parameter in found.params for option in parameter.opts}, written


def test_the_command_line_has_no_command_that_the_table_does_not_name():
    named = {written.split()[0] for written in table_commands()}
    assert {name for name, command in vars(COMMANDS)["commands"].items() if not command.hidden} == named
