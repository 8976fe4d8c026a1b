"""The MCP server as an SDK client sees it, in memory and in both eras of the protocol."""

import json
import re
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError

from jobs.errors import StoreError
from server.client.pending_requests import TOOL_USE_ID
from server.mcp.arguments import Arguments
from server.mcp.initialize import INSTRUCTIONS
from server.mcp.tools import DEFINITIONS, listing
from tests.unit.mcp.world import ERAS, call, call_json, refusal, text_of, world

pytestmark = pytest.mark.anyio

SPAWNING = {"claude_run", "claude_run_async", "claude_run_batch", "claude_run_batch_async", "claude_send"}
READING = {
    "claude_wait",
    "claude_result",
    "claude_status",
    "claude_list_jobs",
    "claude_dashboard",
    "claude_recursion_stats",
}
NOWHERE = "stub:wait=/nonexistent"


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_of_either_era_lists_the_tools_and_calls_one(home: Path, era: str):
    async with world(home) as here, here.client(mode=era) as client:
        assert await names(client) == [definition.name for definition in DEFINITIONS]
        assert await call(client, "claude_run", {"task": "stub:say=well", "outputFormat": "text"}) == "well"


@pytest.mark.parametrize("era", ERAS)
async def test_an_unknown_tool_is_refused_with_the_names_of_those_there_are(home: Path, era: str):
    async with world(home) as here, here.client(mode=era) as client:
        words = await refusal(client, "claude_dance", step="left")
        assert "claude_dance" in words
        assert all(definition.name in words for definition in DEFINITIONS)


@pytest.mark.parametrize("era", ERAS)
async def test_an_unknown_argument_is_named_with_what_is_accepted(home: Path, era: str):
    async with world(home) as here, here.client(mode=era) as client:
        words = await refusal(client, "claude_status", jobId="j1", colour="red")
        assert "colour" in words
        assert "It accepts: jobId." in words


async def test_an_unknown_key_of_a_batch_task_is_named_with_what_a_task_accepts(home: Path):
    async with world(home) as here, here.client() as client:
        words = await refusal(client, "claude_run_batch_async", tasks=["fine", {"task": "x", "colour": "red"}])
        assert "tasks.1" in words
        assert "colour" in words
        assert "object with: cwd" in words
        assert await here.services.store.unfinished() == []


@pytest.mark.parametrize(
    ("tool", "arguments", "field"),
    [
        ("claude_run", {}, "task"),
        ("claude_run", {"task": 7}, "task"),
        ("claude_run_batch_async", {"tasks": "one"}, "tasks"),
        ("claude_run_batch_async", {"tasks": []}, "tasks"),
        ("claude_run_batch_async", {"tasks": [None]}, "tasks"),
        ("claude_wait", {"batchId": "b1", "mode": "most"}, "mode"),
        ("claude_wait", {}, "jobIds"),
        ("claude_wait", {"batchId": "b1", "jobIds": ["j1"]}, "jobIds"),
        ("claude_result", {}, "jobId"),
        ("claude_result", {"jobId": "j1", "offset": -1}, "offset"),
        ("claude_list_jobs", {"limit": 0}, "limit"),
        ("claude_list_jobs", {"status": "lost"}, "status"),
        ("claude_run", {"task": " "}, "task"),
        ("claude_run", {"task": "x", "cwd": "/no/such/place"}, "cwd"),
        ("claude_run", {"task": "x", "permissionMode": "root"}, "permissionMode"),
        ("claude_run", {"task": "x", "permissionMode": "bypassPermissions"}, "permissionMode"),
        ("claude_run", {"task": "x", "timeoutSeconds": -1}, "timeoutSeconds"),
        ("claude_run", {"task": "x", "outputFormat": "yaml"}, "outputFormat"),
    ],
)
async def test_an_argument_that_cannot_be_used_is_named(home: Path, tool: str, arguments: dict, field: str):
    async with world(home) as here, here.client() as client:
        assert field in await refusal(client, tool, **arguments)
        assert await here.services.store.newest_jobs(limit=10) == []


@pytest.mark.parametrize(
    ("tool", "words"), [("claude_status", "Job j123 not found"), ("claude_result", "Job not found: j123")]
)
async def test_an_unknown_job_is_said_not_to_be_found(home: Path, tool: str, words: str):
    async with world(home) as here, here.client() as client:
        assert words in await refusal(client, tool, jobId="j123")


@pytest.mark.parametrize("tool", ["claude_status", "claude_result", "claude_kill_job", "claude_send", "claude_retry"])
async def test_what_is_no_id_at_all_is_not_repeated_at_length(home: Path, tool: str):
    async with world(home) as here, here.client() as client:
        arguments = {"jobId": "x" * 5000} | ({"task": "x"} if tool == "claude_send" else {})
        result = await client.call_tool(tool, arguments)
        assert "not found" in text_of(result)
        assert len(text_of(result)) < 300


