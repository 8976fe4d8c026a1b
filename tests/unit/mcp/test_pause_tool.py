"""The tool that pauses and resumes: what it answers, whom it obeys, and what other tools say of what is paused."""

import json
import re
import time
from pathlib import Path

import pytest

from jobs.model import JobStatus
from tests.support.spending import STUB
from tests.support.waiting import until
from tests.unit.mcp.world import World, call, call_json, refusal, text_of, world

pytestmark = pytest.mark.anyio


async def _status(here: World, job_id: str) -> JobStatus:
    job = await here.services.store.job(job_id)
    assert job is not None
    return job.status


async def test_everything_is_paused_and_resumed_and_each_reply_says_so(home: Path):
    async with world(home) as here, here.client() as person:
        paused = await call_json(person, "claude_pause", jobId="all")
        assert paused == {
            "success": True,
            "message": "Everything is paused: 0 jobs wait.",
            "queued": 0,
            "running": 0,
            "next": "claude_pause with jobId 'all' and resume true lets it go on.",
        }
        started = await call_json(person, "claude_run_async", task="x")
        because = "paused because a person paused everything: `claude-jobs resume` lets it go on"
        assert started["paused"] == because
        job_id = started["jobId"]
        status = await call_json(person, "claude_status", jobId=job_id)
        assert (status["status"], status["waitingFor"], status["paused"]) == ("queued", "pause", because)
        assert status["waitingBecause"] == "paused by a person, with everything"
        assert because in await call(person, "claude_list_jobs", {})
        waited = await call_json(person, "claude_wait", jobIds=[job_id], timeoutSeconds=0)
        assert waited["paused"] == because
        assert "end your turn" in waited["next"]

        again = await call_json(person, "claude_pause", jobId=job_id)
        assert f"{job_id} was paused already, since " in again["message"]
        part = await call_json(person, "claude_pause", jobId=job_id, resume=True)
        assert part["success"] is False
        assert part["message"] == (
            f"{job_id} is still paused, because everything is. Call claude_pause with jobId 'all' and resume true."
        )
        resumed = await call_json(person, "claude_pause", jobId="all", resume=True)
        assert (resumed["success"], resumed["message"]) == (True, "Everything goes on: 1 job waits for a slot.")
        assert (await call_json(person, "claude_wait", jobIds=[job_id]))["pending"] == 0
        assert (await call_json(person, "claude_pause", jobId="all", resume=True))["message"] == "Nothing was paused."


async def test_a_resume_says_that_a_usage_limit_holds_the_jobs_back_further(home: Path):
    (home / "reset").write_text(str(time.time() + 3600))
    task = f"stub:bill={home / 'bill'} stub:reset={home / 'reset'}"
    async with world(home, cli=STUB) as here, here.client() as person:
        job_id = (await call_json(person, "claude_run_async", task=task))["jobId"]

        async def is_held_back() -> bool:
            return "paused" in await call_json(person, "claude_status", jobId=job_id)

        await until(is_held_back)
        await call_json(person, "claude_pause", jobId=job_id)
        resumed = await call_json(person, "claude_pause", jobId=job_id, resume=True)
        limit = r"until \d{4}-\d\d-\d\dT\S+ because the five-hour limit is reached"
        assert re.fullmatch(rf"{job_id} goes on: 1 job waits {limit}\.", resumed["message"])
        # A job of another tree may have another account.
        await call_json(person, "claude_run_async", task=task)
        await call_json(person, "claude_pause", jobId="all")
        resumed = await call_json(person, "claude_pause", jobId="all", resume=True)
        assert re.fullmatch(rf"Everything goes on: 2 jobs wait, some {limit}\.", resumed["message"])


