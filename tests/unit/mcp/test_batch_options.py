"""Every option of a task is valid beside the tasks of a batch, and holds for each that says nothing else."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from server.mcp.arguments import BatchArguments, OptionArguments, TaskArguments
from tests.unit.mcp.world import call_json, refusal, world

pytestmark = pytest.mark.anyio

OF_ONE_TASK = {"task", "key", "depends_on", "idempotency_key"}
"""What says something about one task alone, and makes no sense for several."""

GIVEN: dict[str, tuple[Any, Any]] = {
    "cwd": ("/tmp", "/"),
    "model": ("haiku", "opus"),
    "permission_mode": ("plan", "acceptEdits"),
    "output_format": ("text", "json"),
    "verbose": (True, False),
    "effort": ("low", "high"),
    "max_budget_usd": (1.5, 2.5),
    "timeout_seconds": (9.0, 10.0),
    "max_jobs": (3, 4),
    "subtree_seconds": (60.0, 61.0),
    "allowed_tools": (["Read"], ["Write"]),
    "disallowed_tools": (["Bash"], ["Edit"]),
    "directories": (["/tmp"], ["/"]),
    "mcp_servers": ([], ["x"]),
    "append_system_prompt": ("Be brief.", "Be long."),
    "json_schema": ('{"type":"object"}', '{"type":"array"}'),
}
"""For each option a value beside the tasks, and another of one task."""


def test_each_option_of_a_task_is_an_option_of_a_batch():
    assert set(TaskArguments.model_fields) - OF_ONE_TASK == set(OptionArguments.model_fields)
    assert set(OptionArguments.model_fields) == set(GIVEN)
    assert issubclass(BatchArguments, OptionArguments)


@pytest.mark.parametrize("camel", [True, False], ids=["camelCase", "snake_case"])
@pytest.mark.parametrize("name", GIVEN)
def test_an_option_beside_the_tasks_holds_for_each_that_says_nothing_else(name: str, camel: bool):
    said = (BatchArguments.model_fields[name].alias or name) if camel else name
    shared, own = GIVEN[name]
    batch = BatchArguments.model_validate({"tasks": ["a", {"task": "b"}, {"task": "c", said: own}], said: shared})
    assert [getattr(request, name) for request in batch.requests()] == [shared, shared, own]


@pytest.mark.parametrize("name", ["task", "key", "dependsOn"])
def test_what_is_about_one_task_alone_is_refused_beside_the_tasks(name: str):
    with pytest.raises(ValidationError, match=name):
        BatchArguments.model_validate({"tasks": ["a"], name: "x"})


async def test_a_batch_with_every_option_beside_its_tasks_is_run(home: Path):
    async with world(home) as here, here.client() as client:
        # The stub gives no answer in a form.
        given = {name: shared for name, (shared, _) in GIVEN.items() if name != "json_schema"}
        batch = await call_json(client, "claude_run_batch_async", tasks=["x", "y"], **given)
        done = (await call_json(client, "claude_wait", batchId=batch["batchId"]))["done"]
        assert [line["status"] for line in done] == ["completed", "completed"]
        words = await refusal(client, "claude_run_batch_async", tasks=["x"], dependsOn=[0])
        assert "dependsOn: it is an option of one task" in words
        assert "A task is a text, or an object with: " in words