@pytest.mark.parametrize("option", ["outputFormat", "permissionMode", "model", "effort", "cwd"])
async def test_an_option_that_cannot_be_used_is_not_repeated_at_length(home: Path, option: str):
    async with world(home) as here, here.client() as client:
        words = await refusal(client, "claude_run_async", task="x", **{option: "x" * 5000})
        assert words.startswith(f"{option}: ")
        assert len(words) < 1000


async def test_both_spellings_of_an_argument_mean_the_same(home: Path):
    async with world(home) as here, here.client() as client:
        snake = {"task": "stub:say=a", "output_format": "text", "permission_mode": "plan", "parent_job_id": None}
        camel = {"task": "stub:say=a", "outputFormat": "text", "permissionMode": "plan", "parentJobId": None}
        assert await call(client, "claude_run", snake) == await call(client, "claude_run", camel) == "a"
        specs = {job.spec for job in await here.services.store.newest_jobs(limit=10)}
        assert {(spec.output_format, spec.permission_mode) for spec in specs} == {("text", "plan")}
        assert len(specs) == 1


async def test_a_job_that_failed_is_an_error_in_the_older_servers_words(home: Path):
    async with world(home) as here, here.client() as client:
        words = await refusal(client, "claude_run", task="stub:exit=1")
        assert words.startswith("Execution error: Job failed: ")
        [job] = await here.services.store.newest_jobs(limit=10)
        assert (await refusal(client, "claude_result", jobId=job.id)).startswith("Job error: Job failed: ")


