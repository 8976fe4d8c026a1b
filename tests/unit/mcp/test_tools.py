"""What each tool does and answers, over real jobs of the stub."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from tests.unit.mcp.world import World, call, call_json, refusal, world

pytestmark = pytest.mark.anyio

HOLD = "stub:wait=/nonexistent"
WIDE = {"max_concurrent": {0: 8, 1: 8}}


async def spawn(client: Client, *tasks: Any, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await call_json(client, "claude_run_batch_async", tasks=list(tasks), **options)
    return answer


async def wait_for(client: Client, batch: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = await call_json(client, "claude_wait", batchId=batch["batchId"])
    assert reply["pending"] == 0
    return reply


async def specs_of(here: World, batch: dict[str, Any]) -> list[Any]:
    return [job.spec for job in await here.services.store.jobs(batch["jobIds"])]


async def test_a_started_job_answers_with_the_older_servers_three_keys(home: Path):
    async with world(home) as here, here.client() as client:
        answer = await call_json(client, "claude_run_async", task="x")
        assert answer == {"jobId": answer["jobId"], "status": "started", "message": "Job started successfully"}


async def test_a_started_batch_answers_with_its_ids_in_the_order_of_the_tasks(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, "stub:say=a", {"task": "stub:say=b"})
        assert (batch["count"], batch["status"], batch["parentJobId"]) == (2, "all_spawned_parallel", None)
        done = (await wait_for(client, batch))["done"]
        assert [(line["jobId"], line["excerpt"]) for line in done] == list(zip(batch["jobIds"], "ab", strict=True))


async def test_options_of_a_batch_hold_for_each_task_that_names_none(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(
            client,
            "plain",
            {"task": "own", "model": "opus", "outputFormat": "json", "jsonSchema": {"type": "object"}},
            model="haiku",
            outputFormat="text",
        )
        plain, own = await specs_of(here, batch)
        assert (plain.model, plain.output_format, plain.json_schema) == ("haiku", "text", None)
        assert (own.model, own.output_format, own.json_schema) == ("opus", "json", '{"type":"object"}')


async def test_a_whole_batch_answers_with_a_line_a_job_and_hides_no_failure(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        answer = await call_json(client, "claude_run_batch", tasks=["stub:say=a", "stub:exit=1", "stub:say=c"])
        assert answer["results_summary"] == {"total": 3, "successful": 2, "failed": 1, "pending": 0}
        assert [line["status"] for line in answer["jobs"]] == ["completed", "failed", "completed"]
        assert answer["job_ids"] == [line["jobId"] for line in answer["jobs"]]


async def test_a_wait_reports_each_job_once_over_its_cursors(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, "stub:say=a", HOLD)
        quick, slow = batch["jobIds"]
        first = await call_json(client, "claude_wait", batchId=batch["batchId"], mode="any")
        assert ([line["jobId"] for line in first["done"]], first["pending"]) == ([quick], 1)
        assert "claude_wait" in first["next"]
        nothing = await call_json(client, "claude_wait", **_again(batch, first), timeoutSeconds=0)
        assert (nothing["done"], nothing["pending"]) == ([], 1)
        await call_json(client, "claude_kill_job", jobId=slow)
        last = await call_json(client, "claude_wait", **_again(batch, nothing))
        assert ([(line["jobId"], line["status"]) for line in last["done"]], last["pending"]) == (
            [(slow, "cancelled")],
            0,
        )
        assert "next" not in last


def _again(batch: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    return {"batchId": batch["batchId"], "cursor": reply["cursor"]}


async def test_a_reply_of_a_wait_stays_bounded_however_long_the_answers_are(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, *[f"stub:say={'y' * 4000}"] * 40)
        assert len(json.dumps(await wait_for(client, batch))) < 20_000


async def test_a_result_is_paged_without_gap_or_overlap(home: Path):
    async with world(home, result_chars=7) as here, here.client() as client:
        batch = await spawn(client, "stub:say=abcdefghijklmnopqrst", outputFormat="text")
        await wait_for(client, batch)
        read, offset = "", 0
        for _ in range(3):
            shown, note = (await call(client, "claude_result", {"jobId": batch["jobIds"][0], "offset": offset})).split(
                "\n\n["
            )
            read, offset = read + shown, offset + len(shown)
            assert f"characters {offset - len(shown)} to {offset} of 20" in note
            assert ("this is the end" in note) == (offset == 20)
        assert read == "abcdefghijklmnopqrst"


async def test_an_offset_past_the_end_says_so(home: Path):
    async with world(home) as here, here.client() as client:
        batch = await spawn(client, "stub:say=abc", outputFormat="text")
        await wait_for(client, batch)
        page = await call(client, "claude_result", {"jobId": batch["jobIds"][0], "offset": 50})
        assert "[characters 3 to 3 of 3; this is the end;" in page


async def test_results_of_several_jobs_share_one_reply_and_say_who_has_none(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, f"stub:say={'a' * 300}", "stub:exit=1", HOLD)
        one, two, three = batch["jobIds"]
        await call_json(client, "claude_wait", jobIds=[one, two])
        reply = await call(client, "claude_result", {"jobIds": batch["jobIds"], "limit": 300})
        assert f"## {one} (completed)\n{'a' * 100}\n" in reply
        assert f"## {two} (failed)\nJob failed: " in reply
        assert f"## {three} (" in reply
        assert "still" in reply


async def test_status_of_a_batch_has_counts_and_cost_with_everything_below_it(home: Path):
    async with world(home, **WIDE) as here, here.client() as person:
        batch = await spawn(person, HOLD, "stub:cost=0.5")
        await call_json(person, "claude_wait", jobIds=[batch["jobIds"][1]])
        child = await call_json(person, "claude_run_async", task="stub:cost=0.25", parentJobId=batch["jobIds"][0])
        await call_json(person, "claude_wait", jobIds=[child["jobId"]])
        status = await call_json(person, "claude_status", jobId=batch["batchId"])
        assert status["counts"] == {"completed": 2, "running": 1}
        assert (status["total"], status["deepest"], status["costUsd"]) == (3, 2, 0.75)
        parent = await call_json(person, "claude_status", jobId=batch["jobIds"][0])
        assert parent["recursionDepth"] == 1
        # The job itself, which runs, is not among them.
        assert parent["descendants"]["counts"] == {"completed": 1}
        assert (parent["descendants"]["total"], parent["descendants"]["costUsd"]) == (1, 0.25)


async def test_status_of_a_job_has_the_older_servers_keys(home: Path):
    async with world(home) as here, here.client() as client:
        job_id = (await call_json(client, "claude_run_async", task="x"))["jobId"]
        await call_json(client, "claude_wait", jobIds=[job_id])
        status = await call_json(client, "claude_status", jobId=job_id)
        older = {"jobId", "status", "task", "startTime", "endTime", "error", "recursionDepth", "parentJobId"}
        assert older <= status.keys()
        assert (status["status"], status["task"], status["recursionDepth"], status["error"]) == (
            "completed",
            "x",
            0,
            None,
        )


async def test_a_list_filtered_by_status_finds_what_lies_behind_other_jobs(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        old = await spawn(client, "stub:exit=1", "stub:exit=1", "stub:exit=1")
        await wait_for(client, old)
        await wait_for(client, await spawn(client, *["new"] * 5))
        listed: list[str] = []
        page = await call_json(client, "claude_list_jobs", status="failed", limit=2)
        assert page[-1] == {"more": f"Call claude_list_jobs with before '{page[-2]['jobId']}'."}
        listed += [line["jobId"] for line in page[:-1]]
        page = await call_json(client, "claude_list_jobs", status="failed", limit=2, before=listed[-1])
        listed += [line["jobId"] for line in page]
        assert listed == list(reversed(old["jobIds"]))


async def test_a_list_that_just_fits_promises_no_more(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, "a", "b")
        for arguments in ({"limit": 2}, {"limit": 2, "under": batch["batchId"]}):
            assert [line["jobId"] for line in await call_json(client, "claude_list_jobs", **arguments)] == [
                *reversed(batch["jobIds"])
            ]


async def test_a_list_cuts_long_tasks(home: Path):
    async with world(home) as here, here.client() as client:
        await call_json(client, "claude_run_async", task="x" * 5000)
        [line] = await call_json(client, "claude_list_jobs")
        assert 40 <= len(line["task"]) <= 80


async def test_killing_a_job_ends_everything_below_it_and_nothing_beside_it(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        top, beside = await here.waiting_job(client), await here.waiting_job(client)
        below = await here.waiting_job(client, parentJobId=top.id)
        answer = await call_json(client, "claude_kill_job", jobId=top.id)
        assert answer == {"success": True, "message": f"Job {top.id} killed, with 1 below it"}
        done = (await call_json(client, "claude_wait", jobIds=[top.id, below.id]))["done"]
        assert [line["status"] for line in done] == ["cancelled", "cancelled"]
        assert (await call_json(client, "claude_status", jobId=beside.id))["status"] == "running"
        words = await refusal(client, "claude_run_async", task="late", parentJobId=top.id)
        assert "cannot spawn" in words


async def test_recursion_stats_tell_limits_and_use(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        job = await here.waiting_job(client)
        figures = await call_json(client, "claude_recursion_stats")
        assert (figures["max_depth"], figures["running"], figures["depth_counts"]) == (5, 1, {"0": 1})
        assert figures["root_job_counts"] == {job.root_id: 1}


async def test_a_job_waits_for_its_subtree_without_waiting_for_itself(home: Path):
    async with world(home, max_running=1, **WIDE) as here, here.client() as person:
        parent = await here.waiting_job(person)
        async with here.client(token=here.token(parent)) as client:
            child = (await call_json(client, "claude_run_async", task="stub:say=done"))["jobId"]
            reply = await call_json(client, "claude_wait", subtreeOf=parent.id)
            assert ([line["jobId"] for line in reply["done"]], reply["pending"]) == ([child], 0)


async def test_a_list_of_thirty_jobs_is_a_line_each_and_smaller_than_the_older_servers(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        await wait_for(client, await spawn(client, *[f"stub:say={'y' * 400} {number}" for number in range(30)]))
        text = await call(client, "claude_list_jobs", {})
        assert len(text.splitlines()) == 32
        # It took 20 KB for as many, measured, and said nothing of their answers.
        assert len(text.encode()) <= 9000


async def test_a_batch_is_cancelled_as_a_whole(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, HOLD, HOLD)
        answer = await call_json(client, "claude_kill_job", jobId=batch["batchId"])
        assert answer == {"success": True, "message": f"Batch {batch['batchId']} killed, with 2 below it"}
        assert (await wait_for(client, batch))["pending"] == 0
        again = await call_json(client, "claude_kill_job", jobId=batch["batchId"])
        assert again["success"] is False


async def test_an_id_of_the_other_kind_is_answered_with_where_it_belongs(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await spawn(client, "x")
        await wait_for(client, batch)
        [job_id] = batch["jobIds"]
        for tool, arguments in (
            ("claude_result", {"jobId": batch["batchId"]}),
            ("claude_wait", {"jobIds": [batch["batchId"]]}),
        ):
            assert "Call claude_wait with it as batchId" in await refusal(client, tool, **arguments)
        assert "Call claude_wait with it in jobIds" in await refusal(client, "claude_wait", batchId=job_id)


async def test_a_failure_names_the_job_and_the_next_call(home: Path):
    async with world(home) as here, here.client() as client:
        words = await refusal(client, "claude_run", task="stub:exit=1")
        [job] = await here.services.store.newest_jobs(limit=2)
        assert words.endswith(f"\n[claude_retry with jobId '{job.id}' tries it again.]")
