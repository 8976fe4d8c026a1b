"""An engine that is told to leave: how soon it goes, what becomes of its jobs, and of the calls that wait for them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import pytest

from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.process_table import process_table
from tests.support.engines import MAIN, PYTHON_STUB, House, Pump, house
from tests.support.tokens import running
from tests.support.waiting import until_now

GONE_SECONDS = 40.0
"""Bound of an engine's end; jobs that ignore their end are given longer than that."""


@contextmanager
def in_the_foreground(made: House) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the engine as a child, so that its exit status is seen."""
    with (made.base / "engine.log").open("wb") as log:
        engine = subprocess.Popen(
            [sys.executable, str(MAIN), "engine"],
            env=dict(made.environ),
            cwd=made.work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            until_now(lambda: made.control("status") is not None, GONE_SECONDS, "the engine")
            yield engine
        finally:
            engine.kill()
            engine.wait()


@pytest.fixture
def stubborn() -> Iterator[House]:
    """A house whose engine ends its jobs when it leaves, and whose jobs ignore that for a minute."""
    with house(
        CLAUDE_JOBS_CLI=str(PYTHON_STUB), CLAUDE_JOBS_END_JOBS_ON_STOP="true", CLAUDE_JOBS_GRACE_SECONDS="60"
    ) as made:
        yield made
        # What the first engine left undone, the next one does; a minute is more than this test needs to wait.
        for pid in noted(made):
            if pid in process_table().entries():
                os.kill(pid, signal.SIGKILL)


def noted(made: House) -> set[int]:
    attempts = (AttemptDirectory(path.parent) for path in made.paths.trees.glob("*/*/*/lock"))
    return {pid for attempt in attempts if (pid := attempt.claude_pid()) is not None}


def start_ignoring(made: House) -> str:
    ready = made.base / "ready"
    with made.pump() as pump:
        job_id: str = pump.json("claude_run_async", task=f"stub:do=ignoreterm stub:ready={ready}")["jobId"]
        until_now(ready.exists, 30.0, "the job")
    return job_id


def test_an_engine_leaves_in_time_though_a_job_does_not_end(stubborn: House, capsys: pytest.CaptureFixture[str]):
    with in_the_foreground(stubborn) as engine:
        start_ignoring(stubborn)
        engine.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert engine.wait(GONE_SECONDS) == 0
        with capsys.disabled():
            print(f"\n  left {time.monotonic() - began:.1f} s after SIGTERM, its job still ending")
    # It waited for the job as long as it may, and not as long as the job takes.
    assert noted(stubborn) <= set(process_table().entries())


def test_a_second_signal_ends_the_engine_at_once(stubborn: House):
    with in_the_foreground(stubborn) as engine:
        start_ignoring(stubborn)
        engine.send_signal(signal.SIGTERM)
        until_now(lambda: not stubborn.paths.socket.exists(), GONE_SECONDS, "the first signal's effect")
        engine.send_signal(signal.SIGTERM)
        # Another status than that of an engine that has left in its own time.
        assert engine.wait(GONE_SECONDS) == 128 + signal.SIGTERM


def test_an_engine_that_ends_its_jobs_when_it_leaves_leaves_none():
    with house(CLAUDE_JOBS_END_JOBS_ON_STOP="true") as made:
        with in_the_foreground(made) as engine:
            with made.pump() as pump:
                job_ids = pump.json("claude_run_batch_async", tasks=["stub:wait=/nonexistent"] * 3)["jobIds"]
                until_now(lambda: len(noted(made)) == 3, 30.0, "three jobs")
            engine.send_signal(signal.SIGTERM)
            assert engine.wait(GONE_SECONDS) == 0
        assert not noted(made) & set(process_table().entries())
        with made.pump() as pump:
            assert {pump.json("claude_status", jobId=each)["status"] for each in job_ids} == {"cancelled"}


def rows(made: House) -> set[tuple[str, int]]:
    """Each job's status and attempt, as they are on disk: to ask for them would start another engine."""
    with closing(sqlite3.connect(made.paths.database)) as database:
        return set(database.execute("SELECT status, attempt FROM job"))


@pytest.mark.parametrize(
    ("tool", "arguments", "status"),
    [("claude_kill_job", {}, "cancelled"), ("claude_pause", {"now": True}, "queued")],
)
@pytest.mark.parametrize("moment", ["it runs", "it is being launched"])
def test_a_job_that_was_told_to_end_has_ended_when_an_engine_is_gone(
    tool: str, arguments: Mapping[str, bool], status: str, moment: str
):
    with house(CLAUDE_JOBS_CLI=str(PYTHON_STUB)) as made:
        with in_the_foreground(made) as engine, made.pump() as pump:
            pump.settled(pump.json("claude_run_async", task="stub:do=answer")["jobId"])
            # Only where the fork server waits can a job be told to end in the middle of its launch.
            launchers = children_of(engine.pid) if moment == "it is being launched" else []
            for pid in launchers:
                os.kill(pid, signal.SIGSTOP)
            job_id = running(pump, start_ignoring(made) if not launchers else begun(pump))["jobId"]
            assert pump.json(tool, jobId=job_id, **arguments)["success"]
            engine.send_signal(signal.SIGTERM)
            until_now(lambda: not made.paths.socket.exists(), GONE_SECONDS, "the signal's effect")
            for pid in launchers:
                os.kill(pid, signal.SIGCONT)
            assert engine.wait(GONE_SECONDS) == 0
        assert not noted(made) & set(process_table().entries())
        assert rows(made) == {("completed", 1), (status, 1)}
        # The client's environment with its API key goes with the tree.
        assert len(list(made.paths.trees.glob("*/origin.json"))) == (status == "queued")


def begun(pump: Pump) -> str:
    return str(pump.json("claude_run_async", task="stub:do=ignoreterm")["jobId"])


def children_of(pid: int) -> list[int]:
    return [entry.identity.pid for entry in process_table().entries().values() if entry.parent == pid]


def test_an_upgrade_under_load_is_not_noticed_by_those_who_wait():
    with house() as made, made.pump() as pump, made.pump() as other:
        gate, ledger = made.base / "gate", made.base / "ledger"
        task = f"stub:wait={gate} stub:ledger={ledger}"
        batches = [one.json("claude_run_batch_async", tasks=[task] * 5)["batchId"] for one in (pump, other)]
        until_now(lambda: ledger.exists() and ledger.read_text().count("begin") == 10, 30.0, "ten jobs")
        waits = [
            one.in_flight("tools/call", name="claude_wait", arguments={"batchId": batch})
            for one, batch in zip((pump, other), batches, strict=True)
        ]
        first = made.control("status")
        assert first is not None
        os.kill(first["pid"], signal.SIGTERM)
        made.wait_for_another_engine(first["pid"])
        gate.touch()
        for one, wait, batch in zip((pump, other), waits, batches, strict=True):
            assert json.loads(one.answer(wait)["content"][0]["text"])["pending"] == 0
            jobs = one.json("claude_list_jobs", under=batch, limit=10)
            assert [(job["status"], job.get("attempt")) for job in jobs] == [("completed", None)] * 5
        assert ledger.read_text().count("begin") == 10
