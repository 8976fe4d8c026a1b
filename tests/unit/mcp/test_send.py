"""A further message to the session of a job that is over: as a new job, with its directory and rights."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from server.client.pending_requests import TOOL_USE_ID
from tests.unit.mcp.world import World, call, call_json, refusal, world

pytestmark = pytest.mark.anyio

WIDE = {"max_concurrent": {0: 8, 1: 8}}
HOLD = "stub:wait=/nonexistent"


async def finished(here: World, client: Client, **arguments: Any) -> str:
    job_id = (await call_json(client, "claude_run_async", **{"task": "stub:say=first", **arguments}))["jobId"]
    await call(client, "claude_wait", {"jobIds": [job_id]})
    return str(job_id)


async def session_of(here: World, job_id: str) -> tuple[str | None, str | None, bool]:
    job = await here.services.store.job(job_id)
    assert job is not None
    return job.session_id, job.spec.resume_session, job.spec.fork_session


async def sent(client: Client, job_id: str, **arguments: Any) -> str:
    answer = await call_json(client, "claude_send", jobId=job_id, **{"task": "stub:say=more", **arguments})
    session = "a copy of the session" if arguments.get("fork") else "the session"
    assert answer == {"jobId": answer["jobId"], "status": "started", "message": f"Goes on with {session} of {job_id}"}
    return str(answer["jobId"])


async def test_a_message_goes_on_with_the_session_in_a_new_root(home: Path):
    async with world(home) as here, here.client() as client:
        first = await finished(here, client)
        second = await sent(client, first, outputFormat="text")
        await call(client, "claude_wait", {"jobIds": [second]})
        assert await call(client, "claude_result", {"jobId": second}) == "more"
        session, *_ = await session_of(here, first)
        assert await session_of(here, second) == (session, session, False)
        status = await call_json(client, "claude_status", jobId=second)
        assert (status["recursionDepth"], status["parentJobId"], status["rootId"]) == (0, None, second)


async def test_a_fork_leaves_the_session_as_it_is(home: Path):
    async with world(home) as here, here.client() as client:
        first = await finished(here, client)
        second = await sent(client, first, fork=True)
        await call(client, "claude_wait", {"jobIds": [second]})
        session, *_ = await session_of(here, first)
        own, resumed, forked = await session_of(here, second)
        assert (resumed, forked) == (session, True)
        assert own != session


async def test_the_new_job_has_the_directory_and_the_rights_of_the_old_one(home: Path):
    async with world(home) as here, here.client() as client:
        (here.work / "sub").mkdir()
        given = {"cwd": "sub", "model": "haiku", "permissionMode": "plan", "allowedTools": ["Read"], "effort": "low"}
        first = await finished(here, client, **given)
        second = await sent(client, first)
        specs = [(await here.services.store.job(one)).spec for one in (first, second)]  # type: ignore[union-attr]  # both are there
        kept = ("cwd", "model", "permission_mode", "allowed_tools", "effort", "directories", "mcp_servers")
        assert [[getattr(spec, name) for name in kept] for spec in specs] == [
            [str(here.work / "sub"), "haiku", "plan", ("Read",), "low", (), ()]
        ] * 2


async def test_a_jobs_message_makes_a_child_of_its_own(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        parent = await here.waiting_job(person)
        async with here.client(token=here.token(parent)) as client:
            first = await finished(here, client)
            second = await sent(client, first)
            status = await call_json(client, "claude_status", jobId=second)
            assert (status["parentJobId"], status["recursionDepth"]) == (parent.id, 1)


async def test_a_job_cannot_write_to_a_session_that_is_not_its_own(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        parent, foreign = await here.waiting_job(person), await finished(here, person)
        async with here.client(token=here.token(parent)) as client:
            for fork in (False, True):
                words = await refusal(client, "claude_send", jobId=foreign, task="x", fork=fork)
                assert words.startswith(f"Job {foreign} not found")


@pytest.mark.parametrize("fork", [False, True])
async def test_a_live_job_is_refused_with_what_to_do_instead(home: Path, fork: bool):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        words = await refusal(client, "claude_send", jobId=job.id, task="x", fork=fork)
        assert words.startswith("Job error: Job is still running. Call claude_wait")


async def test_a_session_with_which_another_job_goes_on_is_refused_unless_it_is_forked(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        first = await finished(here, client)
        second = await sent(client, first, task=HOLD)
        words = await refusal(client, "claude_send", jobId=first, task="x")
        assert f"job {second} works in this session now" in words
        assert "fork: true" in words
        assert await sent(client, first, fork=True)


async def test_two_messages_at_once_never_share_a_session(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        first = await finished(here, client)
        errors: list[bool | None] = []

        async def one(number: int) -> None:
            result = await client.call_tool("claude_send", {"jobId": first, "task": f"{HOLD} {number}"})
            errors.append(result.is_error)

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(one, number)
        assert sorted(map(bool, errors)) == [False, True, True, True]
        assert len(await here.services.store.unfinished()) == 1


async def test_a_job_that_never_ran_has_no_session_to_go_on_with(home: Path):
    async with world(home) as here, here.client() as client:
        batch = await call_json(
            client, "claude_run_batch_async", tasks=[{"task": HOLD, "key": "a"}, {"task": "x", "dependsOn": ["a"]}]
        )
        await call_json(client, "claude_kill_job", jobId=batch["jobIds"][1])
        words = await refusal(client, "claude_send", jobId=batch["jobIds"][1], task="x")
        assert "never had a session" in words
        assert "claude_run_async" in words


async def test_a_repeated_message_is_sent_once(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        first = await finished(here, client)
        for arguments, metas in (
            ({"idempotencyKey": "k"}, ({}, {})),
            ({}, ({TOOL_USE_ID: "toolu_1"}, {TOOL_USE_ID: "toolu_1"})),
        ):
            message = {"jobId": first, "task": "stub:sleep=0.3", **arguments}
            one, two = [await call(client, "claude_send", message, meta) for meta in metas]
            assert one == two
            for job in await here.services.store.unfinished():
                await call(client, "claude_wait", {"jobIds": [job.id]})
            assert await call(client, "claude_send", message, metas[0]) == one
        assert len(await here.services.store.newest_jobs(limit=10)) == 3
