"""A caller that runs jobs to their end hears at once of one that waits for a permission, and goes on with a wait."""

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client

from jobs.model import Job, JobStatus
from tests.support.waiting import until
from tests.unit.mcp.world import World, call_json, world

pytestmark = pytest.mark.anyio

HOLD = "stub:wait=/nonexistent"
WIDE: dict[str, Any] = {"max_concurrent": {0: 8, 1: 8}, "permission_requests": "parent"}
RUNS = [("claude_run", {"task": HOLD}), ("claude_run_batch", {"tasks": [HOLD]})]


async def begun_job(here: World, depth: int) -> tuple[Job, str]:
    """Return the job of a depth and its token, once its process runs."""
    found: list[tuple[Job, str]] = []

    async def begun() -> bool:
        for job in await here.services.store.newest_jobs(limit=5):
            if job.depth == depth and job.status is JobStatus.RUNNING:
                try:
                    found.append((job, here.token(job)))
                except (FileNotFoundError, IndexError):  # it is not there, or not written yet
                    return False
        return bool(found)

    await until(begun)
    return found[0]


async def run_and_answer(here: World, caller: Client, depth: int, tool: str, arguments: dict[str, Any]) -> None:
    """Run a job to its end, answer what it asks as the early reply says, and see that it was heard."""
    decisions: list[Any] = []
    early: list[Any] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:

            async def run() -> None:
                early.append(await call_json(caller, tool, **arguments))

            group.start_soon(run)
            child, token = await begun_job(here, depth)
            async with here.client(token=token) as asker:

                async def ask() -> None:
                    asked = {"tool_name": "Bash", "input": {"command": "git status"}}
                    decisions.append(await call_json(asker, "claude_permit", **asked))

                async with anyio.create_task_group() as asking:
                    asking.start_soon(ask)
                    await until(_any(early))
                    [reply] = early
                    [request] = reply["waitingForPermission"]
                    assert request["jobId"] == child.id
                    assert "claude_approve" in reply["next"]
                    assert "claude_wait" in reply["next"]
                    await call_json(caller, "claude_approve", requestId=request["requestId"])
    assert [one["behavior"] for one in decisions] == ["allow"]
    assert (await call_json(caller, "claude_wait", jobIds=[child.id], timeoutSeconds=0))["pending"] == 1


def _any(found: list[Any]) -> Any:
    async def is_there() -> bool:
        return bool(found)

    return is_there


@pytest.mark.parametrize(("tool", "arguments"), RUNS)
async def test_a_parent_inside_a_run_is_told_at_once(home: Path, tool: str, arguments: dict[str, Any]):
    async with world(home, **WIDE) as here, here.client() as person:
        parent = await here.waiting_job(person, allowedTools=["Bash(git *)"])
        async with here.client(token=here.token(parent)) as job:
            await run_and_answer(here, job, 1, tool, arguments)


@pytest.mark.parametrize(("tool", "arguments"), RUNS)
async def test_a_client_outside_every_tree_is_told_as_the_parent_of_its_jobs(
    home: Path, tool: str, arguments: dict[str, Any]
):
    async with world(home, **WIDE) as here, here.client() as person:
        await run_and_answer(here, person, 0 if tool == "claude_run" else 1, tool, arguments)


async def test_a_run_goes_on_where_another_answers_before_its_caller_is_told(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        early: list[Any] = []

        async def run() -> None:
            early.append(await person.call_tool("claude_run", {"task": HOLD}))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            job, _ = await begun_job(here, 0)
            approvals = here.services.approvals
            async with anyio.create_task_group() as asking:
                asking.start_soon(approvals.ask, job, "Bash", {"command": "git status"})
                while not (requests := approvals.open_to(None)):
                    await anyio.lowlevel.checkpoint()
                # In the moment in which the caller's wait is interrupted, and before it looks what for.
                approvals.answer(requests[0].id, None, allow=True)
            await call_json(person, "claude_kill_job", jobId=job.id)
        [answer] = early
        assert "cancelled" in str(answer)
