import json
import uuid
from typing import Any

import pytest

from jobs.claude.command import MARKER, OFF, Command, McpServer, build
from jobs.errors import BadInputError
from tests.unit.claude.support import context, spec

SESSION = "6f2c7a34-7f0e-4e6b-9a52-0d1c2b3a4f5e"
OTHER = "0b8f2f0a-3d58-4a86-8f5e-5d0f1a7c9b11"
HOSTILE = (
    "--settings={}",
    "-p",
    "/cost",
    "@/etc/passwd",
    "a\n--dangerously-skip-permissions",
    "$(touch x)",
    "`x`; rm -rf /",
    '"}\n{"type":"control_request"}',
    "\x1b]0;x\x07",
    "",
)


def built(fields: dict[str, Any] | None = None, **launch: Any) -> Command:
    return build(spec(**(fields or {})), context(**launch))


def lines(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command.stdin.splitlines()]


def test_a_plain_job_gets_the_safe_launch() -> None:
    off = ",".join(OFF)
    assert built(session_id=SESSION).argv == (
        "claude",
        "-p",
        "--input-format=stream-json",
        "--output-format=stream-json",
        "--verbose",
        "--include-partial-messages",
        "--strict-mcp-config",
        "--await-initialize",
        "--setting-sources=user",
        f"--session-id={SESSION}",
        "--permission-mode=acceptEdits",
        f"--disallowedTools={off}",
    )


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({"model": "sonnet"}, "--model=sonnet"),
        ({"model": "us.anthropic.claude-opus-4-1:0[1m]"}, "--model=us.anthropic.claude-opus-4-1:0[1m]"),
        ({"effort": "xhigh"}, "--effort=xhigh"),
        ({"max_budget_usd": 0.5}, "--max-budget-usd=0.5000"),
        ({"max_budget_usd": 1e-9}, "--max-budget-usd=0.0001"),
        ({"permission_mode": "plan"}, "--permission-mode=plan"),
        ({"allowed_tools": ("Read", "Bash(git *)")}, "--allowedTools=Read,Bash(git *)"),
        ({"disallowed_tools": ("Bash", "Task")}, f"--disallowedTools={','.join(OFF)},Bash"),
        ({"append_system_prompt": "--settings={}"}, "--append-system-prompt=--settings={}"),
        ({"json_schema": '{"type":"object"}'}, '--json-schema={"type":"object"}'),
    ],
)
def test_a_field_becomes_one_argument(fields: dict[str, Any], argument: str) -> None:
    assert built(fields).argv.count(argument) == 1


@pytest.mark.parametrize(
    ("continues", "arguments"),
    [
        (None, [f"--session-id={SESSION}"]),
        (SESSION, [f"--resume={SESSION}"]),
        (OTHER, [f"--resume={OTHER}", "--fork-session", f"--session-id={SESSION}"]),
    ],
)
def test_a_session_is_begun_continued_or_copied(continues: str | None, arguments: list[str]) -> None:
    argv = built(session_id=SESSION, continues=continues).argv
    assert [one for one in argv if "session" in one or "resume" in one] == arguments


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "-p"}, "model"),
        ({"model": "--settings={}"}, "model"),
        ({"model": "sonnet\n"}, "model"),
        ({"model": ""}, "model"),
        ({"effort": "--effort"}, "effort"),
        ({"permission_mode": "yolo"}, "permissionMode"),
        ({"allowed_tools": ("--settings={}",)}, "allowedTools"),
        ({"allowed_tools": ("Read,Bash",)}, "allowedTools"),
        ({"allowed_tools": ("Read Bash",)}, "allowedTools"),
        ({"allowed_tools": ("Read(a),Bash(b)",)}, "allowedTools"),
        ({"disallowed_tools": ("",)}, "disallowedTools"),
        ({"max_budget_usd": 0.0}, "maxBudgetUsd"),
        ({"max_budget_usd": float("nan")}, "maxBudgetUsd"),
        ({"max_budget_usd": float("inf")}, "maxBudgetUsd"),
        ({"json_schema": "[]"}, "jsonSchema"),
        ({"json_schema": "{"}, "jsonSchema"),
        ({"append_system_prompt": "a\0b"}, "appendSystemPrompt"),
        ({"append_system_prompt": "\ud800"}, "appendSystemPrompt"),
        ({"append_system_prompt": "x" * 100_001}, "appendSystemPrompt"),
    ],
)
def test_a_value_that_the_cli_could_misread_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInputError) as caught:
        built(fields)
    assert caught.value.field == named


