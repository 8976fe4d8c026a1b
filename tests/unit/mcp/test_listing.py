"""The list of tools: small enough, honest, and in a leaf without what spawns."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from inline_snapshot import snapshot
from mcp_types import ListToolsResult, Tool

from jobs.claude.command import PERMISSION_TOOL
from jobs.model import Job
from jobs.settings import Settings
from server.mcp.arguments import TaskArguments
from server.mcp.permission_tools import claude_approve, claude_permit, more_tools
from server.mcp.tool_definitions import as_tool
from server.mcp.tools import DEFINITIONS, INLINE_CHARS, MAX_RESULT_CHARS, listing
from tests.unit.jobs.support import job
from tests.unit.mcp.world import world

pytestmark = pytest.mark.anyio


def size(tools: Sequence[Tool]) -> int:
    """Return the bytes of a list of tools in an answer."""
    whole = ListToolsResult(tools=list(tools)).model_dump_json(by_alias=True, exclude_none=True)
    return len(b'{"jsonrpc":"2.0","id":1000,"result":}') + len(whole.encode())


def test_each_tool_takes_what_it_took():
    arguments = {tool.name: list(tool.input_schema.get("properties", {})) for tool in listing(leaf=False)}
    assert arguments == snapshot(
        {
            "claude_run": [
                "cwd",
                "model",
                "permissionMode",
                "outputFormat",
                "verbose",
                "effort",
                "maxBudgetUsd",
                "timeoutSeconds",
                "maxJobs",
                "subtreeSeconds",
                "allowedTools",
                "disallowedTools",
                "directories",
                "mcpServers",
                "appendSystemPrompt",
                "jsonSchema",
                "task",
                "strategy",
                "parentJobId",
                "idempotencyKey",
            ],
            "claude_run_async": ["task", "cwd", "model", "permissionMode", "outputFormat", "verbose", "parentJobId"],
            "claude_run_batch": ["tasks", "cwd", "model", "permissionMode", "outputFormat", "verbose", "parentJobId"],
            "claude_run_batch_async": [
                "cwd",
                "model",
                "permissionMode",
                "outputFormat",
                "verbose",
                "effort",
                "maxBudgetUsd",
                "timeoutSeconds",
                "maxJobs",
                "subtreeSeconds",
                "allowedTools",
                "disallowedTools",
                "directories",
                "mcpServers",
                "appendSystemPrompt",
                "jsonSchema",
                "tasks",
                "parentJobId",
                "idempotencyKey",
                "treeBudgetUsd",
                "treeTimeoutSeconds",
                "maxConcurrent",
            ],
            "claude_wait": ["jobIds", "batchId", "subtreeOf", "mode", "timeoutSeconds", "cursor"],
            "claude_result": ["jobId", "jobIds", "offset", "limit"],
            "claude_status": ["jobId"],
            "claude_list_jobs": ["under", "status", "limit", "before"],
            "claude_kill_job": ["jobId"],
            "claude_pause": ["jobId", "resume", "now"],
            "claude_send": [
                "jobId",
                "task",
                "fork",
                "outputFormat",
                "maxBudgetUsd",
                "timeoutSeconds",
                "jsonSchema",
                "idempotencyKey",
            ],
            "claude_retry": ["jobId", "subtree"],
            "claude_dashboard": [],
            "claude_recursion_stats": [],
        }
    )


def test_the_tool_that_claude_is_told_to_ask_is_the_one_that_is_listed():
    assert claude_permit.name == PERMISSION_TOOL


@pytest.mark.parametrize(
    ("caller", "names"), [(None, ["claude_approve"]), (job("j1"), ["claude_permit", "claude_approve"])]
)
def test_the_list_fits_into_8192_bytes_with_the_tools_for_permissions_too(
    tmp_path: Path, caller: Job | None, names: list[str]
):
    more = more_tools(Settings(home=tmp_path, permission_requests="parent"), caller)
    assert [tool.name for tool in more] == names
    free = 8192 - size([*listing(leaf=False), *more])
    print(f"\nbytes free, with {' and '.join(names)}: {free}")
    assert free >= 0


def test_what_a_task_takes_is_described_once():
    with_options = [tool.name for tool in listing(leaf=False) if "dependsOn" in json.dumps(tool.input_schema)]
    assert with_options == ["claude_run_batch_async"]
    schema = {tool.name: tool.input_schema for tool in listing(leaf=False)}["claude_run_batch_async"]
    text, whole = schema["properties"]["tasks"]["items"]["anyOf"]
    assert text == {"type": "string"}
    assert (set(whole["properties"]), whole["required"]) == ({"task", "key", "dependsOn"}, ["task"])
    # An option next to the tasks is valid in each of them, too.
    assert "additionalProperties" not in whole
    fields = {field.alias or name for name, field in TaskArguments.model_fields.items()}
    assert fields - set(schema["properties"]) == {"task", "key", "dependsOn"}


USED_MOST = {"cwd", "outputFormat", "permissionMode", "verbose", "model", "parentJobId"}


@pytest.mark.parametrize("name", ["claude_run", "claude_run_async", "claude_run_batch", "claude_run_batch_async"])
def test_each_tool_that_runs_jobs_shows_what_is_used_most(name: str):
    schema = {tool.name: tool.input_schema for tool in listing(leaf=False)}[name]
    assert set(schema["properties"]) >= USED_MOST | set(schema["required"])


def test_every_tool_has_a_title_for_a_person():
    titles = [tool.title for tool in (*listing(leaf=False), as_tool(claude_approve), as_tool(claude_permit))]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_a_schema_says_what_an_argument_is_that_is_left_out():
    tools = [*listing(leaf=False), as_tool(claude_approve)]
    said = {
        (tool.name, name): field["default"]
        for tool in tools
        for name, field in tool.input_schema.get("properties", {}).items()
        if "default" in field
    }
    assert said == {
        ("claude_run", "outputFormat"): "json",
        ("claude_run", "strategy"): "direct",
        ("claude_run_async", "outputFormat"): "json",
        ("claude_run_batch", "outputFormat"): "json",
        ("claude_run_batch_async", "outputFormat"): "json",
        ("claude_wait", "mode"): "all",
        ("claude_list_jobs", "limit"): 30,
        ("claude_send", "outputFormat"): "json",
        ("claude_approve", "allow"): True,
    }


def test_a_task_of_a_batch_has_no_default_that_a_client_could_fill_in_over_what_holds_for_all():
    schema = {tool.name: tool.input_schema for tool in listing(leaf=False)}["claude_run_batch_async"]
    assert '"default"' not in json.dumps(schema["properties"]["tasks"])


def test_a_brief_tool_says_where_its_arguments_are_described_and_takes_the_same():
    by_name = {definition.name: definition for definition in DEFINITIONS}
    brief = [definition for definition in DEFINITIONS if definition.like]
    assert [one.name for one in brief] == ["claude_run_async", "claude_run_batch"]
    for one in brief:
        assert str(one.like) in one.about.split(",")[0] + " "
        assert one.arguments is by_name[str(one.like)].arguments


def test_the_five_everyday_tools_are_always_loaded():
    loaded = {tool.name for tool in listing(leaf=False) if (tool.meta or {}).get("anthropic/alwaysLoad")}
    assert loaded == {"claude_run", "claude_run_batch_async", "claude_wait", "claude_result", "claude_status"}


def test_only_the_result_asks_for_more_room():
    sizes = {tool.name: (tool.meta or {}).get("anthropic/maxResultSizeChars") for tool in listing(leaf=False)}
    assert {name: size for name, size in sizes.items() if size} == {"claude_result": INLINE_CHARS}
    assert INLINE_CHARS > MAX_RESULT_CHARS


def test_no_tool_promises_a_structured_answer():
    assert all(tool.output_schema is None for tool in listing(leaf=False))


@pytest.mark.parametrize("max_depth", [0, 1])
async def test_only_a_leaf_is_shown_no_tool_for_jobs_that_it_cannot_have(home: Path, max_depth: int):
    async with world(home, max_depth=max_depth) as here, here.client() as person:
        job = await here.waiting_job(person)
        async with here.client(token=here.token(job)) as leaf:
            shown = [tool.name for tool in (await leaf.list_tools()).tools]
        for_jobs_below = {
            *("claude_run", "claude_run_async", "claude_run_batch", "claude_run_batch_async", "claude_send"),
            *("claude_pause", "claude_retry"),
        }
        hidden = {definition.name for definition in DEFINITIONS} - set(shown)
        assert hidden == (set() if max_depth else for_jobs_below)
