"""Real Claude Code as the outer client: it starts `claude-jobs mcp`, and so real children and real grandchildren."""

import json
import re
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

from server.demo.messages_api import ScriptedApi
from server.demo.request_log import RecordedRequest
from server.demo.script import Story
from tests.e2e.conftest import RunPrint
from tests.support.engines import MAIN, House, house

TOOL = "mcp__claude-jobs__"
ALLOWED = ("--allowedTools", "mcp__claude-jobs")


def calls(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": f"{TOOL}{tool}", "input": arguments}]}


def asks(*tasks: str, heading: str, **options: Any) -> list[dict[str, Any]]:
    """Turns of a role that spawns a batch, waits for it and answers with what it said."""
    return [
        calls("claude_run_batch_async", tasks=list(tasks), **options),
        {
            **calls("claude_wait", batchId="{{latest.batchId}}", cursor="{{latest.cursor?}}"),
            "repeat_while": "latest.pending",
        },
        {"text": f"{heading}\n{{{{answers}}}}"},
    ]


STORY = Story.model_validate(
    {
        "default": "captain",
        "roles": {
            "captain": asks("[role: mate] Trim the sails.", heading="Captain:"),
            "mate": asks("[role: sailor] Haul.", "[role: cook] Cook.", heading="Mate:"),
            "bosun": asks(*[f"[role: sailor] Haul rope {n}." for n in range(5)], heading="Bosun:", treeBudgetUsd=2.0),
            "sailor": [{"text": "Hauled."}],
            "cook": [{"text": "Cooked."}],
        },
    }
)

LONG = 300_000
"""Characters of a result that no reply may cut without saying so."""


def servers(made: House) -> Mapping[str, Any]:
    settings = {name: value for name, value in made.environ.items() if name.startswith("CLAUDE_JOBS_")}
    return {"claude-jobs": {"type": "stdio", "command": sys.executable, "args": [str(MAIN), "mcp"], "env": settings}}


def test_claude_code_gets_the_answers_of_real_grandchildren(
    run_print: RunPrint, scripted: Callable[[Story], ScriptedApi], claude_cli: Path
):
    api = scripted(STORY)
    with house(CLAUDE_JOBS_CLI=str(claude_cli)) as made:
        run = run_print("Set sail.", story=api, args=ALLOWED, mcp_config=servers(made))

        assert (run.exit_code, run.stderr) == (0, "")
        lines = run.answer.splitlines()
        assert lines[0] == "Captain:"
        assert all(words in run.answer for words in ("Mate:", "Hauled.", "Cooked."))
        with made.pump() as pump:
            jobs = {job["jobId"]: job for job in pump.json("claude_list_jobs")}
        depths = sorted((job["recursionDepth"], job["task"].partition("]")[0]) for job in jobs.values())
        assert depths == [(1, "[role: mate"), (2, "[role: cook"), (2, "[role: sailor")]
        [mate] = [job["jobId"] for job in jobs.values() if job["recursionDepth"] == 1]
        assert {job["parentJobId"] for job in jobs.values() if job["recursionDepth"] == 2} == {mate}
        assert {job["status"] for job in jobs.values()} == {"completed"}
    # The outer client saw our tools from the start, and its call was allowed without a question.
    assert f"{TOOL}claude_run_batch_async" in api.requests[0].tool_names
    assert json.loads(json.dumps(run.of("result")[-1]))["permission_denials"] == []


def test_a_batch_of_five_is_waited_for_in_one_run_and_its_jobs_share_the_models_cache(
    run_print: RunPrint, scripted: Callable[[Story], ScriptedApi], claude_cli: Path
):
    api = scripted(STORY)
    with house(CLAUDE_JOBS_CLI=str(claude_cli)) as made:
        run = run_print("[role: bosun] Set sail.", story=api, args=ALLOWED, mcp_config=servers(made))

        assert (run.exit_code, run.stderr) == (0, "")
        assert run.answer.splitlines() == ["Bosun:", *["- Hauled."] * 5]
        with made.pump() as pump:
            ids = [job["jobId"] for job in pump.json("claude_list_jobs")]
    # Five jobs at once, and the client asked three times: spawn, wait, answer. It never polled.
    assert len(ids) == 5
    outer = [request for request in api.requests if request.session_id == api.requests[0].session_id]
    assert len(outer) == 3
    siblings = [request for request in api.requests if "[role: sailor]" in request.conversation.opening]
    assert len({request.session_id for request in siblings}) == 5
    for part in (tools_of, cached_system_of):
        assert len({part(request) for request in siblings}) == 1
    # What is a job's own is in its first user message and nowhere else.
    for job_id in ids:
        [own] = [request for request in siblings if job_id in request.conversation.opening]
        words = own.conversation.opening
        assert f"You are job {job_id}, at depth 1" in words
        assert re.search(r"You may spawn jobs \(4 more levels.*may spend [12]\.\d{4} USD\.\n\n\[role: sailor\]", words)
        assert job_id not in json.dumps([own.body["tools"], own.body["system"]])


def tools_of(request: RecordedRequest) -> bytes:
    return json.dumps(request.body["tools"]).encode()


def cached_system_of(request: RecordedRequest) -> bytes:
    """Return the system blocks that the model's cache can serve.

    Those before the first one that is marked for the cache are left out: the CLI writes a short line of its own there,
    which differs from request to request.
    """
    blocks: Sequence[Mapping[str, Any]] = request.body["system"]
    first = next(index for index, block in enumerate(blocks) if "cache_control" in block)
    return json.dumps(blocks[first:]).encode()


def test_claude_code_reads_a_result_of_300_000_characters_to_its_end(
    run_print: RunPrint, scripted: Callable[[Story], ScriptedApi]
):
    text = "".join(f"{number:09d}\n" for number in range(LONG // 10))
    with house() as made:
        with made.pump() as pump:
            job_id = pump.json("claude_run_async", task="x", outputFormat="text")["jobId"]
            pump.settled(job_id)
        # The stub's longest answer is an argument's length; the row is what is read.
        with closing(sqlite3.connect(made.paths.database)) as connection, connection:
            connection.execute("UPDATE attempt SET result = ? WHERE job_id = ?", (text, job_id))
        turns = [calls("claude_result", jobId=job_id, offset=offset) for offset in range(0, LONG, 40_000)]
        wide = calls("claude_result", jobId=job_id, limit=200_000)
        story = Story.model_validate({"default": "x", "roles": {"x": [*turns, wide, {"text": "Read."}]}})
        api = scripted(story)
        run = run_print("Read it.", story=api, args=ALLOWED, mcp_config=servers(made))

    assert (run.exit_code, run.answer) == (0, "Read.")
    heard = [result.text for exchange in api.requests[-1].conversation.exchanges for result in exchange]
    pages = [re.fullmatch(r"(.*)\n\n\[characters (\d+) to (\d+) of 300000; (.*)\]", one, re.DOTALL) for one in heard]
    assert all(pages), [one[:200] for one, page in zip(heard, pages, strict=True) if page is None]
    *short, whole = [page for page in pages if page is not None]
    assert "".join(page[1] for page in short) == text
    assert short[-1][4].startswith("this is the end")
    for page, following in pairwise(short):
        assert f"call claude_result with jobId '{job_id}' and offset {following[2]};" in page[4]
    # The largest page there is comes inline too, instead of as a file with a preview.
    assert whole[1] == text[:200_000]