@pytest.mark.parametrize("bad", ["", "--resume", "123", f"{SESSION}\n", f"{{{SESSION}}}", "-" + SESSION])
def test_a_session_must_be_a_uuid(bad: str) -> None:
    with pytest.raises(BadInputError, match="sessionId"):
        built(session_id=bad)
    with pytest.raises(BadInputError, match="resumeSession"):
        built(continues=bad)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_task_stands_in_the_stdin_text_and_nowhere_else(text: str) -> None:
    plain, command = built({"task": "x"}, session_id=SESSION), built({"task": text}, session_id=SESSION)
    assert command.argv == plain.argv
    assert lines(command)[1:] == [
        {"type": "user", "client_composed": True, "message": {"role": "user", "content": text}}
    ]


def test_a_briefing_stands_before_the_task() -> None:
    assert lines(built({"task": "Do it."}, briefing="You are j1."))[1]["message"]["content"] == "You are j1.\n\nDo it."


def test_half_a_character_in_a_task_becomes_a_question_mark() -> None:
    assert lines(built({"task": "a\ud800b"}))[1]["message"]["content"] == "a?b"


def test_our_server_goes_into_the_stdin_text_and_its_tools_are_allowed() -> None:
    server = McpServer(command="/usr/bin/python3", args=("pump.py", "--job", "/d"), env={"A": "b"})
    command = built({"allowed_tools": ("Read",)}, server=server)
    assert "--allowedTools=mcp__claude-jobs,Read" in command.argv
    assert lines(command)[0]["request"]["mcpServers"] == {
        "claude-jobs": {
            "type": "stdio",
            "command": "/usr/bin/python3",
            "args": ["pump.py", "--job", "/d"],
            "env": {"A": "b"},
        }
    }


def test_the_token_stands_in_the_first_stdin_line_and_nowhere_else() -> None:
    token = f"cj1_{uuid.uuid4().hex}"
    command = built(token=token, server=McpServer(command="python3", args=("--job", "/d")))
    first, second = command.stdin.splitlines()
    assert json.loads(first)["claude_jobs_token"] == token
    assert token.encode() not in second
    assert token not in repr(command.argv) + repr(command.env) + repr(json.loads(first)["request"])


def test_the_environment_is_the_clients_without_what_belongs_to_its_session() -> None:
    inherited = {
        "PATH": "/bin",
        "ANTHROPIC_API_KEY": "k",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_SESSION_ID": SESSION,
        "CLAUDE_JOBS_JOB": "another job's",
        "CLAUDE_JOBS_TOKEN": "t",
        "CLAUDE_AUTO_BACKGROUND_TASKS": "1",
    }
    assert built(client_env=inherited, marker="m").env == {
        "PATH": "/bin",
        "ANTHROPIC_API_KEY": "k",
        MARKER: "m",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": "0",
        "CLAUDE_CODE_MAX_RETRIES": "3",
        "CLAUDE_CODE_DISABLE_BUNDLED_SKILLS": "1",
    }


@pytest.mark.parametrize(("enabled", "off"), [((), True), (("Task",), True), (("Skill",), False)])
def test_the_bundled_skills_are_off_unless_the_setting_names_them(enabled: tuple[str, ...], *, off: bool) -> None:
    assert ("CLAUDE_CODE_DISABLE_BUNDLED_SKILLS" in built(enabled_tools=enabled).env) is off


@pytest.mark.parametrize(
    ("env", "token"),
    [
        ({"CLAUDE_CODE_TOKEN": "old"}, "old"),
        ({"CLAUDE_CODE_TOKEN": "old", "CLAUDE_CODE_OAUTH_TOKEN": "new"}, "new"),
    ],
)
def test_the_older_name_of_the_subscription_token_is_understood(env: dict[str, str], token: str) -> None:
    passed = built(client_env=env).env
    assert passed["CLAUDE_CODE_OAUTH_TOKEN"] == token
    assert "CLAUDE_CODE_TOKEN" not in passed
