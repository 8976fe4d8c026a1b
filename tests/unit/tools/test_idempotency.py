"""A submission that is repeated is the same submission: by its key, by its tasks' keys, or by the tool use."""

from pathlib import Path

import pytest

from server.protocol.app import TOOL_USE_ID
from tests.unit.server.world import ERAS, call, call_json, refusal, world

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
        assert words.startswith(f"{field}: it bounds a new tree")
        assert field in await refusal(client, "claude_run_batch_async", tasks=["a"], **{field: 0})