async def test_the_result_of_a_running_job_is_refused_with_the_call_to_make(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        words = await refusal(client, "claude_result", jobId=job.id)
        assert words.startswith("Job error: Job is still running")
        assert "claude_wait" in words


async def test_a_store_that_fails_is_an_error_in_words(home: Path, monkeypatch: pytest.MonkeyPatch):
    async with world(home) as here, here.client() as client:

        async def full(*_args: object, **_named: object) -> None:
            raise StoreError("admit jobs", "database or disk is full")

        monkeypatch.setattr(here.services.store, "admit", full)
        words = await refusal(client, "claude_run_async", task="x")
        assert "disk is full" in words
        assert "claude-jobs doctor" in words


@pytest.mark.parametrize("era", ERAS)
async def test_a_fault_of_the_server_shows_no_traceback(home: Path, era: str, monkeypatch: pytest.MonkeyPatch):
    async with world(home) as here, here.client(mode=era) as client:

        async def broken(*_args: object, **_named: object) -> None:
            raise ZeroDivisionError("a fault")

        monkeypatch.setattr(here.services.store, "job", broken)
        with pytest.raises(MCPError) as caught:
            await client.call_tool("claude_status", {"jobId": "j1"})
        assert "Traceback" not in str(caught.value)
        assert "File " not in str(caught.value)
        assert await names(client)


def test_the_instructions_are_below_two_kilobytes():
    assert len(INSTRUCTIONS.encode()) < 2048


@pytest.mark.parametrize("era", ERAS)
async def test_the_whole_list_of_tools_takes_at_most_8192_bytes(home: Path, era: str):
    async with world(home) as here, here.client(mode=era) as client:
        reply = (await client.list_tools()).model_dump_json(by_alias=True, exclude_unset=True)
        assert len(reply.encode()) <= 8192


async def test_two_lists_are_the_same_byte_for_byte(home: Path):
    async with world(home) as here, here.client() as one, here.client() as other:
        first, second = await one.list_tools(), await other.list_tools()
        assert first.model_dump_json() == second.model_dump_json()


def test_only_tools_that_read_say_so_and_only_the_killing_one_is_destructive():
    hints = {tool.name: tool.annotations for tool in listing(leaf=False)}
    assert {name for name, hint in hints.items() if hint and hint.read_only_hint} == READING
    assert {name for name, hint in hints.items() if hint and hint.destructive_hint} == {"claude_kill_job"}


def test_every_schema_tells_the_truth_about_what_the_tool_accepts():
    for tool, definition in zip(listing(leaf=False), DEFINITIONS, strict=True):
        fields = definition.arguments.model_fields.items()
        accepted = {field.alias or name for name, field in fields}
        named = set(tool.input_schema.get("properties", {}))
        # A brief one names what is required and used most, and the tool where the rest is described.
        if definition.like is None:
            assert named == accepted
        assert named <= accepted
        assert set(tool.input_schema.get("required", ())) == {
            field.alias or name for name, field in fields if field.is_required()
        }
        assert "$ref" not in json.dumps(tool.input_schema)


def test_no_argument_shadows_what_pydantic_brings():
    assert not {name for definition in DEFINITIONS for name in definition.arguments.model_fields} & set(dir(Arguments))


async def test_a_leaf_sees_no_tool_that_spawns_and_its_parent_sees_them_all(home: Path):
    async with world(home, max_depth=1, max_concurrent={0: 4}) as here, here.client() as client:
        root = await here.waiting_job(client)
        leaf = await here.waiting_job(client, parentJobId=root.id)
        async with here.client(token=here.token(root)) as parent, here.client(token=here.token(leaf)) as child:
            assert set(await names(parent)) >= SPAWNING
            assert set(await names(child)) == READING | {"claude_kill_job"}
            words = await refusal(child, "claude_run_async", task="deeper")
            assert "Recursion depth limit exceeded: 2/1" in words
            assert "Do this work in the current job" in words


@pytest.mark.parametrize("era", ERAS)
async def test_a_repeated_call_of_one_tool_use_starts_its_jobs_once(home: Path, era: str):
    async with world(home) as here, here.client(mode=era) as client:
        meta = {TOOL_USE_ID: "toolu_01"}
        first = await call(client, "claude_run_batch_async", {"tasks": ["a", "b"]}, meta)
        again = await call(client, "claude_run_batch_async", {"tasks": ["a", "b"]}, meta)
        other = await call(client, "claude_run_batch_async", {"tasks": ["a", "b"]}, {TOOL_USE_ID: "toolu_02"})
        assert first == again != other
        assert len(await here.services.store.newest_jobs(limit=10)) == 4


async def test_an_explicit_key_of_the_caller_counts_before_the_tool_use(home: Path):
    async with world(home) as here, here.client() as client:
        arguments = {"task": "a", "idempotencyKey": "mine"}
        first = await call(client, "claude_run_async", arguments, {TOOL_USE_ID: "toolu_01"})
        again = await call(client, "claude_run_async", arguments, {TOOL_USE_ID: "toolu_02"})
        assert first == again


async def test_a_job_cannot_spawn_in_the_name_of_another(home: Path):
    async with world(home, max_concurrent={0: 4}) as here, here.client() as person:
        one, other = await here.waiting_job(person), await here.waiting_job(person)
        async with here.client(token=here.token(one)) as client:
            foreign = await refusal(client, "claude_run_async", task="x", parentJobId=other.id)
            nobody = await refusal(client, "claude_run_async", task="x", parentJobId="j404")
            assert foreign.replace(other.id, "") == nobody.replace("j404", "")
            child = await call_json(client, "claude_run_async", task="x")
            status = await call_json(client, "claude_status", jobId=child["jobId"])
            assert (status["parentJobId"], status["recursionDepth"]) == (one.id, 1)


async def test_a_job_sees_its_own_subtree_and_nothing_else(home: Path):
    async with world(home, max_concurrent={0: 4}) as here, here.client() as person:
        one, other = await here.waiting_job(person), await here.waiting_job(person)
        async with here.client(token=here.token(one)) as client:
            for tool in ("claude_status", "claude_result"):
                foreign = await refusal(client, tool, jobId=other.id)
                assert "not found" in foreign
                assert foreign.replace(other.id, "j404") == await refusal(client, tool, jobId="j404")
            assert (await call_json(client, "claude_kill_job", jobId=other.id))["success"] is False
            listed = await call_json(client, "claude_list_jobs")
            assert [line["jobId"] for line in listed] == [one.id]
        assert (await call_json(person, "claude_status", jobId=other.id))["status"] == "running"


@pytest.mark.parametrize("era", ERAS)
async def test_the_token_of_a_job_that_is_over_is_refused_in_words(home: Path, era: str):
    async with world(home) as here, here.client() as person:
        job = await here.waiting_job(person)
        token = here.token(job)
        await call_json(person, "claude_kill_job", jobId=job.id)
        await call_json(person, "claude_wait", jobIds=[job.id])
        async with here.client(token=token, mode=era) as client:
            assert "the job is over" in await refusal(client, "claude_run_async", task="x")
            with pytest.raises(MCPError, match="the job is over"):
                await client.list_tools()


async def test_progress_is_reported_where_the_client_asks_for_it(home: Path):
    async with world(home) as here, here.client() as client:
        heard: list[tuple[float, float | None, str | None]] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        await client.call_tool("claude_run", {"task": "stub:sleep=0.1"}, progress_callback=hear)
        [(value, total, message), *_] = heard
        assert 0 <= value < 0.5
        assert total == 1
        assert re.fullmatch(r"waiting for a slot|\w+, \d+ s", message or "")


async def test_a_call_that_is_cancelled_leaves_its_job_running(home: Path):
    async with world(home) as here, here.client() as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "claude_run", {"task": NOWHERE, "idempotencyKey": "k"})
            job = await here.waiting_job(client)
            group.cancel_scope.cancel()
        statuses = {line["status"] for line in await call_json(client, "claude_list_jobs")}
        assert statuses <= {"running", "queued"}
        assert (await call_json(client, "claude_status", jobId=job.id))["status"] == "running"


async def test_half_a_character_in_a_reply_is_sent_as_a_question_mark(home: Path, monkeypatch: pytest.MonkeyPatch):
    async with world(home) as here, here.client() as client:
        monkeypatch.setattr("server.mcp.result_pages.result_text", lambda *_: "half \ud83d")
        reply = await client.call_tool("claude_run", {"task": "x"})
        assert text_of(reply) == "half ?"
