"""Another try for what failed: in its own session, once, and with an environment to run in."""

from pathlib import Path

import pytest

from jobs.model import JobStatus
from tests.support.waiting import until
from tests.unit.mcp.world import call, call_json, refusal, world

pytestmark = pytest.mark.anyio

WIDE = {"max_concurrent": {0: 8, 1: 8}}
HOLD = "stub:wait=/nonexistent"


async def test_a_job_that_failed_runs_again_in_its_own_session(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        await call(client, "claude_kill_job", {"jobId": job.id})
        await call(client, "claude_wait", {"jobIds": [job.id]})
        before = await here.services.store.job(job.id)
        assert before is not None
        assert before.status is JobStatus.CANCELLED
        answer = await call_json(client, "claude_retry", jobId=job.id)
        next_call = "Call claude_wait for jobIds without a cursor."
        assert answer == {"jobIds": [job.id], "count": 1, "status": "requeued", "next": next_call}
        await call(client, "claude_wait", {"jobIds": [job.id], "timeoutSeconds": 0})
        # Its task waits for ever; the resumed session is told to go on instead, and the stub answers that at once.
        await call(client, "claude_wait", {"jobIds": [job.id]})
        after = await here.services.store.job(job.id)
        assert after is not None
        assert (after.status, after.attempt, after.session_id) == (JobStatus.COMPLETED, 2, before.session_id)


async def test_a_tree_that_was_over_gets_an_environment_and_loses_it_again(home: Path):
    async with world(home) as here, here.client() as client:
        await refusal(client, "claude_run", task="stub:exit=1")
        [job] = await here.services.store.newest_jobs(limit=2)

        async def nothing_is_kept() -> bool:
            return not list(here.paths.trees.rglob("origin.json"))

        # A job's end is told before its tree is cleared away.
        await until(nothing_is_kept)
        await call(client, "claude_retry", {"jobId": job.id})
        await call(client, "claude_wait", {"jobIds": [job.id]})
        again = await here.services.store.job(job.id)
        assert again is not None
        assert (again.attempt, again.reason) == (2, "completed")
        await until(nothing_is_kept)


@pytest.mark.parametrize("of", ["tree", "parent"])
async def test_a_subtree_is_tried_again_where_it_failed_and_nowhere_else(home: Path, of: str):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["stub:exit=1", "stub:say=a", "stub:exit=1"])
        await call(client, "claude_wait", {"batchId": batch["batchId"]})
        one, kept, other = batch["jobIds"]
        if of == "tree":
            answer = await call_json(client, "claude_retry", jobId=batch["batchId"])
            assert answer["jobIds"] == [one, other]
        else:
            assert (await call_json(client, "claude_retry", jobId=other, subtree=True))["jobIds"] == [other]
        await call(client, "claude_wait", {"batchId": batch["batchId"]})
        attempts = [job.attempt for job in await here.services.store.jobs([one, kept, other])]
        assert attempts == ([2, 1, 2] if of == "tree" else [1, 1, 2])


async def test_what_has_completed_is_not_tried_again(home: Path):
    async with world(home) as here, here.client() as client:
        await call(client, "claude_run", {"task": "x"})
        [job] = await here.services.store.newest_jobs(limit=2)
        words = await refusal(client, "claude_retry", jobId=job.id)
        assert "nothing there has failed" in words
        assert "claude_send" in words


async def test_a_repeated_retry_starts_nothing_twice(home: Path):
    async with world(home) as here, here.client() as client:
        blocker = await here.waiting_job(client)
        child = (await call_json(client, "claude_run_async", task="stub:exit=1", parentJobId=blocker.id))["jobId"]
        await call(client, "claude_wait", {"jobIds": [child]})
        assert (await call_json(client, "claude_retry", jobId=blocker.id)) == {
            "jobIds": [],
            "count": 0,
            "status": "nothing_requeued",
            "live": [blocker.id],
        }
        first = await call_json(client, "claude_retry", jobId=child)
        assert first["jobIds"] == [child]
        await call(client, "claude_wait", {"jobIds": [child]})
        job = await here.services.store.job(child)
        assert job is not None
        assert job.attempt == 2


async def test_a_job_whose_session_another_one_has_waits_for_it(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        job = await here.waiting_job(client)
        await call(client, "claude_kill_job", {"jobId": job.id})
        await call(client, "claude_wait", {"jobIds": [job.id]})
        holder = (await call_json(client, "claude_send", jobId=job.id, task=HOLD))["jobId"]
        words = await refusal(client, "claude_retry", jobId=job.id)
        assert f"job {holder} works in its session now" in words


async def test_a_job_of_a_subtree_whose_session_another_one_has_is_named_with_that_one(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["stub:exit=1", "stub:exit=1"])
        await call(client, "claude_wait", {"batchId": batch["batchId"]})
        held, free = batch["jobIds"]
        holder = (await call_json(client, "claude_send", jobId=held, task=HOLD))["jobId"]
        answer = await call_json(client, "claude_retry", jobId=batch["batchId"])
        assert (answer["jobIds"], answer["busy"]) == ([free], [{"jobId": held, "heldBy": holder}])
        assert f"jobIds ['{holder}']" in answer["next"]


@pytest.mark.parametrize("begun", [True, False])
async def test_of_two_jobs_with_one_session_one_is_tried_again_at_a_time(home: Path, *, begun: bool):
    async with world(home, max_concurrent={0: 8, 1: 8 if begun else 1}) as here, here.client() as person:
        parent = await here.waiting_job(person)
        async with here.client(token=here.token(parent)) as client:
            await refusal(client, "claude_run", task="stub:exit=1")
            [first] = await here.services.store.newest_jobs(limit=1)
            if not begun:
                await here.waiting_job(client)
            second = (await call_json(client, "claude_send", jobId=first.id, task="stub:exit=1"))["jobId"]
            if begun:
                await call(client, "claude_wait", {"jobIds": [second]})
            else:
                await call(client, "claude_kill_job", {"jobId": second})
            answer = await call_json(client, "claude_retry", jobId=parent.id, subtree=True)
            assert answer["jobIds"] == [first.id]
            assert answer["busy"] == [{"jobId": second, "heldBy": first.id}]


async def test_a_job_tries_its_own_subtree_again_and_no_other(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        parent = await here.waiting_job(person)
        await refusal(person, "claude_run", task="stub:exit=1")
        foreign = (await here.services.store.newest_jobs(limit=1))[0]
        async with here.client(token=here.token(parent)) as client:
            await refusal(client, "claude_run", task="stub:exit=1")
            assert (await refusal(client, "claude_retry", jobId=foreign.id)).startswith(f"Job {foreign.id} not found")
            answer = await call_json(client, "claude_retry", jobId=parent.id, subtree=True)
            assert answer["count"] == 1
            assert "live" not in answer
