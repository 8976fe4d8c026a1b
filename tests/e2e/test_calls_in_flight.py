"""A call that an engine has begun to answer when it is killed is answered by the next engine, through the same pump."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.conftest import RunPrint
from tests.e2e.test_outer_client import TOOL, asks
from tests.support.engines import MAIN, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
"""What each request of the newest protocol says; its clients shake no hands."""


@pytest.fixture
def own() -> Iterator[House]:
    with house() as made:
        yield made


@pytest.fixture(params=["handshake", "no handshake"])
def pump(own: House, request: pytest.FixtureRequest) -> Iterator[Pump]:
    meta = MODERN if request.param == "no handshake" else None
    with own.pump(meta=meta) as made:
        yield made


def test_a_wait_in_flight_is_answered_by_the_next_engine_in_either_era(own: House, pump: Pump):
    gate, ledger = own.base / "gate", own.base / "ledger"
    job_id = pump.json("claude_run_async", task=f"stub:wait={gate} stub:ledger={ledger}")["jobId"]
    until_now(ledger.exists, 30.0, "the job")
    wait = pump.in_flight("tools/call", name="claude_wait", arguments={"jobIds": [job_id]})
    dead = own.kill_engine()
    gate.touch()
    reply = json.loads(pump.answer(wait)["content"][0]["text"])
    assert [(line["jobId"], line["status"]) for line in reply["done"]] == [(job_id, "completed")]
    status = own.control("status")
    assert status is not None
    assert status["pid"] != dead
    assert ledger.read_text().count("begin") == 1


def test_a_run_in_flight_starts_its_job_once_and_brings_its_answer(own: House, pump: Pump):
    gate, ledger = own.base / "gate", own.base / "ledger"
    task = f"stub:wait={gate} stub:say=kept stub:ledger={ledger}"
    run = pump.in_flight("tools/call", name="claude_run", arguments={"task": task})
    until_now(ledger.exists, 30.0, "the job")
    own.kill_engine()
    gate.touch()
    assert "kept" in pump.answer(run)["content"][0]["text"]
    assert len(pump.json("claude_list_jobs")) == 1
    assert ledger.read_text().count("begin") == 1


def test_a_jobs_token_is_good_before_the_next_engine(own: House):
    with own.pump() as person:
        job_id = person.json("claude_run_async", task="stub:wait=/nonexistent")["jobId"]
        directory = attempt_directory(own, running(person, job_id))
        with pump_of_job(own, directory) as job:
            child = job.json("claude_run_async", task="x")["jobId"]
            wait = job.in_flight("tools/call", name="claude_wait", arguments={"jobIds": [child]})
            own.kill_engine()
            assert json.loads(job.answer(wait)["content"][0]["text"])["pending"] == 0
            # It is still that job and nobody else: it sees what is below it, and spawns there.
            assert {each["jobId"] for each in job.json("claude_list_jobs")} <= {job_id, child}
            assert (
                job.json("claude_status", jobId=job.json("claude_run_async", task="y")["jobId"])["parentJobId"]
                == job_id
            )


def test_a_client_with_a_handshake_goes_on_hearing_of_what_it_has_subscribed_to(own: House):
    gate, ledger = own.base / "gate", own.base / "ledger"
    with own.pump() as pump:
        job_id = pump.json("claude_run_async", task=f"stub:wait={gate} stub:ledger={ledger}")["jobId"]
        until_now(ledger.exists, 30.0, "the job")
        pump.ask("resources/subscribe", uri=f"job://{job_id}")
        own.kill_engine()
        pump.json("claude_list_jobs")
        changed = {"method": "notifications/resources/updated", "uri": f"job://{job_id}"}
        assert changed in [told(each) for each in pump.told]
        pump.told.clear()
        gate.touch()

        def hears() -> bool:
            pump.ask("ping")
            return changed in [told(each) for each in pump.told]

        until_now(hears, 30.0, "the update")


def told(message: dict[str, Any]) -> dict[str, Any]:
    return {"method": message["method"], "uri": message.get("params", {}).get("uri")}


STORY = Story.model_validate(
    {
        "default": "captain",
        "roles": {
            "captain": asks("[role: mate] Trim the sails.", heading="Captain:"),
            "mate": [{"text": "Trimmed.", "delay": 10}],
        },
    }
)


@pytest.mark.timeout(170)
def test_real_claude_code_does_not_notice_that_the_engine_died_during_its_wait(
    run_print: RunPrint, scripted: Callable[[Story], ScriptedApi], claude_cli: Path, tmp_path: Path
):
    api = scripted(STORY)
    with house(CLAUDE_JOBS_CLI=str(claude_cli)) as made:
        settings = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
        server = {"type": "stdio", "command": sys.executable, "args": [str(MAIN), "mcp"], "env": settings}
        killed: list[int] = []

        def kill_during_the_wait() -> None:
            out = tmp_path / "run0" / "out"
            until_now(lambda: out.exists() and f'{TOOL}claude_wait"' in out.read_text(), 60.0, "the wait")
            until_now(lambda: len(api.requests) >= 3, 60.0, "the job's own request")
            killed.append(made.kill_engine())

        killer = threading.Thread(target=kill_during_the_wait)
        killer.start()
        run = run_print(
            "Set sail.", story=api, args=("--allowedTools", "mcp__claude-jobs"), mcp_config={"claude-jobs": server}
        )
        killer.join()

        assert (run.exit_code, run.stderr) == (0, "")
        assert run.answer.splitlines()[0] == "Captain:"
        assert "Trimmed." in run.answer
        # One call of each tool, no error among their results: to the model nothing happened.
        blocks = [block for frame in run.of("assistant") for block in frame["message"]["content"]]
        calls = [block["name"] for block in blocks if block["type"] == "tool_use"]
        assert calls == [f"{TOOL}claude_run_batch_async", f"{TOOL}claude_wait"]
        results = [block for frame in run.of("user") for block in frame["message"]["content"]]
        assert not [block for block in results if block.get("is_error")]
        status = made.control("status")
        assert status is not None
        assert [status["pid"]] != killed
        with made.pump() as pump:
            jobs = pump.json("claude_list_jobs")
        assert [(job["status"], job.get("attempt")) for job in jobs] == [("completed", None)]
