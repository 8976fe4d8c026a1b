"""A submission that is repeated is the same submission: by its key, by its tasks' keys, or by the tool use."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from server.client.pending_requests import TOOL_USE_ID
from tests.unit.mcp.world import ERAS, call, call_json, refusal, text_of, world

pytestmark = pytest.mark.anyio

BATCH = {"tasks": ["a", "b"]}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tool", ["claude_run", "claude_run_async", "claude_run_batch", "claude_run_batch_async"])
async def test_every_spawning_tool_starts_its_jobs_once(home: Path, era: str, tool: str):
    arguments = BATCH if "batch" in tool else {"task": "a"}
    async with world(home) as here, here.client(mode=era) as client:
        for _ in range(2):
            await call(client, tool, arguments, {TOOL_USE_ID: "toolu_1"})
        for _ in range(2):
            await call(client, tool, {**arguments, "idempotencyKey": "k"})
        jobs = await here.services.store.newest_jobs(limit=20)
        assert len(jobs) == 2 * len(BATCH["tasks"] if "batch" in tool else ["a"])


async def test_the_keys_of_all_tasks_together_are_the_key_of_the_batch(home: Path):
    async with world(home) as here, here.client() as client:
        tasks = [{"task": "a", "idempotencyKey": "1"}, {"task": "b", "idempotencyKey": "2"}]
        first = await call_json(client, "claude_run_batch_async", tasks=tasks)
        again = await call_json(client, "claude_run_batch_async", tasks=tasks)
        other = await call_json(client, "claude_run_batch_async", tasks=tasks[:1])
        assert first == again != other
        words = await refusal(client, "claude_run_batch_async", tasks=[tasks[0], "b"])
        assert "some tasks have one and others have none" in words


@pytest.mark.parametrize(
    ("tool", "first", "other"),
    [
        ("claude_run_async", {"task": "a"}, {"task": "b"}),
        ("claude_run_async", {"task": "a"}, {"task": "a", "maxJobs": 0}),
        ("claude_run_async", {"task": "a"}, {"task": "a", "allowedTools": []}),
        ("claude_run_async", {"task": "a"}, {"task": "a", "permissionMode": "plan"}),
        ("claude_run_async", {"task": "a"}, {"task": "a", "cwd": "/"}),
        ("claude_run_batch_async", {"tasks": ["a", "b"]}, {"tasks": ["b", "a"]}),
        ("claude_run_batch_async", {"tasks": ["a"]}, {"tasks": ["a"], "treeBudgetUsd": 1}),
        ("claude_run_batch_async", {"tasks": ["a"]}, {"tasks": [{"task": "a", "key": "one"}]}),
    ],
)
async def test_a_key_of_another_request_is_refused_with_the_earlier_jobs(
    home: Path, tool: str, first: dict[str, Any], other: dict[str, Any]
):
    async with world(home) as here, here.client() as client:
        for key in ({"idempotencyKey": "k"}, None):
            meta = None if key else {TOOL_USE_ID: "toolu_1"}
            begun = json.loads(await call(client, tool, first | (key or {}), meta))
            result = await client.call_tool(tool, other | (key or {}), meta=cast(Any, meta))
            assert result.is_error
            assert "used before for a different request" in text_of(result)
            for job_id in begun.get("jobIds") or [begun["jobId"]]:
                assert job_id in text_of(result)
            assert json.loads(await call(client, tool, first | (key or {}), meta)) == begun


async def test_one_root_and_a_batch_of_one_are_two_requests(home: Path):
    async with world(home) as here, here.client() as client:
        await call(client, "claude_run_async", {"task": "a", "idempotencyKey": "k"})
        assert "different request" in await refusal(client, "claude_run_batch_async", tasks=["a"], idempotencyKey="k")


async def test_the_same_request_in_other_words_is_the_same(home: Path):
    async with world(home) as here, here.client() as client:
        forms: list[dict[str, Any]] = [
            {},
            {"cwd": "."},
            {"cwd": str(here.work)},
            {"output_format": "json"},
            {"disallowedTools": []},
        ]
        ids = {
            (await call_json(client, "claude_run_async", task="a", idempotencyKey="k", **form))["jobId"]
            for form in forms
        }
        assert len(ids) == 1


async def test_a_key_of_another_message_to_a_session_is_refused(home: Path):
    async with world(home) as here, here.client() as client:
        job_id = (await call_json(client, "claude_run_async", task="a"))["jobId"]
        await call(client, "claude_wait", {"jobIds": [job_id]})
        sent = await call_json(client, "claude_send", jobId=job_id, task="b", idempotencyKey="k")
        await call(client, "claude_wait", {"jobIds": [sent["jobId"]]})
        words = await refusal(client, "claude_send", jobId=job_id, task="c", idempotencyKey="k")
        assert sent["jobId"] in words


async def test_two_callers_may_use_one_key(home: Path):
    async with world(home, max_concurrent={0: 4}) as here, here.client() as person:
        job = await here.waiting_job(person)
        async with here.client(token=here.token(job)) as client, here.client(name="another") as other:
            ids = {
                (await call_json(one, "claude_run_async", task="a", idempotencyKey="k"))["jobId"]
                for one in (person, client, other)
            }
            assert len(ids) == 3


async def test_bounds_of_a_new_tree_are_kept_with_it(home: Path):
    async with world(home) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["a"], treeBudgetUsd=0.5, treeTimeoutSeconds=60)
        tree = await here.services.store.tree(batch["batchId"])
        assert tree is not None
        assert tree.max_budget_usd == 0.5
        assert tree.deadline == pytest.approx(tree.created_at + 60)


@pytest.mark.parametrize("field", ["treeBudgetUsd", "treeTimeoutSeconds"])
async def test_bounds_of_a_tree_are_refused_where_there_is_no_new_one_or_no_bound(home: Path, field: str):
    async with world(home) as here, here.client() as client:
        parent = await here.waiting_job(client)
        words = await refusal(client, "claude_run_batch_async", tasks=["a"], parentJobId=parent.id, **{field: 1})
        assert words.startswith(f"{field}: it limits a new tree")
        assert field in await refusal(client, "claude_run_batch_async", tasks=["a"], **{field: 0})
