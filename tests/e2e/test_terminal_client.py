"""Real Claude Code in a terminal: a long call becomes a background task, and its result begins the next turn."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.demo.messages_api import ScriptedApi
from server.demo.request_log import RecordedRequest
from server.demo.script import Story
from tests.e2e.terminal import SECONDS, Terminal, terminal
from tests.support.engines import MAIN, House, Pump, house

pytestmark = pytest.mark.timeout(300)

TOOL = "mcp__claude-jobs__"
# The session begins before it has our tools: a call that comes too early is an error, and is made again.
PATIENT = {"delay": 0.5, "retries": 60}


def calls(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": f"{TOOL}{tool}", "input": arguments}]}


SAILORS = ["[role: sailor] Haul.", "[role: sailor] Haul again."]
STORY = Story.model_validate(
    {
        "default": "nobody",
        "roles": {
            "nobody": [{"text": "Nothing."}],
            "captain": [
                {**calls("claude_run", task=SAILORS[0], outputFormat="text"), **PATIENT},
                {"text": "It is under way."},
                {"text": "I have heard."},
            ],
            "admiral": [
                {**calls("claude_run_batch_async", tasks=SAILORS), **PATIENT},
                calls("claude_wait", batchId="{{latest.batchId}}"),
                {"text": "They are under way."},
                {"text": "I have heard."},
            ],
            "sailor": [{"text": "Hauled.", "delay": 3.0}],
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A person at a terminal with Claude Code, whose tools are ours.

    Args:
        house: Where the engine lives.
        person: Another client of the same engine.
        run: The terminal.
    """

    house: House
    person: Pump
    run: Terminal


@contextmanager
def at_a_terminal(cli: Path, directory: Path, api: ScriptedApi) -> Iterator[Session]:
    with house(CLAUDE_JOBS_CLI=str(cli)) as made, made.pump() as person:
        settings = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
        server = {"type": "stdio", "command": sys.executable, "args": [str(MAIN), "mcp"], "env": settings}
        allowed = ("--allowedTools", "mcp__claude-jobs")
        with terminal(cli, directory, api=api, mcp_config={"claude-jobs": server}, args=allowed) as run:
            yield Session(house=made, person=person, run=run)


@pytest.mark.parametrize(("role", "tool"), [("captain", "claude_run"), ("admiral", "claude_wait")])
def test_a_long_call_returns_at_once_and_its_result_starts_the_next_turn(
    scripted: Callable[[Story], ScriptedApi], claude_cli: Path, tmp_path: Path, role: str, tool: str
):
    api = scripted(STORY)
    with at_a_terminal(claude_cli, tmp_path / "run", api) as session:
        session.run.submit(f"[role: {role}] Sail.")
        [told] = api.wait_for(notifies, timeout=SECONDS)
        jobs = session.person.json("claude_list_jobs")

    words = last_words(told)
    assert "<status>completed</status>" in words
    assert f"claude-jobs/{tool}" in words
    assert words.count("Hauled.") == len(jobs)
    # The turn before it ended without the answer: the model had its turn back while the jobs ran.
    assert "Hauled." not in json.dumps(told.messages[:-1])
    spoken = [message for message in told.messages if message["role"] == "assistant"]
    assert "under way" in json.dumps(spoken[-1])
    # The task is the job itself, so it can be read again by its id.
    if tool == "claude_run":
        assert jobs[0]["jobId"] in words


def test_a_task_whose_engine_was_killed_still_ends_as_a_notification(
    scripted: Callable[[Story], ScriptedApi], claude_cli: Path, tmp_path: Path
):
    api = scripted(STORY)
    with at_a_terminal(claude_cli, tmp_path / "run", api) as session:
        session.run.submit("[role: captain] Sail.")
        api.wait_for(lambda request: "[role: sailor]" in request.conversation.opening, timeout=SECONDS)
        session.house.kill_engine()
        [told] = api.wait_for(notifies, timeout=SECONDS)
        [job] = session.person.json("claude_list_jobs")

    words = last_words(told)
    assert "<status>completed</status>" in words
    assert job["jobId"] in words
    assert words.count("Hauled.") == 1
    # The job itself went on: nothing was started again.
    assert (job["status"], job.get("attempt")) == ("completed", None)


def notifies(request: RecordedRequest) -> bool:
    return "<task-notification>" in last_words(request)


def last_words(request: RecordedRequest) -> str:
    last = request.messages[-1:]
    return "".join(block.get("text", "") for message in last for block in _blocks(message["content"]))


def _blocks(content: Any) -> list[Any]:
    return [{"text": content}] if isinstance(content, str) else list(content)
