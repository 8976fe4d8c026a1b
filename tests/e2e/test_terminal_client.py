"""Real Claude Code in a terminal: a long call becomes a background task, and its result begins the next turn."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.demo.api import ScriptedApi
from server.demo.record import RecordedRequest
from server.demo.story import Story
from tests.e2e.terminal import SECONDS, terminal
from tests.support.engines import MAIN, house

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


@pytest.mark.parametrize(("role", "tool"), [("captain", "claude_run"), ("admiral", "claude_wait")])
def test_a_long_call_returns_at_once_and_its_result_starts_the_next_turn(
    scripted: Callable[[Story], ScriptedApi], claude_cli: Path, tmp_path: Path, role: str, tool: str
):
    api = scripted(STORY)
    with house(CLAUDE_JOBS_CLI=str(claude_cli)) as made, made.pump() as person:
        settings = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
        server = {"type": "stdio", "command": sys.executable, "args": [str(MAIN), "mcp"], "env": settings}
        allowed = ("--allowedTools", "mcp__claude-jobs")
        with terminal(claude_cli, tmp_path / "run", api=api, mcp_config={"claude-jobs": server}, args=allowed) as run:
            run.submit(f"[role: {role}] Sail.")
            [told] = api.wait_for(notifies, timeout=SECONDS)
        jobs = person.json("claude_list_jobs")

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


def notifies(request: RecordedRequest) -> bool:
    return "<task-notification>" in last_words(request)


def last_words(request: RecordedRequest) -> str:
    last = request.messages[-1:]
    return "".join(block.get("text", "") for message in last for block in _blocks(message["content"]))


def _blocks(content: Any) -> list[Any]:
    return [{"text": content}] if isinstance(content, str) else list(content)
