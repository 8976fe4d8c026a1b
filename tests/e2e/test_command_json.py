"""What a program reads from a command that was given `--json`: always one JSON document, also on failure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import typer.main

from server.cli.app import app
from tests.support.engines import House, house

WITHOUT = {
    "mcp": "it speaks MCP on stdout",
    "engine": "it runs in the foreground and prints nothing",
    "demo": "it plays a tale to a person",
    "top": "it fills a person's terminal",
    "trace": "it prints a protobuf",
}
"""Commands that have no `--json`, and why."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "backup": ("jobs.tar.gz",),
    "batch": ("a",),
    "run": ("a",),
    "send": ("j1", "a"),
}
"""What a command needs besides; one that is not named takes an id or nothing."""

ITSELF = frozenset({"doctor"})
"""Commands whose answer is what is wrong."""


def commands() -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        yield name, command
        yield from ((f"{name} {inner}", each) for inner, each in getattr(command, "commands", {}).items())


def takes_json(command: Any) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


@pytest.fixture
def made() -> Iterator[House]:
    with house() as one:
        yield one


@pytest.mark.parametrize("name", [name for name, command in commands() if takes_json(command)])
def test_a_command_that_was_asked_for_json_fails_in_json(made: House, name: str):
    nowhere = made.base / "file"
    nowhere.touch()
    command = dict(commands())[name]
    needed = any(each.param_type_name == "argument" and each.required for each in command.params)
    arguments = ARGUMENTS.get(name, ("j404",) if needed else ())
    done = made.run(*name.split(), *arguments, "--json", CLAUDE_JOBS_HOME=str(nowhere))
    assert done.returncode == 1, done
    answer = json.loads(done.stdout)
    if name not in ITSELF:
        assert list(answer) == ["error"]
        assert str(nowhere) in answer["error"]
    assert "Traceback" not in done.stderr


def test_every_command_that_prints_has_the_option_or_a_reason_not_to():
    assert {name for name, command in commands() if not takes_json(command)} == set(WITHOUT)
