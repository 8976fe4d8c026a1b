"""What an engine that was killed left of tokens and environments is removed by the next one."""

import os
import signal
from pathlib import Path

import pytest

from jobs.processes.attempt_dir import AttemptDirectory
from tests.support.engines import house
from tests.support.waiting import until_now

SECONDS = 60.0
SECRETS = ("in", "in.part")


def secrets_in(attempt: Path) -> set[str]:
    return {name for name in SECRETS if (attempt / name).exists()}


@pytest.mark.timeout(170)
def test_the_next_engine_removes_what_holds_secrets_of_attempts_that_do_not_run_and_nothing_else():
    with house() as made:
        go = made.base / "go"
        with made.pump() as pump:
            over = [pump.json("claude_run_async", task="x")["jobId"] for _ in range(3)]
            for job_id in over:
                assert pump.settled(job_id)["status"] == "completed"
            runs = pump.json("claude_run_async", task=f"stub:wait={go}")["jobId"]
            directories = {job_id: made.paths.trees / job_id / job_id / "1" for job_id in (*over, runs)}
            until_now(lambda: AttemptDirectory(directories[runs]).claude_pid() is not None, SECONDS, "a running job")
        engine = made.control("status")
        assert engine
        assert [secrets_in(directories[job_id]) for job_id in over] == [set()] * 3
        os.kill(engine["pid"], signal.SIGKILL)
        made.wait_for_the_engine_to_go()
        # As a kill between the end of a job and the removal leaves them, and one between a claim and a launch.
        for job_id, names in zip(over, (("in",), ("in.part",), SECRETS), strict=True):
            for name in names:
                (directories[job_id] / name).write_text("a token")
            (directories[job_id].parent.parent / "origin.json").write_text("{}")
        assert made.run("list").returncode == 0
        gone = [directories[job_id] for job_id in over]
        until_now(lambda: not any(map(secrets_in, gone)), SECONDS, "the end of every secret")
        assert secrets_in(directories[runs]) == {"in"}
        client_contexts = {path.parent.name for path in made.paths.trees.glob("*/origin.json")}
        assert client_contexts == {runs}
        go.touch()
        with made.pump() as pump:
            assert pump.settled(runs)["status"] == "completed"
        until_now(lambda: not secrets_in(directories[runs]), SECONDS, "the end of the last secret")
