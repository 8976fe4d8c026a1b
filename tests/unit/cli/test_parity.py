"""What a model can say to a tool, a person can say to a command: the schemas are walked, so that no gap comes back."""

from collections.abc import Mapping
from typing import Any

import pytest
import typer.main

from server.cli.app import app
from server.mcp.arguments import TaskArguments
from server.mcp.permission_tools import claude_approve
from server.mcp.tool_definitions import Definition
from server.mcp.tools import DEFINITIONS

COMMANDS: Mapping[str, str] = {
    "claude_run": "run",
    "claude_run_async": "run",
    "claude_run_batch": "batch",
    "claude_run_batch_async": "batch",
    "claude_wait": "wait",
    "claude_result": "result",
    "claude_status": "status",
    "claude_list_jobs": "list",
    "claude_kill_job": "kill",
    "claude_pause": "pause",
    "claude_send": "send",
    "claude_retry": "retry",
    "claude_dashboard": "dashboard",
    "claude_recursion_stats": "dashboard",
    "claude_approve": "approve",
}
"""The command that does what a tool does; `dashboard --json` prints the figures of both tools."""

OTHERWISE: Mapping[tuple[str, str], str] = {
    ("run", "output_format"): "as_json",
    ("batch", "output_format"): "as_json",
    ("send", "output_format"): "as_json",
    ("wait", "job_ids"): "identities",
    ("wait", "batch_id"): "identities",
    ("wait", "subtree_of"): "subtree",
    ("wait", "timeout_seconds"): "timeout",
    ("result", "job_id"): "identities",
    ("result", "job_ids"): "identities",
    ("status", "job_id"): "identity",
    ("kill", "job_id"): "identities",
    ("pause", "job_id"): "identity",
    ("retry", "job_id"): "identities",
    ("approve", "request_id"): "requests",
    ("approve", "allow"): "deny",
}
"""Arguments that a command calls otherwise."""

LEFT_OUT: Mapping[tuple[str, str], str] = {
    ("pause", "resume"): "`claude-jobs resume` does that",
    ("wait", "cursor"): "the command goes on by itself until what it waits for is over",
}
"""Arguments that a command does without, and why."""

IN_A_FILE = frozenset({"key", "depends_on"})
"""What a task of a batch has for itself alone: `--file` takes it as JSON."""


def commands() -> Mapping[str, Any]:
    group: Any = typer.main.get_command(app)
    found: Mapping[str, Any] = group.commands
    return found


def parameters_of(command: str) -> set[str]:
    return {parameter.name for parameter in commands()[command].params}


TOOLS = (*DEFINITIONS, claude_approve)


def fields_of(definition: Definition) -> list[tuple[str, str]]:
    return [(COMMANDS[definition.name], field) for field in definition.arguments.model_fields]


ALL = [pair for definition in TOOLS if definition.name in COMMANDS for pair in fields_of(definition)]


def test_every_tool_has_a_command():
    assert {definition.name for definition in TOOLS} == COMMANDS.keys()
    assert set(COMMANDS.values()) <= commands().keys()


@pytest.mark.parametrize(("command", "field"), dict.fromkeys(ALL))
def test_every_argument_of_a_tool_is_an_option_of_its_command(command: str, field: str):
    name = OTHERWISE.get((command, field), field)
    assert (name in parameters_of(command)) != ((command, field) in LEFT_OUT)


def test_every_option_of_one_task_is_an_option_of_a_batch():
    alone = set(TaskArguments.model_fields) - IN_A_FILE - {"task", "output_format"}
    assert alone <= parameters_of("batch")


def test_what_is_named_otherwise_or_left_out_is_there_to_be_named():
    assert {*OTHERWISE, *LEFT_OUT} <= set(ALL)
    assert all(field != name for (_, field), name in OTHERWISE.items())
