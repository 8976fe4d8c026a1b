"""A job that starts a `claude` of its own is ended for it; one that uses what the binary starts by itself is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server.demo.api import ScriptedApi
from server.demo.environment import isolated_environment
from server.demo.story import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import PYTHON_STUB, house

pytestmark = pytest.mark.timeout(180)


def bash(command: str) -> Mapping[str, Any]:
    return {"tool_calls": [{"name": "Bash", "input": {"command": command, "description": "x"}}]}


INNER = {"text": "I am the inner one.", "delay": 60.0}
STORY = Story.model_validate(
    {
        "default": "inner",
        "roles": {
            "inner": [INNER],
            "nester": [bash("$CLAUDE_CODE_EXECPATH -p hello"), {"text": "It went unseen."}],
            "hider": [
                bash(
                    "env -i HOME=$HOME PATH=$PATH $CLAUDE_CODE_EXECPATH --version; sleep 1; "
                    "cp $CLAUDE_CODE_EXECPATH ./tool && exec -a find ./tool -p hello"
                ),
                {"text": "It went unseen."},
            ],
            "leaver": [
                bash("setsid --fork $CLAUDE_CODE_EXECPATH -p hello </dev/null >/dev/null 2>&1; sleep 20"),
                {"text": "It went unseen."},
            ],
            "searcher": [bash("for i in 1 2 3 4 5 6; do rg -l x . ; sleep 0.5; done; true"), {"text": "Done."}],
        },
    }
)


def outcome(cli: Path, role: str) -> Mapping[str, Any]:
    with ScriptedApi(STORY) as api, house(CLAUDE_JOBS_CLI=str(cli)) as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        with made.pump(environ=client) as pump:
            job = pump.json("claude_run_async", task=f"[role: {role}] Go on.", allowedTools=["Bash"])
            return dict(pump.settled(job["jobId"]))


@pytest.mark.parametrize("role", ["nester", "hider", "leaver"])
def test_a_second_claude_ends_the_job_with_that_reason(claude_cli: Path, role: str):
    status = outcome(claude_cli, role)
    assert (status["status"], status["reason"]) == ("failed", "unmanaged_claude")
    assert "started a claude of its own" in status["error"]


def test_the_search_tools_inside_the_binary_are_no_second_claude(claude_cli: Path):
    assert outcome(claude_cli, "searcher")["status"] == "completed"


def test_what_a_stub_starts_is_no_second_claude_and_a_stub_below_a_stub_is_one():
    with house(CLAUDE_JOBS_CLI=str(PYTHON_STUB)) as made, made.pump() as pump:
        wide = pump.json("claude_run_async", task="stub:do=wide stub:arg=5 stub:sleep=0")["jobId"]
        plain = pump.json("claude_run_async", task="stub:sleep=3")["jobId"]
        assert pump.settled(plain)["status"] == "completed"
        assert pump.json("claude_status", jobId=wide)["status"] == "running"
        pump.json("claude_kill_job", jobId=wide)
