"""Waiting without polling, and reading long results to their end."""

import re
import sqlite3
from pathlib import Path

import anyio
import pytest

from jobs.settings import Settings
from jobs.waiting import PROGRESS_SECONDS
from server.mcp.arguments import WaitArguments
from server.mcp.tools import MAX_RESULT_CHARS
from tests.support.engines import PYTHON_STUB
from tests.unit.mcp.world import call, call_json, refusal, world

pytestmark = pytest.mark.anyio

WIDE = {"max_concurrent": {0: 8, 1: 8}}
HOLD = "stub:wait=/nonexistent"


def test_a_wait_lasts_just_under_two_minutes_and_is_never_silent_for_fifteen_seconds(tmp_path: Path):
    assert 100 <= Settings(home=tmp_path).wait_seconds < 120
    assert PROGRESS_SECONDS <= 15
    assert WaitArguments().timeout_seconds is None
    assert WaitArguments().mode == "all"


async def test_progress_goes_on_while_a_wait_lasts(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jobs.waiting.PROGRESS_SECONDS", 0.02)
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        heard = 0
        enough = anyio.Event()

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            nonlocal heard
            heard += 1
            if heard == 3:
                enough.set()

        async with anyio.create_task_group() as group:
            wait = {"jobIds": [job.id]}
            group.start_soon(lambda: client.call_tool("claude_wait", wait, progress_callback=hear))
            with anyio.fail_after(60):
                await enough.wait()
            await call(client, "claude_kill_job", {"jobId": job.id})


async def test_a_longer_time_than_the_longest_is_cut_to_it(home: Path):
    async with world(home, wait_seconds=0.05) as here, here.client() as client:
        job = await here.waiting_job(client)
        reply = await call_json(client, "claude_wait", jobIds=[job.id], timeoutSeconds=1e9)
        assert reply["pending"] == 1
        assert "claude_wait" in reply["next"]


@pytest.mark.parametrize("mode", ["all", "any", "first_success"])
async def test_each_mode_ends_when_it_says(home: Path, mode: str):
    async with world(home, **WIDE) as here, here.client() as client:
        tasks = ["stub:exit=1", "stub:say=a"] + ([HOLD] if mode != "all" else [])
        batch = await call_json(client, "claude_run_batch_async", tasks=tasks)
        reply = await call_json(client, "claude_wait", batchId=batch["batchId"], mode=mode)
        statuses = {line["status"] for line in reply["done"]}
        assert reply["pending"] <= len(tasks) - 1
        assert statuses & ({"completed"} if mode == "first_success" else {"completed", "failed"})
        assert (reply["pending"] == 0) == (mode == "all")


async def test_a_subtree_is_waited_for_to_its_last_job(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        parent = await here.waiting_job(client)
        child = (await call_json(client, "claude_run_async", task="stub:say=c", parentJobId=parent.id))["jobId"]
        reply = await call_json(client, "claude_wait", subtreeOf=parent.id, mode="any")
        assert [line["jobId"] for line in reply["done"]] == [child]


async def test_a_result_of_300_000_characters_is_read_to_its_end(home: Path):
    text = "".join(f"{number:09d}\n" for number in range(30_000))
    async with world(home, cli=PYTHON_STUB) as here, here.client() as client:
        job_id = (await call_json(client, "claude_run_async", task="x", outputFormat="text"))["jobId"]
        await call(client, "claude_wait", {"jobIds": [job_id]})
        await _rewrite(here.paths.database, job_id, text)
        read, offset, calls = "", 0, 0
        while offset < len(text):
            shown, _, note = (await call(client, "claude_result", {"jobId": job_id, "offset": offset})).rpartition(
                "\n\n["
            )
            assert len(shown) <= 40_000
            assert f"of {len(text)}" in note
            assert "/out]" in note
            read, offset, calls = read + shown, offset + len(shown), calls + 1
            assert ("this is the end" in note) == (offset == len(text))
        assert read == text
        assert calls == 8


async def _rewrite(database: Path, job_id: str, text: str) -> None:
    # The stub's longest answer is an argument's length; the row is what is read.

    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE attempt SET result = ? WHERE job_id = ?", (text, job_id))
    connection.close()


async def test_no_page_is_larger_than_a_client_takes_inline(home: Path):
    async with world(home) as here, here.client() as client:
        await call(client, "claude_run", {"task": "x", "outputFormat": "text"})
        [job] = await here.services.store.newest_jobs(limit=2)
        await _rewrite(here.paths.database, job.id, "#" * (2 * MAX_RESULT_CHARS))
        page = await call(client, "claude_result", {"jobId": job.id, "limit": 10**9})
        assert page.count("#") == MAX_RESULT_CHARS


async def test_several_results_stay_within_one_budget(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["x"] * 5, outputFormat="text")
        await call(client, "claude_wait", {"batchId": batch["batchId"]})
        for job_id in batch["jobIds"]:
            await _rewrite(here.paths.database, job_id, "#" * 1000)
        text = await call(client, "claude_result", {"jobIds": batch["jobIds"], "limit": 500})
        assert 500 - 10 <= text.count("#") <= 500 + 10
        for job_id in batch["jobIds"]:
            assert f"left: call claude_result with jobIds ['{job_id}'] and offset 100;" in text


async def test_what_several_results_leave_out_is_read_on_as_the_reply_says(home: Path):
    answer = "".join(f'{number:09d}"\n' for number in range(100))
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["x", "x"])
        await call(client, "claude_wait", {"batchId": batch["batchId"]})
        for job_id in batch["jobIds"]:
            await _rewrite(here.paths.database, job_id, answer)
        for job_id in batch["jobIds"]:
            read, asked = "", {"jobIds": batch["jobIds"], "limit": 400}
            while asked:
                text = await call(client, "claude_result", asked)
                section = text[text.index(f"## {job_id} (completed)\n") :].partition("\n")[2].partition("\n\n[")
                read += section[0]
                more = re.match(rf".* with jobIds \['{job_id}'\] and offset (\d+);", section[2])
                asked = {"jobIds": [job_id], "offset": int(more[1]), "limit": 400} if more else {}
            assert read == answer


@pytest.mark.parametrize("tool", ["claude_run", "claude_result"])
async def test_a_page_that_is_not_the_last_says_whose_it_is(home: Path, tool: str):
    async with world(home, result_chars=5) as here, here.client() as client:
        page = await call(client, "claude_run", {"task": "stub:say=more_than_five", "outputFormat": "text"})
        [job] = await here.services.store.newest_jobs(limit=2)
        if tool == "claude_result":
            page = await call(client, tool, {"jobId": job.id})
        assert f"call claude_result with jobId '{job.id}' and offset 5;" in page


async def test_several_results_are_no_larger_than_a_client_takes_inline(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["x", "x"])
        await call(client, "claude_wait", {"batchId": batch["batchId"]})
        for job_id in batch["jobIds"]:
            await _rewrite(here.paths.database, job_id, "#" * MAX_RESULT_CHARS)
        text = await call(client, "claude_result", {"jobIds": batch["jobIds"], "limit": 10**9})
        assert text.count("#") <= MAX_RESULT_CHARS + 10


async def test_a_failed_job_is_read_with_what_it_left(home: Path):
    async with world(home) as here, here.client() as client:
        await refusal(client, "claude_run", task="stub:exit=1")
        [job] = await here.services.store.newest_jobs(limit=2)
        words = await refusal(client, "claude_result", jobId=job.id)
        assert words.startswith("Job error: Job failed: ")
