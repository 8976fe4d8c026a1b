"""The real `claude` plays a story: what the scripted API promises, held against the shipped binary."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server.demo.environment import DUMMY_KEY
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.conftest import RunPrint

Serve = Callable[[Story], ScriptedApi]

TINY = {"tiny": {"type": "stdio", "command": sys.executable, "args": [str(Path(__file__).with_name("tiny_server.py"))]}}


def test_the_real_binary_answers_with_the_text_of_the_story(run_print: RunPrint, scripted: Serve):
    turn = {"text": "Seven swans.", "usage": {"input_tokens": 321, "output_tokens": 45}}
    api = scripted(Story.model_validate({"default": "poet", "roles": {"poet": [turn]}}))

    run = run_print("How many?", story=api)

    assert (run.exit_code, run.answer) == (0, "Seven swans.")
    usage = run.of("result")[-1]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (321, 45)
    [request] = api.requests
    assert request.conversation.opening == "How many?"
    assert request.headers["x-api-key"] == DUMMY_KEY
    assert request.session_id == run.of("result")[-1]["session_id"]
    assert request.body["system"]


def test_a_tool_call_reaches_an_mcp_server_and_its_results_reach_the_answer(run_print: RunPrint, scripted: Serve):
    turns = [
        {"text": "I add.", "tool_calls": [{"name": "mcp__tiny__add", "input": {"numbers": [2, 3]}}]},
        {
            "tool_calls": [
                {
                    "name": "mcp__tiny__claude_wait",
                    "input": {"batchId": "{{latest.batchId}}", "cursor": "{{latest.cursor?}}"},
                }
            ],
            "repeat_while": "latest.pending",
        },
        {"text": "{{result[0].sum}}\n{{answers}}"},
    ]
    api = scripted(Story.model_validate({"roles": {"default": turns}}))

    run = run_print("Add.", story=api, args=("--allowedTools", "mcp__tiny"), mcp_config=TINY)

    assert run.answer == '5\n- asked with {"batchId": "b1", "cursor": "c1"}'
    assert run.exit_code == 0
    assert "mcp__tiny__add" in api.requests[0].tool_names
    assert len(api.requests) == 4


def test_an_overloaded_api_is_asked_again_and_then_plays_the_same_turn(run_print: RunPrint, scripted: Serve):
    error = {"status": 529, "message": "Overloaded", "times": 1}
    api = scripted(Story.model_validate({"roles": {"default": [{"text": "At last.", "error": error}]}}))

    run = run_print("Try.", story=api)

    assert (run.exit_code, run.answer) == (0, "At last.")
    assert [frame["error_status"] for frame in run.of("system", "api_retry")] == [529]
    assert len(api.requests) == 2


def test_siblings_on_one_api_play_the_roles_that_their_tasks_name(run_print: RunPrint, scripted: Serve):
    roles = {"tenor": [{"text": "High."}], "bass": [{"text": "Low."}]}
    api = scripted(Story.model_validate({"default": "bass", "roles": roles}))

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda task: run_print(task, story=api), ["[role: tenor] Sing.", "[role: bass] Sing."]))

    assert [run.answer for run in runs] == ["High.", "Low."]
    assert {request.session_id for request in api.requests} == {run.of("result")[-1]["session_id"] for run in runs}
    assert {request.conversation.opening for request in api.requests} == {"[role: tenor] Sing.", "[role: bass] Sing."}


def test_a_task_that_names_an_unknown_role_fails_with_the_reason(run_print: RunPrint):
    story = Story.model_validate({"roles": {"default": [{"text": "Never said."}]}})

    run = run_print("[role: ghost] Boo.", story=story)

    assert run.exit_code == 1
    assert "no role 'ghost'" in run.answer
