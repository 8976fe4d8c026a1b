"""The wire of `claude-jobs mcp` as clients meet it: pipes that end, lines that are no messages, and progress."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.mcp.arguments import TaskArguments
from server.mcp.tools import BY_NAME
from tests.support.engines import MAIN, House, Pump, house
from tests.support.tokens import attempt_directory, pump_of_job, running

SECONDS = 60.0
MESSAGE_LIMIT = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def quarters() -> Iterator[House]:
    with house() as made:
        made.start_engine()
        yield made


@pytest.fixture
def pump(quarters: House) -> Iterator[Pump]:
    with quarters.pump() as made:
        yield made


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def call(number: int, tool: str, **arguments: Any) -> bytes:
    return line(id=number, method="tools/call", params={"name": tool, "arguments": arguments})


INFO = {"name": "test", "version": "1"}
OPENING = line(
    id=0, method="initialize", params={"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": INFO}
) + line(method="notifications/initialized")


def piped(quarters: House, text: bytes) -> list[Any]:
    """Give a pump its whole input at once, and return every line that it answers with."""
    done = subprocess.run(
        [sys.executable, str(MAIN), "mcp"],
        input=text,
        capture_output=True,
        env=dict(quarters.environ),
        cwd=quarters.work,
        timeout=SECONDS,
        check=True,
    )
    assert done.stderr == b""
    return [json.loads(each) for each in done.stdout.splitlines()]


def test_a_script_that_pipes_its_requests_gets_every_reply(quarters: House):
    for _ in range(6):
        opened, started, ran = piped(
            quarters, OPENING + call(1, "claude_run_async", task="x") + call(2, "claude_run", task="stub:say=gold")
        )
        assert (opened["id"], started["id"], ran["id"]) == (0, 1, 2)
        assert json.loads(started["result"]["content"][0]["text"])["status"] == "started"
        assert "gold" in ran["result"]["content"][0]["text"]


def test_the_last_request_needs_no_newline(quarters: House):
    assert [each["id"] for each in piped(quarters, OPENING + line(id=1, method="ping").rstrip())] == [0, 1]


def test_a_client_that_ends_its_input_and_waits_for_nothing_sees_the_pump_leave_at_once(pump: Pump):
    assert pump.process.stdin is not None
    pump.process.stdin.close()
    # Far below the bound of a call in flight.
    assert pump.process.wait(10.0) == 0


@pytest.mark.parametrize(
    ("text", "code", "key"),
    [
        (b"no json\n", -32700, None),
        (b'{"jsonrpc":"2.0","id":5,"met\n', -32700, None),
        (b'{"jsonrpc":"2.0","id":5,"method":"\xff"}\n', -32700, None),
        (b'[{"jsonrpc":"2.0","id":5,"method":"ping"}]\n', -32600, None),
        (b'{"id":5,"method":"ping"}\n', -32600, 5),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}\n', -32600, None),
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":[1]}\n', -32600, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":7}\n', -32600, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"no/such"}\n', -32601, 5),
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"a":"%b"}}\n' % (b"x" * MESSAGE_LIMIT), -32600, 5),
    ],
    ids=["text", "half", "UTF-8", "batch", "version", "id", "params", "method", "unknown", "long"],
)
def test_a_line_that_is_no_request_gets_the_error_that_the_protocol_names(
    pump: Pump, text: bytes, code: int, key: int | None
):
    assert pump.process.stdin is not None
    assert pump.process.stdout is not None
    pump.process.stdin.write(text)
    pump.process.stdin.flush()
    answer = json.loads(pump.process.stdout.readline())
    assert (answer["id"], answer["error"]["code"]) == (key, code)
    assert pump.ask("ping") == {}


def notes_of(pump: Pump, count: int) -> list[tuple[float, Any]]:
    """Return the next notes of progress, each with the seconds since the one before it or since now."""
    assert pump.process.stdout is not None
    heard: list[tuple[float, Any]] = []
    last = time.monotonic()
    while len(heard) < count:
        message = json.loads(pump.process.stdout.readline())
        if message.get("method") == "notifications/progress":
            now = time.monotonic()
            heard.append((now - last, message["params"]))
            last = now
    return heard


def test_a_client_hears_of_progress_that_grows_also_from_the_next_engine():
    with house() as own, own.pump() as pump:
        spawned = pump.json("claude_run_batch_async", tasks=["stub:wait=/nonexistent", "stub:wait=/nonexistent"])
        wait = {"name": "claude_wait", "arguments": {"batchId": spawned["batchId"]}, "_meta": {"progressToken": "p"}}
        pump.send("tools/call", **wait)
        notes = notes_of(pump, 2)
        own.kill_engine()
        notes += notes_of(pump, 2)
    first, *others = [seconds for seconds, _ in notes]
    assert first <= 5
    # Two seconds more than is promised, for a busy machine.
    assert max(others) <= 12
    values = [params["progress"] for _, params in notes]
    assert values == sorted(set(values))
    assert {params["progressToken"] for _, params in notes} == {"p"}
    for _, params in notes:
        assert params["message"].startswith("0 of 2 over, ")


def test_what_stands_beside_the_tasks_of_a_batch_holds_for_each(pump: Pump):
    asked = {"timeoutSeconds": 1, "allowedTools": ["Read"], "maxBudgetUsd": 1, "effort": "low"}
    batch = pump.json(
        "claude_run_batch_async", tasks=["stub:wait=/nonexistent", {"task": "x", "timeoutSeconds": 60}], **asked
    )
    done = pump.json("claude_wait", batchId=batch["batchId"])["done"]
    assert [line["status"] for line in done] == ["timeout", "completed"]


def test_what_looks_like_the_result_of_a_task_that_is_not_there_is_text(pump: Pump):
    task = "stub:say=fine Explain {{results.items}}"
    batch = pump.json("claude_run_batch_async", tasks=[task, "x"])
    assert [line["status"] for line in pump.json("claude_wait", batchId=batch["batchId"])["done"]] == ["completed"] * 2
    job_id = pump.json("claude_run_async", task=task)["jobId"]
    assert pump.settled(job_id)["task"] == task
    sent = pump.json("claude_send", jobId=job_id, task=task)["jobId"]
    assert pump.settled(sent)["task"] == task


def test_the_list_of_tools_is_small_and_has_titles_and_the_arguments_that_people_use(pump: Pump):
    assert pump.process.stdin is not None
    assert pump.process.stdout is not None
    pump.process.stdin.write(line(id="raw", method="tools/list"))
    pump.process.stdin.flush()
    reply = pump.process.stdout.readline()
    assert len(reply) <= 8192
    tools = {tool["name"]: tool for tool in json.loads(reply)["result"]["tools"]}
    assert all(tool["title"] for tool in tools.values())
    older = {"cwd", "outputFormat", "permissionMode", "verbose", "parentJobId"}
    for name in ("claude_run", "claude_run_async", "claude_run_batch", "claude_run_batch_async"):
        assert set(tools[name]["inputSchema"]["properties"]) >= older | {"model"}


def test_a_prompt_renders_the_parts_that_a_person_gives(pump: Pump):
    reply = pump.ask("prompts/get", name="fan_out", arguments={"goal": "Inspect the house", "parts": "roof\ncellar"})
    assert "1. Its parts are these:\n   - roof\n   - cellar\n" in reply["messages"][0]["content"]["text"]


def test_what_is_below_a_job_is_counted_without_the_job_and_costs_are_rounded(pump: Pump):
    parent = pump.json("claude_run_async", task="stub:wait=/nonexistent")["jobId"]
    asked = {"tasks": ["stub:cost=0.1", "stub:cost=0.2"], "parentJobId": parent}
    batch = pump.json("claude_run_batch_async", **asked)
    pump.json("claude_wait", batchId=batch["batchId"])
    below = pump.json("claude_status", jobId=parent)["descendants"]
    assert (below["total"], below["counts"], below["costUsd"]) == (2, {"completed": 2}, 0.3)
    pump.json("claude_kill_job", jobId=parent)
    pump.settled(parent)


@pytest.mark.parametrize(("action", "behaviour"), [("accept", "allow"), ("decline", "deny")])
def test_to_accept_the_form_of_a_permission_is_to_allow_it(action: str, behaviour: str):
    with (
        house(CLAUDE_JOBS_PERMISSION_REQUESTS="person") as own,
        own.pump(capabilities={"elicitation": {}}) as person,
    ):
        job_id = person.json("claude_run_async", task="stub:wait=/nonexistent")["jobId"]
        with pump_of_job(own, attempt_directory(own, running(person, job_id))) as job:
            asked = job.send("tools/call", name="claude_permit", arguments={"tool_name": "Bash", "input": {}})
            person.send("tools/call", name="claude_wait", arguments={"jobIds": [job_id]})
            assert person.process.stdout is not None
            while (form := json.loads(person.process.stdout.readline())).get("method") != "elicitation/create":
                pass
            # Nothing to fill in: a person answers with one key.
            assert form["params"]["requestedSchema"] == {"type": "object", "properties": {}}
            assert job_id in form["params"]["message"]
            person.write({"id": form["id"], "result": {"action": action}})
            assert json.loads(job.answer(asked)["content"][0]["text"])["behavior"] == behaviour


def test_an_argument_that_is_null_or_empty_is_one_that_was_left_out(pump: Pump):
    job_id = pump.json("claude_run_async", task="x")["jobId"]
    pump.settled(job_id)
    required: dict[str, dict[str, Any]] = {
        "claude_run": {"task": "x"},
        "claude_run_async": {"task": "x"},
        "claude_run_batch": {"tasks": [{"task": "x", **dict.fromkeys(TaskArguments.model_fields.keys() - {"task"})}]},
        "claude_run_batch_async": {"tasks": ["x"]},
        "claude_wait": {"jobIds": [job_id]},
        "claude_result": {"jobId": job_id},
        "claude_send": {"jobId": job_id, "task": "x", "fork": True},
    }
    for name, definition in BY_NAME.items():
        given = required.get(name, {})
        fields = {field.alias or key: field for key, field in definition.arguments.model_fields.items()}
        if any(field.is_required() and alias not in given for alias, field in fields.items()):
            continue
        unused = [alias for alias in fields if alias not in given]
        pump.text(name, **given, **dict.fromkeys(unused))
        pump.text(name, **given, **{alias: "" for alias in unused if fields[alias].annotation is not bool})


def test_null_in_a_task_leaves_what_holds_for_the_whole_batch(pump: Pump):
    asked = {"tasks": [{"task": "stub:wait=/nonexistent", "timeoutSeconds": None}], "timeoutSeconds": 1}
    batch = pump.json("claude_run_batch_async", **asked)
    assert [line["status"] for line in pump.json("claude_wait", batchId=batch["batchId"])["done"]] == ["timeout"]


def test_a_list_that_a_model_spells_as_text_is_that_list(pump: Pump):
    asked = {"tasks": '["x", {"task": "y", "allowedTools": "[\\"Read\\"]"}]', "disallowedTools": "[]"}
    batch = pump.json("claude_run_batch_async", **asked)
    assert batch["count"] == 2
    done = pump.json("claude_wait", jobIds=json.dumps(batch["jobIds"]))
    assert done["pending"] == 0
    assert 'allowedTools: give an array, such as ["a", "b"]' in pump.refusal("claude_run", task="x", allowedTools="[Re")


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("claude_run_batch", {"tasks": [5]}, "tasks.0: give a text or an object."),
        ("claude_run_batch", {"tasks": "x"}, 'tasks: give an array, such as ["a", "b"].'),
        ("claude_run", {"task": "x", "jsonSchema": 5}, "jsonSchema: give an object; jsonSchema: give a text."),
        ("claude_status", {}, "jobId: it is missing."),
        ("claude_status", {"jobId": "j1", "job_id": "j1"}, "job_id: it was given twice, in two spellings."),
    ],
)
def test_a_wrong_argument_is_told_in_the_words_of_json(pump: Pump, tool: str, arguments: dict[str, Any], words: str):
    assert pump.refusal(tool, **arguments).startswith(f"{tool}: {words} It accepts: ")


def test_an_unknown_request_for_a_permission_names_the_call_that_lists_them(pump: Pump):
    said = pump.refusal("claude_approve", requestId="r404")
    assert said == "Request r404 not found. Call claude_approve without requestId for those that are open."


def test_a_prompt_without_anything_to_do_names_what_it_needs(pump: Pump):
    for name, given, needed in (
        ("map_reduce", {"goal": "Count", "items": "[]"}, "items"),
        ("map_reduce", {"goal": "Count", "items": " \n"}, "items"),
        ("fan_out", {"goal": " "}, "goal"),
    ):
        assert pump.ask("prompts/get", name=name, arguments=given)["error"]["message"] == f"{name} needs: {needed}."


def test_a_tree_has_no_transcript(pump: Pump):
    job_id = pump.json("claude_run_async", task="x")["jobId"]
    assert "contents" in pump.ask("resources/read", uri=f"tree://{job_id}")
    assert "error" in pump.ask("resources/read", uri=f"tree://{job_id}/transcript")


def test_a_transcript_whose_last_frame_is_too_long_names_the_tool_that_pages_it(pump: Pump, quarters: House):
    answer = {"type": "result", "subtype": "success", "is_error": False, "result": "x" * 1024 * 1024, "num_turns": 1}
    answer |= {"session_id": "s", "total_cost_usd": 0.1, "usage": {}, "permission_denials": []}
    frames = quarters.base / "frames"
    frames.write_text(json.dumps({"type": "system", "subtype": "init"}) + "\n" + json.dumps(answer) + "\n")
    job_id = pump.json("claude_run_async", task=f"stub:replay={frames}")["jobId"]
    pump.settled(job_id)
    said = pump.ask("resources/read", uri=f"job://{job_id}/transcript")["error"]["message"]
    assert said == f"The last frame of {job_id} has more than 1048576 bytes. Call claude_result with its jobId."
