"""Long calls as tasks (SEP-2663): ids that are jobs and batches, and a memory that is the store alone."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    EmptyResult,
    Request,
)

from server.mcp.tasks import EXTENSION, TaskParams
from tests.unit.mcp.modern import Modern, modern
from tests.unit.mcp.world import call_json, world

pytestmark = pytest.mark.anyio

HOLD = "stub:wait=/nonexistent"
WIDE = {"max_concurrent": {0: 8, 1: 8}}


def text_of(task: dict[str, Any]) -> str:
    return str(task["result"]["content"][0]["text"])


async def test_the_extension_is_advertised(home: Path):
    async with world(home) as here, modern(here) as client:
        found = await client.ask("server/discover")
        assert EXTENSION in found["capabilities"]["extensions"]


async def test_a_run_becomes_a_task_whose_id_is_the_job(home: Path):
    async with world(home) as here, modern(here) as client:
        begun = await client.task("claude_run", task="stub:say=well", outputFormat="text")
        assert begun["status"] == "working"
        assert begun["ttlMs"] is None
        job = await here.services.store.job(begun["taskId"])
        assert job is not None
        done = await client.over(begun["taskId"])
        assert (done["status"], text_of(done), done["result"].get("isError", False)) == ("completed", "well", False)


async def test_a_batch_becomes_a_task_whose_id_is_the_batch(home: Path):
    async with world(home, **WIDE) as here, modern(here) as client:
        begun = await client.task("claude_run_batch", tasks=["stub:say=a", "stub:exit=1"])
        done = await client.over(begun["taskId"])
        reply = json.loads(text_of(done))
        assert reply["batch_id"] == begun["taskId"]
        assert reply["results_summary"] == {"total": 2, "successful": 1, "failed": 1, "pending": 0}


async def test_a_wait_becomes_a_task_that_carries_its_own_arguments(home: Path):
    async with world(home, **WIDE) as here, modern(here) as client, here.client() as person:
        batch = await call_json(person, "claude_run_batch_async", tasks=["stub:say=a", HOLD])
        begun = await client.task("claude_wait", batchId=batch["batchId"])
        working = await client.ask("tasks/get", taskId=begun["taskId"])
        assert working["status"] == "working"
        await call_json(person, "claude_kill_job", jobId=batch["jobIds"][1])
        done = await client.over(begun["taskId"])
        lines = json.loads(text_of(done))
        assert [line["status"] for line in lines["done"]] == ["completed", "cancelled"]
        assert lines["pending"] == 0


async def test_the_id_of_a_wait_is_short_and_good_in_the_next_engine_however_many_jobs_it_is_about(home: Path):
    async with world(home, **WIDE) as here, modern(here) as client, here.client() as person:
        batch = await call_json(person, "claude_run_batch_async", tasks=["stub:say=a"] * 40)
        lone = [(await call_json(person, "claude_run_async", task="x"))["jobId"] for _ in range(3)]
        asked = [*batch["jobIds"][::-1][:20], *lone, batch["jobIds"][0]]
        waits = [
            (await client.task("claude_wait", jobIds=[*batch["jobIds"], *lone]))["taskId"],
            (await client.task("claude_wait", batchId=batch["batchId"], mode="any", timeoutSeconds=60))["taskId"],
            (await client.task("claude_wait", subtreeOf=lone[0]))["taskId"],
        ]
        assert max(map(len, waits)) <= 60
        scattered = (await client.task("claude_wait", jobIds=asked))["taskId"]
        for each in (*waits, scattered):
            await client.over(each)
    (home / "work").rmdir()
    async with world(home, **WIDE) as again, modern(again) as client:
        for each in waits:
            assert json.loads(text_of(await client.over(each)))["pending"] == 0
        done = json.loads(text_of(await client.over(scattered)))["done"]
        assert [line["jobId"] for line in done] == asked


async def test_a_wait_that_no_short_id_can_name_is_answered_in_its_call(home: Path):
    async with world(home, **WIDE, max_children=1000) as here, modern(here) as client, here.client() as person:
        batch = await call_json(person, "claude_run_batch_async", tasks=["x"] * 300)
        every_other = batch["jobIds"][::2]
        reply = await client.call("claude_wait", jobIds=every_other, timeoutSeconds=60)
        assert len(json.loads(reply["content"][0]["text"])["done"]) == 150


async def test_a_waiting_task_ends_at_its_own_time(home: Path):
    async with world(home) as here, modern(here) as client, here.client() as person:
        job = await here.waiting_job(person)
        begun = await client.task("claude_wait", jobIds=[job.id], timeoutSeconds=0)
        done = await client.over(begun["taskId"])
        assert json.loads(text_of(done))["pending"] == 1


async def test_any_of_several_is_enough_where_the_wait_says_so(home: Path):
    async with world(home, **WIDE) as here, modern(here) as client, here.client() as person:
        batch = await call_json(person, "claude_run_batch_async", tasks=["stub:say=a", HOLD])
        begun = await client.task("claude_wait", batchId=batch["batchId"], mode="any")
        assert json.loads(text_of(await client.over(begun["taskId"])))["pending"] == 1


async def test_a_wait_is_over_for_now_where_a_job_that_it_is_about_asks_for_a_permission(home: Path):
    asks = {"permission_requests": "parent", "max_concurrent": {0: 8, 1: 8}}
    async with world(home, **asks) as here, modern(here) as client, here.client() as person:
        job, other = await here.waiting_job(person), await here.waiting_job(person)
        tasks = [(await client.task("claude_wait", jobIds=[one.id]))["taskId"] for one in (job, other)]
        async with here.client(token=here.token(job)) as itself, anyio.create_task_group() as group:
            group.start_soon(ask_for_a_permission, itself)
            reply = json.loads(text_of(await client.over(tasks[0])))
            [asked] = reply["waitingForPermission"]
            assert (asked["jobId"], asked["tool"], reply["pending"]) == (job.id, "Bash", 1)
            assert "claude_approve" in reply["next"]
            assert (await client.ask("tasks/get", taskId=tasks[1]))["status"] == "working"
            answer = await client.call("claude_approve", requestId=asked["requestId"])
            assert answer.get("isError", False) is False
        assert (await client.task("claude_wait", jobIds=[job.id], cursor=reply["cursor"]))["status"] == "working"


async def ask_for_a_permission(itself: Client) -> None:
    await call_json(itself, "claude_permit", tool_name="Bash", input={"command": "make"})


async def test_a_task_outlives_the_engine_and_every_connection(home: Path):
    async with world(home, **WIDE) as here, modern(here) as client:
        run = await client.task("claude_run", task="stub:say=kept", outputFormat="text")
        batch = await client.task("claude_run_batch", tasks=["stub:say=b"])
        wait = await client.task("claude_wait", batchId=batch["taskId"])
        await client.over(wait["taskId"])
        await client.over(run["taskId"])
    (home / "work").rmdir()
    async with world(home, **WIDE) as again, modern(again) as client:
        assert text_of(await client.over(run["taskId"])) == "kept"
        assert json.loads(text_of(await client.over(batch["taskId"])))["batch_id"] == batch["taskId"]
        assert json.loads(text_of(await client.over(wait["taskId"])))["pending"] == 0


async def test_a_job_that_failed_is_a_completed_task_with_the_tools_own_error(home: Path):
    async with world(home) as here, modern(here) as client:
        begun = await client.task("claude_run", task="stub:exit=1")
        done = await client.over(begun["taskId"])
        assert (done["status"], done["result"]["isError"]) == ("completed", True)
        assert text_of(done).startswith("Execution error: Job failed: ")


@pytest.mark.parametrize(
    ("tool", "arguments"), [("claude_run", {"task": HOLD}), ("claude_run_batch", {"tasks": [HOLD, HOLD]})]
)
async def test_cancelling_a_task_cancels_what_it_stands_for(home: Path, tool: str, arguments: dict[str, Any]):
    async with world(home, **WIDE) as here, modern(here) as client:
        begun = await client.task(tool, **arguments)
        assert (await client.ask("tasks/cancel", taskId=begun["taskId"]))["resultType"] == "complete"
        assert (await client.over(begun["taskId"]))["status"] == "cancelled"
        assert await here.services.store.unfinished() == []


async def test_cancelling_a_wait_leaves_the_jobs_alone(home: Path):
    async with world(home) as here, modern(here) as client, here.client() as person:
        job = await here.waiting_job(person)
        begun = await client.task("claude_wait", jobIds=[job.id])
        assert "error" not in await client.ask("tasks/cancel", taskId=begun["taskId"])
        assert [one.id for one in await here.services.store.unfinished()] == [job.id]


async def test_an_update_that_nobody_asked_for_is_acknowledged(home: Path):
    async with world(home) as here, modern(here) as client:
        begun = await client.task("claude_run", task=HOLD)
        assert "error" not in await client.ask("tasks/update", taskId=begun["taskId"], inputResponses={})


async def test_a_call_that_is_refused_is_refused_at_once_and_is_no_task(home: Path):
    async with world(home) as here, modern(here) as client:
        calls: list[tuple[str, dict[str, Any]]] = [
            ("claude_run", {"task": ""}),
            ("claude_run_batch", {"tasks": []}),
            ("claude_wait", {"jobIds": ["j404"]}),
            ("claude_wait", {"jobIds": ["j404"], "batchId": "b1"}),
        ]
        for tool, arguments in calls:
            refused = await client.call(tool, **arguments)
            assert refused["isError"] is True, refused
            assert refused["resultType"] == "complete"


async def test_a_client_that_declares_nothing_gets_plain_answers_and_no_tasks(home: Path):
    async with world(home) as here, modern(here, tasks=False) as client:
        answer = await client.call("claude_run", task="stub:say=plain", outputFormat="text")
        assert answer["content"][0]["text"] == "plain"
        [job] = await here.services.store.newest_jobs(limit=2)
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            error = (await client.ask(method, taskId=job.id))["error"]
            assert error["code"] == MISSING_REQUIRED_CLIENT_CAPABILITY
            assert EXTENSION in error["data"]["requiredCapabilities"]["extensions"]


async def test_tools_that_answer_at_once_are_never_tasks(home: Path):
    async with world(home) as here, modern(here) as client:
        assert (await client.call("claude_run_async", task="x"))["resultType"] == "complete"
        assert (await client.call("claude_list_jobs"))["resultType"] == "complete"


async def unknown(client: Modern, task_id: str) -> dict[str, Any]:
    errors = [(await client.ask(f"tasks/{verb}", taskId=task_id))["error"] for verb in ("get", "update", "cancel")]
    assert errors[0] == errors[1] == errors[2]
    return dict(errors[0])


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        "j404",
        "b404",
        "w",
        "w!!",
        "wAAAA",
        "x1",
        "wW10",
        "wWzEsMSx7fV0",
        "j\x00",
        "é",
        "w1..all.b404",
        "w1..all.n1",
        "w1..all.n1-ffffffff",
        "w1..all.n",
        "w1..most.b404",
        "w1..all.n5-3",
        "w1..all.x",
        "w-1..all.n1",
        f"w{'f' * 99}",
        "w1..all.b404.!",
        "w1." + "1" * 999,
    ],
)
async def test_what_is_no_task_is_not_found(home: Path, task_id: str):
    async with world(home) as here, modern(here) as client:
        assert await unknown(client, task_id) == {"code": INVALID_PARAMS, "message": "Task not found"}


async def test_a_job_gets_no_tasks_and_sees_none_of_others(home: Path):
    async with world(home, max_concurrent={0: 4}) as here, here.client() as person:
        one, other = await here.waiting_job(person), await here.waiting_job(person)
        async with modern(here, token=here.token(one)) as client:
            assert await unknown(client, other.id) == await unknown(client, "j404")
            answer = await client.call("claude_run", task="stub:say=inline", outputFormat="text")
            assert answer["content"][0]["text"] == "inline"


@pytest.mark.parametrize("named", [True, False])
async def test_a_header_that_names_another_task_is_refused(home: Path, named: bool):
    async with world(home) as here, modern(here) as client:
        begun = await client.task("claude_run", task="x")
        client.http_request = SimpleNamespace(headers={"mcp-name": begun["taskId"] if named else "j1"})
        answer = await client.ask("tasks/get", taskId=begun["taskId"])
        if named:
            assert answer["taskId"] == begun["taskId"]
        else:
            assert answer["error"]["code"] == HEADER_MISMATCH


async def test_an_older_client_finds_no_such_method(home: Path):
    async with world(home) as here, here.client() as client:
        params = TaskParams(task_id="j1")
        with pytest.raises(MCPError) as caught:
            await client.session.send_request(Request(method="tasks/get", params=params), EmptyResult)
        assert caught.value.error.code == METHOD_NOT_FOUND


async def test_the_same_call_twice_is_the_same_task(home: Path):
    async with world(home) as here, modern(here) as client:
        meta = {"claudecode/toolUseId": "toolu_1"}
        asked: dict[str, Any] = {"name": "claude_run", "arguments": {"task": "x"}, "_meta": meta}
        first, second = await client.ask("tools/call", **asked), await client.ask("tools/call", **asked)
        assert first["taskId"] == second["taskId"]
