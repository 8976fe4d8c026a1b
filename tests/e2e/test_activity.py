"""What a running job does, as a model reads it in replies: its call, its silence, its usage; also after a crash."""

import json
import re
import time
from pathlib import Path
from typing import Any

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.engines import House, Pump, house
from tests.support.waiting import until_now

SECONDS = 60.0

MODEL = "claude-opus-5-5"


def four_calls(work: Path) -> str:
    """Return the output of a process that has called four tools and not heard of the last one yet."""
    frames: list[dict[str, Any]] = [
        {"type": "system", "subtype": "init", "model": MODEL, "claude_code_version": "2.1.330"}
    ]
    for number in range(4):
        use = {
            "type": "tool_use",
            "id": f"t{number}",
            "name": "Read",
            "input": {"file_path": f"{work}/src/{number}.ts"},
        }
        content = [{"type": "text", "text": f"Reading file {number}"}, use]
        usage = {"input_tokens": 10, "output_tokens": 5}
        message = {"id": f"m{number}", "role": "assistant", "model": MODEL, "content": content, "usage": usage}
        frames.append({"type": "assistant", "message": message})
    return "".join(json.dumps(frame | {"session_id": "s"}) + "\n" for frame in frames)


def status_with_activity(pump: Pump, job_id: str, activity: str) -> Any:
    """Wait until a job does something, and return its status then."""
    seen: list[Any] = []

    def does() -> bool:
        seen.append(pump.json("claude_status", jobId=job_id))
        return bool(seen[-1].get("activity") == activity)

    until_now(does, SECONDS, activity)
    return seen[-1]


def hanging_job(made: House, pump: Pump, **options: Any) -> str:
    """Start a job that hangs after four calls of tools."""
    output = made.base / "four_calls.ndjson"
    output.write_text(four_calls(made.work))
    task = f"stub:replay={output} stub:wait={made.base / 'gate'}"
    return str(pump.json("claude_run_async", task=task, **options)["jobId"])


def expect_four_calls(status: Any) -> None:
    assert {name: status.get(name) for name in ("status", "model", "cliVersion", "turns")} == {
        "status": "running",
        "model": MODEL,
        "cliVersion": "2.1.330",
        "turns": 4,
    }
    assert (status["inputTokens"], status["outputTokens"]) == (40, 20)
    assert status["costUsd"] > 0
    assert status["cli"].endswith("claude_stub.sh")


def test_a_job_that_hangs_in_a_call_says_which_and_for_how_long_and_the_next_engine_says_the_same():
    with house() as made, made.pump() as pump:
        job_id = hanging_job(made, pump, model="sonnet")
        first = status_with_activity(pump, job_id, "Read: src/3.ts")
        expect_four_calls(first)
        assert first["modelNote"] == "asked for sonnet"
        [row] = pump.json("claude_list_jobs")
        assert row["activity"] == "Read: src/3.ts"
        assert row["silentSeconds"] <= 5
        until_now(lambda: pump.json("claude_status", jobId=job_id)["silentSeconds"] >= 2, SECONDS, "two silent seconds")
        killed = made.kill_engine()
        # The pump starts the next one.
        after = status_with_activity(pump, job_id, "Read: src/3.ts")
        made.wait_for_another_engine(killed)
        expect_four_calls(after)
        # The restart was no output.
        assert after["silentSeconds"] >= 2
        (made.base / "gate").touch()
        over = pump.settled(job_id)
        assert not {"activity", "silentSeconds", "waitingFor"} & set(over)


def test_a_secret_of_the_client_is_not_shown_where_a_job_uses_it():
    secret = "no-known-form-of-a-key-4711"
    with house(SOME_API_KEY=secret, CLAUDE_JOBS_PASS_ENVIRONMENT='["SOME_API_KEY"]') as made, made.pump() as pump:
        output = made.base / "secret.ndjson"
        output.write_text(json.dumps(called(f"curl -u me:{secret} https://example.com")) + "\n")
        job_id = pump.json("claude_run_async", task=f"stub:replay={output} stub:wait={made.base / 'gate'}")["jobId"]
        status_with_activity(pump, job_id, "Bash: curl -u me:[redacted] https://example.com")
        assert secret not in pump.text("claude_list_jobs") + pump.text("claude_wait", jobIds=[job_id], timeoutSeconds=0)
        (made.base / "gate").touch()
        pump.settled(job_id)


