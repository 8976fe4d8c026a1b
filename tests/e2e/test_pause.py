"""A pause seen from outside: which processes start and live, what every view says, and that a resume alone ends it."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.processes.process_table import process_table
from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story, ToolCall, Turn
from tests.support.engines import SHELL_STUB, SYSTEM_PATH, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

SECONDS = 60.0


class Starts:
    """A `claude` that writes down each of its starts before it does what the stub does.

    Args:
        base: Where its script and its log are.
    """

    def __init__(self, base: Path) -> None:
        self._log = base / "starts"
        self.cli = base / "claude"
        self._hang = base / "hang"
        hangs = f"[ -e {self._hang} ] && exec sleep 300"
        self.cli.write_text(f'#!/bin/sh\necho "$$ $*" >>{self._log}\n{hangs}\nexec {SHELL_STUB} "$@"\n')
        self.cli.chmod(0o755)

    def hang(self, hangs: bool) -> None:
        """Have every further start hang without a word, or not."""
        self._hang.touch() if hangs else self._hang.unlink(missing_ok=True)

    def lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def pids(self) -> list[int]:
        return [int(line.partition(" ")[0]) for line in self.lines()]

    def reach(self, count: int) -> None:
        until_now(lambda: len(self.lines()) >= count, SECONDS, f"{count} starts")


@contextmanager
def logged(**environ: str) -> Iterator[tuple[House, Starts]]:
    with house(**environ) as made:
        starts = Starts(made.base)
        yield (
            House(base=made.base, environ={**made.environ, "CLAUDE_JOBS_CLI": str(starts.cli)}, pids=made.pids),
            starts,
        )


def kill_engine(made: House) -> None:
    made.kill_engine()
    made.wait_for_the_engine_to_go()


def said(made: House, *command: str) -> str:
    done = made.run(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def completed(pump: Pump, *job_ids: str) -> None:
    for job_id in job_ids:
        assert pump.settled(job_id)["status"] == "completed"


def test_a_pause_holds_over_a_killed_engine_and_work_outside_it_goes_on():
    with logged() as (made, starts), made.pump() as pump:
        blocker = made.base / "go"
        held = pump.json("claude_run_batch_async", tasks=[f"stub:wait={blocker}", *["x"] * 30], maxConcurrent=1)
        starts.reach(1)
        assert "30 jobs wait" in said(made, "pause", held["batchId"])
        kill_engine(made)
        blocker.touch()
        made.start_engine()
        completed(pump, held["jobIds"][0])
        free = pump.json("claude_run_batch_async", tasks=["x", "y"])["jobIds"]
        completed(pump, *free)
        kill_engine(made)
        completed(pump, pump.json("claude_run_async", task="z")["jobId"])
        # The one that ran, two, and one: none of the thirty.
        assert len(starts.lines()) == 4
        waiting = pump.json("claude_status", jobId=held["batchId"])
        assert waiting["counts"] == {"completed": 1, "queued": 30}
        said(made, "resume", held["batchId"])
        completed(pump, *held["jobIds"])
        assert len(starts.lines()) == 34


def test_a_pause_now_ends_processes_and_a_resume_goes_on_in_the_same_sessions():
    with logged() as (made, starts), made.pump() as pump:
        ids = pump.json("claude_run_batch_async", tasks=[f"stub:wait={made.base}/never stub:cost=0.5"] * 3)["jobIds"]
        starts.reach(3)
        before = {job_id: running(pump, job_id) for job_id in ids}
        assert "3 running jobs are ended" in said(made, "pause", "--now")
        until_now(
            lambda: all(pump.json("claude_status", jobId=one)["status"] == "queued" for one in ids), SECONDS, "the ends"
        )
        assert not set(starts.pids()) & set(process_table().entries())
        assert len(starts.lines()) == 3

        said(made, "resume")
        completed(pump, *ids)
        again = starts.lines()[3:]
        assert len(again) == 3
        for job_id in ids:
            after = pump.json("claude_status", jobId=job_id)
            assert (after["sessionId"], after["attempt"]) == (before[job_id]["sessionId"], 2)
            assert sum(f"--resume={after['sessionId']}" in line for line in again) == 1


def test_it_uses_up_no_retry_however_often_it_is_paused():
    with logged() as (made, starts), made.pump() as pump:
        job_id = pump.json("claude_run_async", task=f"stub:wait={made.base}/never")["jobId"]
        for attempt in range(1, 5):
            starts.reach(attempt)
            # What it is told when it goes on names no file to wait for, so its claude hangs by itself.
            starts.hang(attempt < 4)
            said(made, "pause", job_id, "--now")
            until_now(lambda: pump.json("claude_status", jobId=job_id)["status"] == "queued", SECONDS, "the end")
            said(made, "resume", job_id)
        completed(pump, job_id)
        assert pump.json("claude_status", jobId=job_id)["attempt"] == 5


@pytest.mark.parametrize("moment", ["pause", "resume"])
def test_an_engine_that_is_killed_right_after_its_answer_has_kept_it(moment: str):
    with logged() as (made, starts), made.pump() as pump:
        job_id = pump.json("claude_run_async", task=f"stub:wait={made.base}/never")["jobId"]
        starts.reach(1)
        session = running(pump, job_id)["sessionId"]
        status = made.control("status")
        assert status is not None
        pump.json("claude_pause", jobId=job_id, now=True)
        if moment == "pause":
            os.kill(status["pid"], signal.SIGKILL)
        until_now(lambda: pump.json("claude_status", jobId=job_id)["status"] == "queued", SECONDS, "the end")
        assert len(starts.lines()) == 1
        pump.json("claude_pause", jobId=job_id, resume=True)
        if moment == "resume":
            os.kill(status["pid"], signal.SIGKILL)
        completed(pump, job_id)
        assert pump.json("claude_status", jobId=job_id)["sessionId"] == session
        assert len(starts.lines()) == 2


def test_a_parent_that_waits_for_paused_children_is_not_ended_and_answers_after_the_resume():
    with logged(CLAUDE_JOBS_SILENCE_SECONDS="2") as (made, starts), made.pump() as pump:
        parent = pump.json("claude_run_async", task=f"stub:wait={made.base}/go", timeoutSeconds=4)["jobId"]
        status = running(pump, parent)
        starts.reach(1)
        with pump_of_job(made, attempt_directory(made, status)) as job:
            said(made, "pause", parent)
            children = job.json("claude_run_batch_async", tasks=["x", "y"])
            number = job.send("tools/call", name="claude_wait", arguments={"batchId": children["batchId"]})
            until_now(lambda: pump.json("claude_status", jobId=parent).get("waitingFor") == "children", SECONDS, "it")
            # Longer than its silence and its time-out together.
            time.sleep(7.0)
            assert pump.json("claude_status", jobId=parent)["status"] == "running"
            assert len(starts.lines()) == 1
            said(made, "resume", parent)
            reply = json.loads(job.answer(number)["content"][0]["text"])
            while reply["pending"]:
                reply = job.json("claude_wait", batchId=children["batchId"])
            (made.base / "go").touch()
        completed(pump, parent, *children["jobIds"])


def test_every_view_says_what_is_paused_and_which_command_ends_that():
    with logged() as (made, _), made.pump() as pump:
        said(made, "pause")
        job_id = pump.json("claude_run_async", task="x")["jobId"]
        for view in (("status", job_id), ("list",), ("tree", job_id), ("engine", "status"), ("dashboard",)):
            assert "claude-jobs resume" in said(made, *view), view
        rows = json.loads(said(made, "list", "--json"))["jobs"]
        assert [row["waitingFor"] for row in rows if "jobId" in row] == ["pause"]
        waited = made.run("wait", job_id, "--timeout", "2")
        assert waited.returncode == 3
        assert "claude-jobs resume" in waited.stdout + waited.stderr
        # A part of what is paused.
        part = made.run("resume", job_id)
        assert part.returncode == 1
        assert "everything is" in part.stderr
        assert "claude-jobs resume" in part.stderr
        assert "everything" in said(made, "resume").lower()
        completed(pump, job_id)
        assert made.run("pause").returncode == 0
        again = made.run("pause").stdout
        assert "paused already, since " in again
        # A time of the reader's day, not of a log.
        assert not re.search(r"\d{4}-\d\d-\d\dT", again)
        assert made.run("resume").returncode == 0
        assert made.run("pause", job_id).returncode == 1
        assert said(made, "resume").strip() == "Nothing was paused."
        assert made.run("pause", "jnothing").returncode == 1


def test_an_engine_with_paused_jobs_alone_leaves_when_idle_and_a_resume_starts_the_next_one():
    with logged(CLAUDE_JOBS_IDLE_SECONDS="1") as (made, starts):
        said(made, "pause")
        job_id = said(made, "run", "--detach", "x").splitlines()[0].strip()
        made.wait_for_the_engine_to_go()
        assert starts.lines() == []
        said(made, "resume")
        with made.pump() as pump:
            completed(pump, job_id)


def test_an_engine_that_ends_its_jobs_stays_for_those_that_are_paused():
    with logged(CLAUDE_JOBS_IDLE_SECONDS="1", CLAUDE_JOBS_END_JOBS_ON_STOP="1") as (made, _):
        said(made, "pause")
        job_id = said(made, "run", "--detach", "x").splitlines()[0].strip()
        status = made.control("status")
        assert status is not None
        time.sleep(3.0)
        again = made.control("status")
        assert again is not None
        assert again["pid"] == status["pid"]
        with made.pump() as pump:
            assert pump.json("claude_status", jobId=job_id)["status"] == "queued"


def test_a_real_job_that_is_ended_for_a_pause_goes_on_in_its_session_and_is_told_so(
    claude_cli: Path, scripted: Callable[[Story], ScriptedApi]
):
    with house(CLAUDE_JOBS_CLI=str(claude_cli), CLAUDE_JOBS_GRACE_SECONDS="4") as made:
        noted = made.base / "pid"
        command = f"sh -c 'echo $$ >{noted}.new; mv {noted}.new {noted}; exec sleep 300'; true"
        bash = Turn(text="On.", tool_calls=(ToolCall(name="Bash", input={"command": command, "timeout": 250000}),))
        api = scripted(Story(roles={"default": (bash, Turn(text="It is done."))}))
        environ = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        rights = {"permissionMode": "acceptEdits", "allowedTools": ["Bash"]}
        with made.pump(environ) as pump:
            job_id = pump.json("claude_run_async", task="Go.", **rights)["jobId"]
            until_now(noted.exists, SECONDS, "the tool call")
            assert int(noted.read_text()) in process_table().entries()
            session = running(pump, job_id)["sessionId"]
            said(made, "pause", job_id, "--now")
            until_now(lambda: pump.json("claude_status", jobId=job_id)["status"] == "queued", SECONDS, "the end")
            assert int(noted.read_text()) not in process_table().entries()
            cost = pump.json("claude_status", jobId=job_id)["costUsd"]
            assert cost > 0
            said(made, "resume", job_id)
            over = pump.settled(job_id)
            assert (over["status"], over["sessionId"], over["attempt"]) == ("completed", session, 2)
            assert over["costUsd"] > cost
            assert "It is done." in pump.text("claude_result", jobId=job_id)
            assert "You were paused, and so cut off" in str(api.requests[-1])
