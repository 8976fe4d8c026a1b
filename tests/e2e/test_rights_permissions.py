"""A headless job that lacks a permission asks through the engine: a person or its parent answers; silence is a no."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.conftest import RunPrint
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import MAIN, House, Pump, house
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(180)

OWN_SERVER_RULE = "mcp__claude-jobs__"


def call(tool: str, **arguments: Any) -> Mapping[str, Any]:
    return {"tool_calls": [{"name": tool, "input": arguments}]}


MAKE = "install -m 600 /dev/null made-it"
"""A command that needs a permission: `touch` and `mkdir` would not, where edits are accepted (measured on 2.1.330)."""

MAKING = call("Bash", command=MAKE, description="x")
STORY = Story.model_validate(
    {
        "default": "worker",
        "roles": {
            "worker": [MAKING, {"text": "It is over."}],
            "outer": [
                call(f"{OWN_SERVER_RULE}claude_run_async", task="[role: worker] Go on."),
                call(f"{OWN_SERVER_RULE}claude_wait", jobIds=["{{latest.jobId}}"]),
                {"text": "{{answers}}"},
            ],
            "parent": [
                call(f"{OWN_SERVER_RULE}claude_run_async", task="[role: worker] Go on.", allowedTools=[]),
                call(f"{OWN_SERVER_RULE}claude_wait", jobIds=["{{latest.jobId}}"]),
                call(f"{OWN_SERVER_RULE}claude_approve", requestId="{{latest.waitingForPermission[0].requestId}}"),
                call(f"{OWN_SERVER_RULE}claude_wait", jobIds=["{{latest.jobId}}"]),
                {"text": "{{answers}}"},
            ],
        },
    }
)


@contextmanager
def engine(cli: Path, asks: str, **environ: str) -> Iterator[tuple[House, Pump]]:
    settings = {"CLAUDE_JOBS_CLI": str(cli), "CLAUDE_JOBS_PERMISSION_REQUESTS": asks, **environ}
    with ScriptedApi(STORY) as api, house(**settings) as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        with made.pump(environ=client) as pump:
            yield made, pump


def waiting(pump: Pump, job_id: str) -> None:
    def asks() -> bool:
        return bool(pump.json("claude_status", jobId=job_id).get("waitingFor") == "permission")

    until_now(asks, 40.0, "the question")


def open_request(made: House) -> Mapping[str, str]:
    [request] = json.loads(made.run("approve", "--json").stdout)["requests"]
    return dict(request)


def test_a_person_is_asked_sees_what_waits_and_says_yes_or_no(claude_cli: Path):
    with engine(claude_cli, "person") as (made, pump):
        first = pump.json("claude_run_async", task="Go on.")["jobId"]
        waiting(pump, first)
        [line] = pump.json("claude_list_jobs")
        assert line["waitingFor"] == "permission"
        asked = open_request(made)
        assert (asked["jobId"], asked["tool"], MAKE in asked["input"]) == (first, "Bash", True)
        both = made.run("approve", asked["requestId"][:6], "pz")
        assert both.returncode == 1
        assert both.stdout == f"{asked['requestId']}  {first}  permitted\n"
        assert "pz not found" in both.stderr
        status = pump.settled(first)
        assert (status["reason"], "waitingFor" in status) == ("completed", False)
        assert (made.work / "made-it").exists()
        (made.work / "made-it").unlink()
        second = pump.json("claude_run_async", task="Go on.")["jobId"]
        waiting(pump, second)
        assert made.run("approve", open_request(made)["requestId"], "--deny").returncode == 0
        pump.settled(second)
        assert not (made.work / "made-it").exists()
        assert json.loads(made.run("approve", "--json").stdout) == {"requests": []}


def test_a_question_that_nobody_answers_is_a_no(claude_cli: Path):
    with engine(claude_cli, "person", CLAUDE_JOBS_PERMISSION_SECONDS="0.5") as (made, pump):
        assert pump.settled(pump.json("claude_run_async", task="Go on.")["jobId"])["status"] == "completed"
        assert not (made.work / "made-it").exists()


def test_by_default_nobody_is_asked_and_the_call_is_denied(claude_cli: Path):
    with engine(claude_cli, "deny") as (made, pump):
        status = pump.settled(pump.json("claude_run_async", task="Go on.")["jobId"])
        assert status["reason"] == "completed_with_denials"
        assert not (made.work / "made-it").exists()
        assert status["note"].endswith("allowedTools permits more.")
        assert "`--allowed-tools` permits more." in made.run("status", status["jobId"]).stdout
        names = {tool["name"] for tool in pump.ask("tools/list")["tools"]}
        assert names.isdisjoint({"claude_permit", "claude_approve"})


@pytest.mark.parametrize(("rules", "allowed"), [(["Bash(install *)"], True), ([], False)])
def test_a_parent_hears_of_its_child_while_it_waits_and_permits_what_it_may_do_itself(
    claude_cli: Path, rules: list[str], *, allowed: bool
):
    with engine(claude_cli, "parent", CLAUDE_JOBS_PERMISSION_SECONDS="15" if allowed else "2") as (made, pump):
        task = "[role: parent] Go on." if allowed else "[role: worker] Go on."
        job = pump.json("claude_run_async", task=task, allowedTools=rules)["jobId"]
        if not allowed:
            waiting(pump, job)
        assert pump.settled(job)["status"] == "completed"
        assert (made.work / "made-it").exists() is allowed


def test_a_claude_that_cannot_show_a_form_goes_on_waiting_and_time_decides(run_print: RunPrint, claude_cli: Path):
    with (
        ScriptedApi(STORY) as api,
        house(
            CLAUDE_JOBS_CLI=str(claude_cli),
            CLAUDE_JOBS_PERMISSION_REQUESTS="person",
            CLAUDE_JOBS_PERMISSION_SECONDS="3",
        ) as made,
    ):
        settings = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
        server = {"type": "stdio", "command": sys.executable, "args": [str(MAIN), "mcp"], "env": settings}
        run = run_print(
            "[role: outer] Go on.",
            story=api,
            args=("--allowedTools", "mcp__claude-jobs"),
            mcp_config={"claude-jobs": server},
        )
        assert (run.exit_code, run.stderr) == (0, "")
        assert "It is over." in run.answer
        # The call that waited came back once: a form that `claude -p` dismisses is not shown to it again.
        assert len([one for one in api.requests if "role: outer" in one.conversation.opening]) == 3
        assert re.search(r"the form of p\w+ was dismissed", made.paths.log.read_text())