def test_who_waits_is_told_what_the_job_does_in_the_reply_and_in_progress():
    with house(CLAUDE_JOBS_WAIT_SECONDS="1.5") as made, made.pump() as pump:
        job_id = hanging_job(made, pump)
        status_with_activity(pump, job_id, "Read: src/3.ts")
        waiting = {"name": "claude_wait", "arguments": {"jobIds": [job_id]}, "_meta": {"progressToken": "t"}}
        reply = json.loads(pump.ask("tools/call", **waiting)["content"][0]["text"])
        [line] = reply["live"]
        assert (line["jobId"], line["activity"]) == (job_id, "Read: src/3.ts")
        assert line["silentSeconds"] >= 1
        [note, *_] = [told["params"] for told in pump.told if told["method"] == "notifications/progress"]
        assert re.fullmatch(r"Read: src/3\.ts, \d+ s", note["message"])
        tree = json.loads(pump.ask("resources/read", uri=f"tree://{job_id}")["contents"][0]["text"])
        of_job = json.loads(pump.ask("resources/read", uri=f"job://{job_id}")["contents"][0]["text"])
        assert tree["jobs"][0]["activity"] == of_job["activity"] == "Read: src/3.ts"
        assert tree["costUsd"] == of_job["costUsd"] > 0
        (made.base / "gate").touch()
        pump.settled(job_id)


def called(command: str) -> dict[str, Any]:
    """Return the frame of a call of Bash."""
    use = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": command}}
    return {"type": "assistant", "message": {"content": [use]}}


def test_a_call_is_shown_within_a_second():
    with house() as made:
        gates, script = made.base / "gates", made.base / "claude"
        gates.mkdir()
        calls = "".join(
            f"while ! [ -e {gates}/{number} ]; do sleep 0.02; done; echo '{json.dumps(called(f'make {number}'))}'\n"
            for number in range(3)
        )
        init = '{"type":"system","subtype":"init"}'
        script.write_text(f"#!/bin/sh\nIFS= read -r first; IFS= read -r second\necho '{init}'\n{calls}sleep 60\n")
        script.chmod(0o755)
        with made.pump({"CLAUDE_JOBS_CLI": str(script)}) as pump:
            job_id = pump.json("claude_run_async", task="x")["jobId"]
            status_with_activity(pump, job_id, "thinking")
            for number in range(3):
                began = time.monotonic()
                (gates / str(number)).touch()
                status_with_activity(pump, job_id, f"Bash: make {number}")
                assert time.monotonic() - began <= 1.0


STARTED = "touch started; sleep 50"
BASH = {"name": "Bash", "input": {"command": STARTED, "description": "Wait a while"}}
TURNS = [{"text": "First I run it.", "tool_calls": [BASH]}, {"text": "It is over."}]
STORY = Story.model_validate({"default": "worker", "roles": {"worker": TURNS}})


def test_the_real_claude_is_followed_within_a_second_of_its_call_and_after_a_crash(claude_cli: Path):
    with ScriptedApi(STORY) as api, house(CLAUDE_JOBS_CLI=str(claude_cli)) as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        with made.pump(client) as pump:
            job_id = pump.json("claude_run_async", task="Go on.", allowedTools=["Bash"])["jobId"]
            until_now((made.work / "started").exists, SECONDS, "the call")
            began = time.monotonic()
            first = status_with_activity(pump, job_id, f"Bash: {STARTED}")
            assert time.monotonic() - began <= 1.0
            assert first["turns"] >= 1
            assert first["model"]
            assert first["cliVersion"][0].isdigit()
            assert first["outputTokens"] > 0
            made.kill_engine()
            after = status_with_activity(pump, job_id, f"Bash: {STARTED}")
            assert after["silentSeconds"] >= first["silentSeconds"]
            assert (after["model"], after["turns"]) == (first["model"], first["turns"])
            pump.json("claude_kill_job", jobId=job_id)
