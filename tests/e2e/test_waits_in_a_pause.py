"""A wait for jobs that a person has paused: a session is told to end its turn, a job waits in one call."""

import time

from tests.support.engines import house
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

SECONDS = 60.0
HELD = 2.0
"""Seconds after which a call that lasts is taken to go on until the jobs do."""


def test_a_wait_for_what_a_person_paused_ends_a_sessions_turn_and_lasts_for_a_job():
    with house(CLAUDE_JOBS_WAIT_SECONDS="0.2") as made, made.pump() as pump:
        gate = made.base / "gate"
        parent = running(pump, pump.json("claude_run_async", task=f"stub:wait={gate}")["jobId"])
        with pump_of_job(made, attempt_directory(made, parent)) as job:
            assert made.run("pause", parent["jobId"]).returncode == 0
            child = job.json("claude_run_async", task="stub:say=done")["jobId"]
            reply = pump.json("claude_wait", jobIds=[child])
            assert "before a person resumes it" in reply["next"]
            assert "end your turn" in reply["next"]
            [line] = reply["live"]
            assert (line["jobId"], line["waitingFor"]) == (child, "pause")
            began = time.monotonic()
            # Its own call does not end, and asks nobody to call again.
            number = job.send("tools/call", name="claude_wait", arguments={"jobIds": [child]})
            until_now(lambda: time.monotonic() - began >= HELD, SECONDS)
            waits = pump.json("claude_status", jobId=parent["jobId"])
            assert (waits["waitingFor"], waits["waitingBecause"]) == ("children", "1 live below it, 0 of them running")
            # A session that waits for the parent is told so too: nothing of it goes on.
            held = pump.json("claude_wait", jobIds=[parent["jobId"]])
            assert "end your turn" in held["next"]
            assert f"paused because a person paused {parent['jobId']}" in held["paused"]
            assert made.run("resume", parent["jobId"]).returncode == 0
            assert "pending" in job.answer(number)["content"][0]["text"]
            assert time.monotonic() - began >= HELD
            job.settled(child)
            gate.touch()
        pump.settled(parent["jobId"])
