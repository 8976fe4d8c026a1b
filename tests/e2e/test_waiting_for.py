"""Why a job does no work now, as a model reads it in replies and a person in a terminal, before and after a crash."""

import re

from tests.support.engines import House, Pump, house
from tests.support.seat import seated
from tests.support.subtasks import answering, asking, replaying
from tests.support.tokens import attempt_directory, pump_of_job, running
from tests.support.waiting import until_now

SECONDS = 60.0


def waits_for(pump: Pump, job_id: str, what: str | None) -> None:
    """Wait until a job says what it waits for; None for nothing."""
    until_now(
        lambda: pump.json("claude_status", jobId=job_id).get("waitingFor") == what, SECONDS, f"waiting for {what}"
    )


def lines(made: House, *command: str) -> list[str]:
    done = made.run(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def shown(made: House, job_id: str, *command: str) -> str:
    """Return the line of a job in what a command prints; a title before it may name the job too."""
    return [line for line in lines(made, *command) if job_id in line][-1]


def expect_a_waiting_parent(made: House, pump: Pump, parent: str) -> None:
    status = pump.json("claude_status", jobId=parent)
    assert (status["status"], status["waitingFor"], status["liveChildren"]) == ("queued", "children", 3)
    of_parent = {line["jobId"]: line.get("waitingFor") for line in pump.json("claude_list_jobs")}
    assert of_parent[parent] == "children"
    assert shown(made, parent, "tree", parent).endswith("  waiting for 3 of 4 children")
    assert re.search(r"waiting .* waiting for its children: 3 live below it, \d of", shown(made, parent, "list"))
    status_lines = [re.split(r"\s{2,}", line) for line in lines(made, "status", parent)]
    assert ["status", "waiting for its 3 children"] in status_lines


def test_a_parent_whose_subtasks_run_says_so_and_another_engine_says_the_same():
    with house() as made, made.pump() as pump:
        gate = made.base / "gate"
        # One part is over at once; the parent's session hears its text, and answers so too.
        quick = replaying(made.base / "answer", answering("all of it"))
        task = replaying(
            made.base / "parts", asking(quick, *[f"stub:wait={gate} part {number}" for number in range(3)])
        )
        parent = pump.json("claude_run_async", task=task, strategy="decompose")["jobId"]
        waits_for(pump, parent, "children")
        until_now(lambda: len(pump.json("claude_list_jobs", status="running")) == 3, SECONDS, "three children")
        expect_a_waiting_parent(made, pump, parent)
        killed = made.kill_engine()
        # The pump starts the next one.
        expect_a_waiting_parent(made, pump, parent)
        made.wait_for_another_engine(killed)
        gate.touch()
        status = pump.settled(parent)
        assert (status["status"], status["attempt"], "waitingFor" in status) == ("completed", 2, False)
        assert "all of it" in pump.text("claude_result", jobId=parent)


def test_a_parent_that_waits_in_a_call_says_for_whom_while_it_runs():
    with house() as made, made.pump() as pump:
        gate = made.base / "gate"
        parent = running(pump, pump.json("claude_run_async", task=f"stub:wait={gate}")["jobId"])
        with pump_of_job(made, attempt_directory(made, parent)) as job:
            child = job.json("claude_run_async", task=f"stub:wait={gate}")["jobId"]
            request = job.in_flight("tools/call", name="claude_wait", arguments={"jobIds": [child]})
            waits_for(pump, parent["jobId"], "children")
            assert shown(made, parent["jobId"], "tree", parent["jobId"]).endswith("  waiting for its child")
            with seated(made, "wait", parent["jobId"]) as seat:
                seat.wait_for("0 of 1 children over")
                seat.interrupt()
            assert "running, waiting for its child" in "\n".join(lines(made, "status", parent["jobId"]))
            gate.touch()
            job.answer(request)
        pump.settled(parent["jobId"])


def test_a_queued_job_says_whether_it_waits_for_siblings_or_for_a_slot():
    with house(CLAUDE_JOBS_MAX_RUNNING="1") as made, made.pump() as pump:
        gate = made.base / "gate"
        tasks = [{"task": f"stub:wait={gate}", "key": "first"}, {"task": "then", "dependsOn": ["first"]}, "another"]
        first, dependent, another = pump.json("claude_run_batch_async", tasks=tasks)["jobIds"]
        waits_for(pump, first, None)
        waits_for(pump, dependent, "siblings")
        waits_for(pump, another, "slot")
        assert shown(made, dependent, "tree").endswith(f"  waiting for {first}")
        assert shown(made, another, "tree").endswith("  waiting for a slot")
        assert f"waiting for {first}" in "\n".join(lines(made, "status", dependent))
        assert "queued, waiting for a slot" in "\n".join(lines(made, "status", another))
        assert "waiting for a slot" in pump.refusal("claude_result", jobId=another)
        gate.touch()
        for job_id in (first, dependent, another):
            assert "waitingFor" not in pump.settled(job_id)
