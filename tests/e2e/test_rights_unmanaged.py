"""A job that starts a `claude` of its own is ended for it; one that uses what the binary starts by itself is not."""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import PYTHON_STUB, House, house

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
            "slow": [{"text": "I took my time.", "delay": 3.0}],
            "asked": [{"text": "Asked and answered."}],
            "brief": [{"text": "Yes.", "delay": 2.5}],
            "late": [
                {
                    "tool_calls": [
                        {
                            "name": "Bash",
                            "input": {
                                "command": "$CLAUDE_CODE_EXECPATH -p hello",
                                "description": "x",
                                "run_in_background": True,
                            },
                        }
                    ]
                },
                {"text": "Here it is."},
            ],
            "searcher": [bash("for i in 1 2 3 4 5 6; do rg -l x . ; sleep 0.5; done; true"), {"text": "Done."}],
        },
    }
)


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """A house whose `claude` each test puts there."""
    with house() as made:
        yield House(
            base=made.base, environ={**made.environ, "CLAUDE_JOBS_CLI": str(made.base / "claude")}, pids=made.pids
        )


class Outcome(Protocol):
    """Runs one job, and returns its status with its answer, where it has one.

    Args:
        cli: The text of a script, or None for the real `claude`.
        role: Of the story.
        settings: What the person's settings.json holds.
    """

    def __call__(self, role: str, cli: str | None = None, **settings: Any) -> Mapping[str, Any]: ...


@pytest.fixture
def outcome(shared: House, claude_cli: Path, tmp_path: Path) -> Outcome:
    def run(role: str, cli: str | None = None, **settings: Any) -> Mapping[str, Any]:
        draft = tmp_path / "claude"
        if cli is None:
            draft.symlink_to(claude_cli)
        else:
            draft.write_text(cli)
            draft.chmod(0o755)
        draft.rename(shared.base / "claude")
        configuration = tmp_path / "home" / ".claude"
        configuration.mkdir(parents=True)
        (configuration / "settings.json").write_text(json.dumps(settings))
        with (
            ScriptedApi(STORY) as api,
            shared.pump(environ=isolated_environment(tmp_path / "home", api.url, path=SYSTEM_PATH)) as pump,
        ):
            job = pump.json("claude_run_async", task=f"[role: {role}] Go on.", allowedTools=["Bash"])
            status = dict(pump.settled(job["jobId"]))
            done = status["status"] == "completed"
            return status | {"answer": pump.json("claude_result", jobId=job["jobId"])["result"] if done else None}

    return run


@pytest.mark.parametrize("role", ["nester", "hider", "leaver"])
def test_a_second_claude_ends_the_job_with_that_reason(outcome: Outcome, role: str):
    status = outcome(role)
    assert (status["status"], status["reason"]) == ("failed", "unmanaged_claude")
    assert "started a claude itself" in status["error"]
    assert "-p hello" in status["error"]


WRAPPER = "#!/bin/sh\n{}\n"
WRAPPERS = {
    "no exec": '{cli} "$@"; exit $?',
    "timeout": 'exec timeout 600 {cli} "$@"',
    "no exec, and timeout": 'timeout 600 {cli} "$@"; exit $?',
    "in a session of its own": 'exec setsid {cli} "$@"',
    "beside a part of itself": '(while sleep 1; do :; done) & {cli} "$@"; exit $?',
    "before a part of itself": 'exec 3<&0; {cli} "$@" <&3 & (sleep 3; true) & wait',
    "another session": 'setsid -w {cli} "$@"; exit $?',
    "another script": 'sh -c \'{cli} "$@"; exit $?\' claude "$@"; exit $?',
    "other options too": '{cli} --add-dir / "$@" --debug-file /dev/null; exit $?',
    "node": 'exec node -e \'process.exit(require("child_process").spawnSync("{cli}", process.argv.slice(1), '
    '{{stdio: "inherit"}}).status)\' -- "$@"',
}


@pytest.mark.parametrize("line", WRAPPERS.values(), ids=WRAPPERS)
def test_a_claude_behind_a_wrapper_is_the_jobs_own(outcome: Outcome, claude_cli: Path, line: str):
    if "node" in line and shutil.which("node", path=SYSTEM_PATH) is None:
        pytest.skip("no node")
    assert outcome("slow", WRAPPER.format(line.format(cli=claude_cli)))["answer"] == "I took my time."


SCRIPTED = """#!{python}
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; time.sleep(2)"])
options = [word for argument in sys.argv[1:] for word in argument.split("=", 1)]
sys.exit(subprocess.run(["{cli}", *options]).returncode)
"""


def test_a_wrapper_may_run_its_interpreter_first_and_spell_the_options_otherwise(outcome: Outcome, claude_cli: Path):
    script = SCRIPTED.format(python=sys.executable, cli=claude_cli)
    assert outcome("slow", script)["answer"] == "I took my time."


@pytest.mark.parametrize("line", ['{cli} "$@"; exit $?', 'timeout 600 {cli} "$@"; exit $?'])
def test_what_a_claude_behind_a_wrapper_starts_is_a_second_one(outcome: Outcome, claude_cli: Path, line: str):
    assert outcome("nester", WRAPPER.format(line.format(cli=claude_cli)))["reason"] == "unmanaged_claude"


@pytest.mark.parametrize(
    ("event", "command"),
    [
        ("SessionStart", "exec {ask}"),
        ("UserPromptSubmit", "{ask}; true"),
        ("UserPromptSubmit", "setsid -f {ask} >/dev/null 2>&1; sleep 3"),
        ("Stop", "exec {ask}"),
    ],
)
def test_a_persons_hook_may_ask_a_claude(outcome: Outcome, claude_cli: Path, event: str, command: str):
    # The variable: the hooks are in force for the claude that a hook asks, too.
    asking = command.format(ask=f"env ASKED=1 {claude_cli} -p '[role: brief] Is it so?'")
    hook = {"type": "command", "command": f'[ -n "$ASKED" ] && exit; {asking}'}
    status = outcome("asked", hooks={event: [{"hooks": [hook]}]})
    assert (status["status"], status["answer"]) == ("completed", "Asked and answered.")


def test_an_answer_that_was_given_is_kept_when_a_second_claude_is_found(outcome: Outcome):
    status = outcome("late")
    assert (status["status"], status["answer"]) == ("completed", "Here it is.")
    assert re.search(r"claude that it started, which was ended with it: \S+ -p hello", status["note"])


def test_the_search_tools_inside_the_binary_are_no_second_claude(outcome: Outcome):
    assert outcome("searcher")["status"] == "completed"


def test_what_a_stub_starts_is_no_second_claude_and_a_stub_below_a_stub_is_one():
    with house(CLAUDE_JOBS_CLI=str(PYTHON_STUB)) as made, made.pump() as pump:
        wide = pump.json("claude_run_async", task="stub:do=wide stub:arg=5 stub:sleep=0")["jobId"]
        plain = pump.json("claude_run_async", task="stub:sleep=3")["jobId"]
        assert pump.settled(plain)["status"] == "completed"
        assert pump.json("claude_status", jobId=wide)["status"] == "running"
        pump.json("claude_kill_job", jobId=wide)