async def test_what_is_unknown_or_over_or_makes_no_sense_is_refused_with_what_to_do(home: Path):
    async with world(home) as here, here.client() as person:
        job_id = (await call_json(person, "claude_run_async", task="x"))["jobId"]
        await call_json(person, "claude_wait", jobIds=[job_id])
        over = await refusal(person, "claude_pause", jobId=job_id)
        assert "it is over" in over
        assert f"claude_status with jobId '{job_id}'" in over
        assert "not found" in await refusal(person, "claude_pause", jobId="j0")
        assert "not found" in await refusal(person, "claude_pause", jobId="b0", resume=True)
        assert "Leave it out" in await refusal(person, "claude_pause", jobId="all", resume=True, now=True)
        assert (await call_json(person, "claude_pause", jobId=job_id, resume=True))["success"]


async def test_a_job_pauses_what_is_below_it_and_neither_itself_nor_anything_else(home: Path):
    async with world(home, max_concurrent={0: 8}) as here, here.client() as person:
        parent, other = await here.waiting_job(person), await here.waiting_job(person)
        async with here.client(token=here.token(parent)) as job:
            batch = await call_json(job, "claude_run_batch_async", tasks=["stub:wait=/nonexistent"] * 2)
            assert "below you" in await refusal(job, "claude_pause", jobId="all")
            assert "itself" in await refusal(job, "claude_pause", jobId=parent.id)
            assert "not found" in await refusal(job, "claude_pause", jobId=other.id)
            paused = await call_json(job, "claude_pause", jobId=batch["batchId"])
            assert paused["success"]
            resumed = await call_json(job, "claude_pause", jobId=batch["batchId"], resume=True)
            assert resumed["success"]


async def test_a_job_does_not_lift_what_a_person_has_paused(home: Path):
    async with world(home, max_concurrent={0: 8}) as here, here.client() as person:
        parent = await here.waiting_job(person)
        async with here.client(token=here.token(parent)) as job:
            child = await here.waiting_job(job)
            for paused in (child.id, parent.id):
                await call_json(person, "claude_pause", jobId=paused)
                answer = await call_json(job, "claude_pause", jobId=child.id, resume=True)
                assert answer["success"] is False
                assert "Only a person resumes that" in answer["message"]
                assert (await call_json(person, "claude_pause", jobId=paused, resume=True))["success"]


async def test_a_retry_and_a_message_below_a_paused_path_are_queued_paused_and_say_so(home: Path):
    async with world(home, max_concurrent={0: 8}) as here, here.client() as person:
        failed = (await call_json(person, "claude_run_async", task="stub:exit=3"))["jobId"]
        done = (await call_json(person, "claude_run_async", task="x"))["jobId"]
        await call_json(person, "claude_wait", jobIds=[failed, done])
        await call_json(person, "claude_pause", jobId="all")
        retried = await call_json(person, "claude_retry", jobId=failed)
        sent = await call_json(person, "claude_send", jobId=done, task="more")
        assert "claude-jobs resume" in retried["paused"]
        assert "claude-jobs resume" in sent["paused"]
        assert {await _status(here, one) for one in (failed, sent["jobId"])} == {JobStatus.QUEUED}

        killed = await call_json(person, "claude_kill_job", jobId=sent["jobId"])
        assert killed["success"]
        assert await _status(here, sent["jobId"]) is JobStatus.CANCELLED


async def test_a_job_that_waits_for_paused_jobs_alone_waits_on_and_takes_no_turn_for_it(home: Path):
    async with world(home, max_concurrent={0: 8}, wait_seconds=0.2) as here, here.client() as person:
        parent = await here.waiting_job(person)
        await call_json(person, "claude_pause", jobId=parent.id)
        async with here.client(token=here.token(parent)) as job:
            batch = await call_json(job, "claude_run_batch_async", tasks=["x", "y"])
            told: list[str] = []

            async def tell(progress: float, total: float | None, message: str | None) -> None:
                told.append(message or "")
                if len(told) == 3:
                    await call_json(person, "claude_pause", jobId=parent.id, resume=True)

            result = await job.call_tool("claude_wait", {"batchId": batch["batchId"]}, progress_callback=tell)
            reply = json.loads(text_of(result))
            assert any("claude-jobs resume" in one for one in told)
            assert len(told) >= 3
            while reply["pending"]:
                reply = await call_json(job, "claude_wait", batchId=batch["batchId"])
