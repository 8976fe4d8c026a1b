"""Replies about many jobs stay within what a client passes on inline, and say how to get what they leave out."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp_types import TextResourceContents

from jobs.model import Batch, JobStatus
from jobs.waiting import WaitReport
from server.mcp import replies
from server.mcp.replies import MAX_REPLY_CHARS
from tests.unit.jobs.support import job
from tests.unit.mcp.world import call, world

JOBS = 900
"""Jobs of a batch whose wait answered with 73,000 characters."""

WIDE: dict[str, Any] = {"max_children": 1000, "max_concurrent": {0: 1000}, "max_running": 1, "max_starting": 1}
"""One runs: the others are cancelled in the queue, which takes no process."""


@pytest.mark.anyio
async def test_every_reply_about_hundreds_of_jobs_is_bounded_and_read_on_as_it_says(home: Path):
    async with world(home, **WIDE) as here, here.client() as client:

        async def ask(tool: str, **arguments: Any) -> Any:
            text = await call(client, tool, arguments)
            assert len(text) <= MAX_REPLY_CHARS
            return json.loads(text)

        batch = await ask("claude_run_batch_async", tasks=["stub:wait=/nonexistent " + "x" * 500] * JOBS)
        assert (batch["count"], len(batch["jobIds"])) == (JOBS, JOBS)
        await ask("claude_kill_job", jobId=batch["batchId"])
        await _wait_in_pages(ask, batch)
        await _list_in_pages(ask, batch)
        await ask("claude_status", jobId=batch["batchId"])
        await ask("claude_retry", jobId=batch["batchId"])
        await ask("claude_kill_job", jobId=batch["batchId"])
        await ask("claude_recursion_stats")
        await ask("claude_dashboard")
        resource = await client.read_resource(f"tree://{batch['batchId']}")
        [content] = resource.contents
        assert isinstance(content, TextResourceContents)
        tree = json.loads(content.text)
        assert len(content.text) <= MAX_REPLY_CHARS
        assert (tree["total"], tree["left"] + len(tree["jobs"])) == (JOBS, JOBS)
        assert "claude_list_jobs" in tree["next"]
        several = await call(client, "claude_result", {"jobIds": batch["jobIds"]})
        assert len(several) < 2 * MAX_REPLY_CHARS
        assert f"jobIds from '{batch['jobIds'][100]}' on" in several


async def _wait_in_pages(ask: Any, batch: Any) -> None:
    found: list[str] = []
    cursor = None
    while True:
        reply = await ask("claude_wait", batchId=batch["batchId"], cursor=cursor)
        assert list(reply)[:2] == ["cursor", "pending"]
        assert reply["pending"] == 0
        found += [line["jobId"] for line in reply["done"]]
        cursor = reply["cursor"]
        if "left" not in reply:
            break
        assert "timeoutSeconds 0" in reply["next"]
    assert found == batch["jobIds"]
    assert (await ask("claude_wait", batchId=batch["batchId"], cursor=cursor))["done"] == []


async def _list_in_pages(ask: Any, batch: Any) -> None:
    found: list[str] = []
    before = None
    while True:
        lines = await ask("claude_list_jobs", limit=1000, before=before)
        rows = [line for line in lines if "jobId" in line]
        found += [row["jobId"] for row in rows]
        if len(rows) == len(lines):
            break
        before = rows[-1]["jobId"]
        assert before in lines[-1]["more"]
    assert found == batch["jobIds"][::-1]


def test_a_batch_that_is_run_to_its_end_names_the_call_for_the_rest():
    jobs = [job(f"j{number:016}", status=JobStatus.COMPLETED, excerpt="x" * 300) for number in range(JOBS)]
    batch = Batch(id="b1", root_id="b1", parent_id=None, idempotency_key=None, created_at=0.0)
    text = replies.batch_done(batch, WaitReport.of_all(jobs), 5, excerpt_chars=500)
    reply = json.loads(text)
    assert len(text) <= MAX_REPLY_CHARS
    assert reply["results_summary"] == {"total": JOBS, "successful": JOBS, "failed": 0, "pending": 0}
    assert len(reply["job_ids"]) == JOBS
    assert reply["left"] == JOBS - len(reply["jobs"]) > 0
    assert "claude_wait with batchId 'b1'" in reply["next"]
    # The cursor holds exactly those that are told.
    assert int(reply["cursor"], 16) == (1 << len(reply["jobs"])) - 1
