"""The real CLI: its processes survive the engine, the pump answers across engines, and a cancel leaves nothing."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.processes.process_table import process_table
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story, ToolCall, Turn
from tests.e2e.conftest import claude_cli as claude_cli  # noqa: PLC0414 - pytest finds fixtures by name
from tests.support.engines import SYSTEM_PATH, House, house
from tests.support.long_form import LONG
from tests.support.noted import claude_of
from tests.support.waiting import until_now

MINUTE = 60.0


@pytest.fixture
def real(claude_cli: Path) -> Iterator[House]:
    with house(CLAUDE_JOBS_CLI=str(claude_cli), CLAUDE_JOBS_GRACE_SECONDS="4") as made:
        yield made


def play(made: House, api: ScriptedApi) -> dict[str, str]:
    return isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)


def kill_engine(made: House) -> None:
    made.kill_engine()


def running(pump: Any) -> int:
    return sum(job.get("status") == "running" for job in pump.json("claude_list_jobs", limit=50))


@pytest.mark.long
@pytest.mark.timeout(170)
def test_five_running_jobs_are_adopted_after_a_kill_and_answer_once_each(real: House):
    say = Turn(text="It survived.", delay=20.0 if LONG else 6.0)
    with ScriptedApi(Story(roles={"default": (say,)})) as api, real.pump(environ=play(real, api)) as pump:
        batch = pump.json("claude_run_batch_async", tasks=[f"task {index}" for index in range(5)])
        until_now(lambda: len(api.requests) == 5, MINUTE, "five requests")
        kill_engine(real)
        # The same client: its pump reaches the next engine, which adopts all five.
        reply = pump.json("claude_wait", batchId=batch["batchId"])
        jobs = pump.json("claude_list_jobs", under=batch["batchId"], limit=10)
        assert reply["pending"] == 0
        assert [(job["status"], job.get("attempt")) for job in jobs] == [("completed", None)] * 5
        for job in jobs:
            assert "It survived." in pump.text("claude_result", jobId=job["jobId"])
        assert len(api.requests) == 5
    if LONG:
        # On a busy machine six seconds are too short for an engine's start, and the jobs are settled from their files.
        assert b"5 lives" in real.paths.log.read_bytes()


@pytest.mark.timeout(170)
def test_a_cancel_leaves_nothing_of_a_job_whose_bash_tool_started_daemons(real: House):
    pids = real.base / "pids"
    daemon = f"sh -c 'echo $$ >>{pids}; exec sleep 300'"
    script = (
        f"setsid -f {daemon} </dev/null >/dev/null 2>&1; "
        f"env -i setsid -f {daemon} </dev/null >/dev/null 2>&1; "
        f"nohup {daemon} </dev/null >/dev/null 2>&1 & sleep 300"
    )
    bash = Turn(tool_calls=(ToolCall(name="Bash", input={"command": script, "timeout": 250000}),))
    with ScriptedApi(Story(roles={"default": (bash,)})) as api, real.pump(environ=play(real, api)) as pump:
        job = pump.json("claude_run_async", task="start daemons", permissionMode="acceptEdits", allowedTools=["Bash"])
        until_now(lambda: pids.exists() and len(pids.read_text().split()) == 3, MINUTE, "three daemons")
        daemons = {int(pid) for pid in pids.read_text().split()}
        assert daemons <= set(process_table().entries())
        began = time.monotonic()
        pump.json("claude_kill_job", jobId=job["jobId"])
        assert pump.settled(job["jobId"])["status"] == "cancelled"
        until_now(lambda: not daemons & set(process_table().entries()), MINUTE, "the daemons' end")
        print(f"0 of {len(daemons)} daemons left {time.monotonic() - began:.1f} s after the cancel")
        directory = real.paths.trees / job["jobId"] / job["jobId"] / "1"
        claude = claude_of(directory)
        until_now(lambda: not Path(f"/tmp/cc-socks/{claude}.sock").exists(), MINUTE, "the end of its socket")


@pytest.mark.timeout(170)
def test_a_claude_that_is_killed_behind_a_wrapper_leaves_neither_socket_nor_key(claude_cli: Path, tmp_path: Path):
    wrapper = tmp_path / "claude"
    wrapper.write_text(f'#!/bin/sh\n{claude_cli} "$@"; exit $?\n')
    wrapper.chmod(0o755)
    slow = Turn(text="It took a while.", delay=60.0)
    with ScriptedApi(Story(roles={"default": (slow,)})) as api, house(CLAUDE_JOBS_CLI=str(wrapper)) as made:
        sessions = made.base / "home" / ".claude" / "sessions"
        with made.pump(environ=play(made, api)) as pump:
            pump.json("claude_run_async", task="x")
            until_now(lambda: bool(api.requests) and any(sessions.glob("*.key")), MINUTE, "its key and its request")
            [key] = sessions.glob("*.key")
            claude = int(key.name.partition(".")[0])
            socket = Path(f"/tmp/cc-socks/{claude}.sock")
            assert socket.exists()
            os.kill(claude, signal.SIGKILL)
            until_now(lambda: not key.exists() and not socket.exists(), MINUTE, "the end of its key and its socket")
