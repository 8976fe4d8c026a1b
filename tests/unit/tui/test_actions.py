"""What keys of the view ask the engine for, and what a person is told of the answers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import prepare
from server.feed.job_details import resume_line
from server.tui.actions import Actions
from tests.unit.tui.played_engine import SECONDS, PlayedEngine, played_engine

World = tuple[Actions, PlayedEngine]


@pytest.fixture
def world(home: Path) -> Iterator[World]:
    paths = prepare(home / "state")
    with played_engine(paths) as engine:
        yield Actions(EngineEndpoint(paths=paths, environ={}, timeout=SECONDS), {"PATH": "/bin"}, Path("/")), engine


@pytest.mark.parametrize(
    ("do", "tool", "answer", "told"),
    [
        (
            lambda actions: actions.kill("j1"),
            ("claude_kill_job", {"jobId": "j1"}),
            {"success": True, "message": "Killed j1 and 2 jobs below it."},
            ("Killed j1 and 2 jobs below it.", True),
        ),
        (
            lambda actions: actions.kill("j1"),
            ("claude_kill_job", {"jobId": "j1"}),
            {"success": False, "message": "x"},
            ("j1 is over already.", False),
        ),
        (
            lambda actions: actions.retry("j1", subtree=False),
            ("claude_retry", {"jobId": "j1", "subtree": False}),
            {"count": 1},
            ("Queued again: 1 job.", True),
        ),
        (
            lambda actions: actions.retry("b1", subtree=True),
            ("claude_retry", {"jobId": "b1", "subtree": True}),
            {"count": 3},
            ("Queued again: 3 jobs.", True),
        ),
        (
            lambda actions: actions.retry("j1", subtree=False),
            ("claude_retry", {"jobId": "j1", "subtree": False}),
            {"count": 0, "busy": [{"jobId": "j1", "heldBy": "j9"}]},
            ("Its session is in use by j9.", False),
        ),
        (
            lambda actions: actions.retry("b1", subtree=True),
            ("claude_retry", {"jobId": "b1", "subtree": True}),
            {"count": 0},
            ("Nothing there has failed.", False),
        ),
        (
            lambda actions: actions.pause("j1", resume=False),
            ("claude_pause", {"jobId": "j1", "resume": False}),
            {"success": True, "message": "Paused.\nclaude_pause with resume goes on."},
            ("Paused. `claude-jobs pause` with resume goes on.", True),
        ),
        (
            lambda actions: actions.pause("j1", resume=True),
            ("claude_pause", {"jobId": "j1", "resume": True}),
            {"success": False, "message": "It is not paused."},
            ("It is not paused.", False),
        ),
        (
            lambda actions: actions.answer("r1", allow=True),
            ("claude_approve", {"requestId": "r1", "allow": True}),
            {},
            ("Allowed.", True),
        ),
        (
            lambda actions: actions.answer("r1", allow=False),
            ("claude_approve", {"requestId": "r1", "allow": False}),
            {},
            ("Denied; the job goes on without that call.", True),
        ),
    ],
)
def test_a_key_is_one_call_of_a_tool_and_its_answer_is_told(
    world: World,
    do: Callable[[Actions], tuple[str, bool]],
    tool: tuple[str, dict[str, Any]],
    answer: dict[str, Any],
    told: tuple[str, bool],
):
    actions, engine = world
    engine.tools = {tool[0]: answer}
    assert do(actions) == told
    assert engine.calls == [tool]
    assert engine.hellos[0]["role"] == "mcp"
    assert engine.hellos[0]["cwd"] == "/"


def test_each_message_is_a_submission_of_its_own_that_can_be_repeated(world: World):
    actions, engine = world
    engine.tools = {"claude_send": {"jobId": "j7"}}
    assert actions.send("j1", "go on") == ("Sent. It runs as j7.", True)
    assert actions.send("j1", "go on") == ("Sent. It runs as j7.", True)
    given = [arguments for _, arguments in engine.calls]
    assert [(one["jobId"], one["task"]) for one in given] == [("j1", "go on")] * 2
    assert len({one["idempotencyKey"] for one in given}) == 2


def test_what_a_tool_refuses_is_told_in_one_line_with_commands_and_without_secrets_and_codes(world: World):
    actions, engine = world
    secret = "sk-ant-api03-AbC_dEf-0123456789"
    engine.tools = {"claude_retry": f"\x1b[31mJob j1\x1b[0m is live.\nclaude_wait with {secret} waits for it."}
    said, is_good = actions.retry("j1", subtree=False)
    assert not is_good
    assert said.startswith("Job j1 is live. `claude-jobs wait` with ")
    assert secret not in said


def test_without_an_engine_that_can_be_started_the_reason_is_told(home: Path):
    paths = prepare(home / "state")
    endpoint = EngineEndpoint(paths=paths, environ={}, command=("/bin/false",), timeout=SECONDS)
    said, is_good = Actions(endpoint, {}, Path("/")).kill("j1")
    assert not is_good
    assert "engine" in said
    assert "\n" not in said


def test_a_session_is_opened_in_its_directory_by_a_command_that_a_shell_reads_as_one():
    line = resume_line({"sessionId": "s-1", "cwd": "/a dir/it's"})
    assert line == """cd '/a dir/it'"'"'s' && claude --resume s-1"""


def test_a_job_without_a_session_has_no_command_that_opens_one():
    assert resume_line({"cwd": "/"}) is None


@pytest.mark.parametrize("name", ["\x1b[201~\x03evil", "a\nb", "a\u202eb", "\x15"])
def test_there_is_no_line_to_paste_where_a_shell_would_take_a_part_of_it_as_keys(name: str):
    assert resume_line({"sessionId": "s-1", "cwd": f"/{name}"}) is None
    assert resume_line({"sessionId": name, "cwd": "/"}) is None
