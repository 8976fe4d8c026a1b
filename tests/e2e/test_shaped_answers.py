"""Answers that a schema shapes, from the real `claude`: for a caller, for a sibling, and to divide a task."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.request_log import RecordedRequest
from server.demo.script import Story
from tests.support.engines import SYSTEM_PATH, Pump, house

pytestmark = pytest.mark.timeout(180)


def answers(**shaped: Any) -> dict[str, Any]:
    """A turn that answers by the tool which the CLI offers where a schema was asked for."""
    return {"tool_calls": [{"name": "StructuredOutput", "input": shaped}]}


STORY = Story.model_validate(
    {
        "default": "judge",
        "roles": {
            "judge": [answers(verdict="yes", count=3)],
            "clerk": [{"text": "Noted."}],
            "captain": [answers(subtasks=["[role: sailor] Haul.", "[role: cook] Cook."]), answers(answer="Both done.")],
            "sailor": [answers(answer="Hauled.")],
            "cook": [answers(answer="Cooked.")],
        },
    }
)
SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["verdict"],
}


@contextmanager
def playing(cli: Path) -> Iterator[tuple[ScriptedApi, Pump]]:
    with (
        ScriptedApi(STORY) as api,
        house(CLAUDE_JOBS_CLI=str(cli)) as made,
        made.pump(isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)) as pump,
    ):
        yield api, pump


def text_of(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


def heard(request: RecordedRequest) -> str:
    return "\n".join(text_of(message) for message in request.messages if message["role"] == "user")


def test_a_shaped_answer_is_json_for_its_caller_and_for_the_sibling_that_waits_for_it(claude_cli: Path):
    with playing(claude_cli) as (api, pump):
        tasks = [
            {"task": "Judge.", "key": "verdict", "jsonSchema": SCHEMA},
            {"task": "[role: clerk] Write down {{results.verdict}}.", "dependsOn": ["verdict"]},
        ]
        batch = pump.json("claude_run_batch_async", tasks=tasks)
        done = pump.json("claude_wait", batchId=batch["batchId"])["done"]
        result = pump.json("claude_result", jobId=batch["jobIds"][0])
    shaped = {"verdict": "yes", "count": 3}
    assert json.loads(done[0]["excerpt"]) == json.loads(result["result"]) == result["structured_output"] == shaped
    [clerk] = [request for request in api.requests if "[role: clerk]" in request.conversation.opening]
    assert 'Write down {"verdict":"yes","count":3}.' in clerk.conversation.opening


def test_a_job_divides_its_task_and_its_own_session_goes_on_with_what_came_of_it(claude_cli: Path):
    with playing(claude_cli) as (api, pump):
        task = "[role: captain] Set sail."
        result = pump.text("claude_run", task=task, strategy="decompose", outputFormat="text")
        jobs = {job["task"].partition("]")[0]: job for job in pump.json("claude_list_jobs")}
    assert result == "Both done."
    captain = jobs["[role: captain"]
    assert (captain["recursionDepth"], captain["attempt"]) == (0, 2)
    for helper in ("[role: sailor", "[role: cook"):
        assert (jobs[helper]["parentJobId"], jobs[helper]["status"]) == (captain["jobId"], "completed")
    last = api.requests[-1]
    assert last.session_id == api.requests[0].session_id
    assert all(words in heard(last) for words in ("Your subtasks are over", "Hauled.", "Cooked."))
