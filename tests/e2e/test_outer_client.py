"""Real Claude Code as the outer client: it starts `claude-jobs mcp`, and so real children and real grandchildren."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.demo.api import ScriptedApi
from server.demo.story import Story
from tests.e2e.conftest import RunPrint
from tests.support.engines import MAIN, house

TOOL = "mcp__claude-jobs__"


def asks(*tasks: str, heading: str) -> list[dict[str, Any]]:
    """Turns of a role that spawns a batch, waits for it and answers with what it said."""
    wait = {"batchId": "{{latest.batchId}}", "cursor": "{{latest.cursor?}}"}
    return [
        {"tool_calls": [{"name": f"{TOOL}claude_run_batch_async", "input": {"tasks": list(tasks)}}]},
        {"tool_calls": [{"name": f"{TOOL}claude_wait", "input": wait}], "repeat_while": "latest.pending"},
        {"text": f"{heading}\n{{{{answers}}}}"},
    ]


STORY = Story.model_validate(
    {
        "default": "captain",
        "roles": {
            "captain": asks("[role: mate] Trim the sails.", heading="Captain:"),
            "mate": asks("[role: sailor] Haul.", "[role: cook] Cook.", heading="Mate:"),
            "sailor": [{"text": "Hauled."}],
            "cook": [{"text": "Cooked."}],
        },
    }
)


def test_claude_code_gets_the_answers_of_real_grandchildren(
    run_print: RunPrint, scripted: Callable[[Story], ScriptedApi], claude_cli: Path
):
    api = scripted(STORY)
    with house(CLAUDE_JOBS_CLI=str(claude_cli)) as made:
        settings = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
        server = {"type": "stdio", "command": sys.executable, "args": [str(MAIN), "mcp"], "env": settings}

        run = run_print(
            "Set sail.", story=api, args=("--allowedTools", "mcp__claude-jobs"), mcp_config={"claude-jobs": server}
        )

        assert (run.exit_code, run.stderr) == (0, "")
        lines = run.answer.splitlines()
        assert lines[0] == "Captain:"
        assert all(words in run.answer for words in ("Mate:", "Hauled.", "Cooked."))
        with made.pump() as pump:
            jobs = {job["jobId"]: job for job in pump.json("claude_list_jobs")}
        depths = sorted((job["recursionDepth"], job["task"].partition("]")[0]) for job in jobs.values())
        assert depths == [(1, "[role: mate"), (2, "[role: cook"), (2, "[role: sailor")]
        [mate] = [job["jobId"] for job in jobs.values() if job["recursionDepth"] == 1]
        assert {job["parentJobId"] for job in jobs.values() if job["recursionDepth"] == 2} == {mate}
        assert {job["status"] for job in jobs.values()} == {"completed"}
    # The outer client saw our tools from the start, and its call was allowed without a question.
    assert f"{TOOL}claude_run_batch_async" in api.requests[0].tool_names
    assert json.loads(json.dumps(run.of("result")[-1]))["permission_denials"] == []
