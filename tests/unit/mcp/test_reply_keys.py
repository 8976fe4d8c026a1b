"""Keys of replies are camelCase, but for those of the older server and of the CLI; costs have six decimals at most."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.mcp.result_pages import KEPT_FRAME_KEYS
from server.mcp.tools import DEFINITIONS
from tests.unit.mcp.world import call, world

pytestmark = pytest.mark.anyio

OLDER = {
    *("batch_id", "job_ids", "parent_job_id", "execution_time_ms", "results_summary"),
    *("max_depth", "depth_counts", "root_job_counts", "active_contexts"),
}
"""Of the older server."""

OF_THE_CLI = {*KEPT_FRAME_KEYS, "input_tokens", "output_tokens"}
"""Of the result object of Claude Code, and of its counts of tokens."""

NAMED_BY = {"counts", "depth_counts", "root_job_counts", "maxConcurrent"}
"""Objects whose keys are statuses, depths or ids."""

CAMEL = re.compile(r"[a-z]+([A-Z][a-z]*)*")


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from keys_of(each)
    if isinstance(value, dict):
        yield from value
        for name, each in value.items():
            if name not in NAMED_BY:
                yield from keys_of(each)


async def test_every_key_of_every_reply_is_camel_case_but_for_the_older_ones(home: Path):
    async with world(home, max_concurrent={0: 8, 1: 8}, permission_requests="parent") as here, here.client() as client:
        replies: dict[str, str] = {}

        async def ask(tool: str, **arguments: Any) -> Any:
            replies[tool] = replies.get(tool, "") + "\n" + (text := await call(client, tool, arguments))
            return json.loads(text)

        parent = await here.waiting_job(client)
        batch = await ask(
            "claude_run_batch_async", tasks=["stub:cost=0.1", "stub:cost=0.2", "stub:exit=1"], parentJobId=parent.id
        )
        cost = (await ask("claude_run", task="stub:cost=0.30000000000000004", parentJobId=parent.id))["total_cost_usd"]
        assert cost == 0.3
        await ask("claude_run_batch", tasks=["x", "stub:exit=1"])
        one = (await ask("claude_run_async", task="x"))["jobId"]
        await ask("claude_wait", batchId=batch["batchId"])
        await ask("claude_wait", jobIds=[one])
        await ask("claude_result", jobId=one)
        for identity in (parent.id, one, batch["batchId"]):
            await ask("claude_status", jobId=identity)
        await ask("claude_list_jobs", limit=2)
        await ask("claude_send", jobId=one, task="more")
        await ask("claude_retry", jobId=batch["jobIds"][2])
        await ask("claude_dashboard")
        await ask("claude_recursion_stats")
        replies["tree"] = json.dumps(
            [json.loads(each.text) for each in (await client.read_resource(f"tree://{parent.root_id}")).contents]  # type: ignore[union-attr] # a text
        )
        await ask("claude_approve")
        await ask("claude_pause", jobId=parent.id)
        await ask("claude_pause", jobId=parent.id, resume=True)
        await ask("claude_kill_job", jobId=parent.id)

    assert set(replies) >= {definition.name for definition in DEFINITIONS}
    for tool, text in replies.items():
        decoder, at, odd = json.JSONDecoder(), 0, set[str]()
        while (at := len(text) - len(text[at:].lstrip())) < len(text):
            value, at = decoder.raw_decode(text, at)
            odd |= {key for key in keys_of(value) if not CAMEL.fullmatch(key)}
        assert odd <= OLDER | OF_THE_CLI, tool
        assert not re.findall(r'"\w*cost\w*": ?\d+\.\d{7,}', text, re.IGNORECASE), tool
