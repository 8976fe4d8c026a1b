"""What a tool says to a model has words for a person, whatever it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import jobs
import server
from server.cli.app import app
from server.cli.wording import OPTIONS, for_a_person
from server.mcp import arguments
from server.mcp.arguments import Arguments

FOR_MODELS_ALONE = {
    "tasks.py": "the extension for tasks",
    "interrupted_calls.py": "calls that wait and ask",
}
"""Modules whose texts no command shows, and what they hold."""

KEYS_OF_A_FILE = frozenset({"dependsOn"})
TOOL = re.compile(r"\bclaude_[a-z]+")


def argument_names() -> frozenset[str]:
    """Return the arguments of tools that are no plain words."""
    models = [each for each in vars(arguments).values() if isinstance(each, type) and issubclass(each, Arguments)]
    names = {field.alias or name for model in models for name, field in model.model_fields.items()}
    return frozenset(name for name in names if name != name.lower())


def texts(path: Path) -> Iterator[str]:
    """Yield the texts in a module that are sentences about tools, with `j1` for each value inside them."""
    tree = ast.parse(path.read_text())
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "j1" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation | inside:
            yield node.value.replace("{!r}", "'j1'")


def sentences() -> Iterator[tuple[str, str]]:
    names = re.compile(rf"\b(?:{'|'.join(argument_names())})\b")
    roots = (Path(jobs.__file__).parent, Path(server.__file__).parent / "mcp")
    for path in (path for root in roots for path in sorted(root.rglob("*.py"))):
        if path.name in FOR_MODELS_ALONE or "prompts" in path.parts:
            continue
        for text in texts(path):
            if " " in text.strip() and "\n" not in text and (TOOL.search(text) or names.search(text)):
                yield path.name, text


def test_nothing_that_a_command_can_show_names_a_tool_or_an_argument_to_a_person():
    found = list(sentences())
    assert len(found) > 30
    left = [
        (name, said)
        for name, text in found
        if TOOL.search(said := for_a_person(text))
        or any(re.search(rf"\b{argument}\b", said) for argument in argument_names() - KEYS_OF_A_FILE)
    ]
    assert left == []


@pytest.mark.parametrize("argument", sorted(argument_names() - KEYS_OF_A_FILE))
def test_each_argument_of_a_tool_has_an_option(argument: str):
    assert argument in OPTIONS


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "Job error: Job not found: j404. Call claude_list_jobs for the jobs that you can see.",
            "Job not found: j404. Run `claude-jobs list` for the jobs that you can see.",
        ),
        (
            "permissionMode: 'x' is unknown. Use one of plan, auto.",
            "--permission-mode: 'x' is unknown. Use one of plan, auto.",
        ),
        (
            "jobId: nothing there has failed. Read it with claude_result.",
            "Nothing there has failed. Read it with `claude-jobs result`.",
        ),
        ("Use acceptEdits with allowedTools.", "Use acceptEdits with `--allowed-tools`."),
        (
            "Call claude_wait with jobIds ['j1'] first, or give fork: true.",
            "Run `claude-jobs wait j1` first, or give `--fork`.",
        ),
        ("Call claude_list_jobs with under 'j1'.", "Run `claude-jobs list --under j1`."),
        ("Call claude_kill_job.", "Run `claude-jobs kill`."),
        ("No module claude_helpers; claude_api: bad, see claude_code.",) * 2,
        ("cwd: /home/me/claude_wait is not a directory.", "--cwd: /home/me/claude_wait is not a directory."),
        ("mcpServers: 'claude_run' is not in the settings.", "--mcp-server: 'claude_run' is not in the settings."),
        ("verbose: it is neither true nor false.", "--verbose: it is neither true nor false."),
    ],
)
def test_a_person_reads_commands_and_options(said: str, words: str):
    assert for_a_person(said) == words


def test_every_option_that_a_person_is_told_to_use_is_there():
    group: Any = typer.main.get_command(app)
    options = {option for command in group.commands.values() for each in command.params for option in each.opts}
    assert {words for words in OPTIONS.values() if words.startswith("--")} <= options
