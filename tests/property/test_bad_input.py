"""Whatever a model puts into a tool's arguments is answered in words: no crash, no traceback, and what to do next.

In its long form this tries 10,000 calls instead of 300.
"""

import json
import shutil
import tempfile
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mcp_types import JSONRPCRequest
from pydantic import ValidationError

from jobs.client_context import ClientContext
from server.engine.mcp_connection import message_in
from server.mcp.calls import outcome
from server.mcp.connection_state import Call
from server.mcp.permission_tools import claude_approve, claude_permit
from server.mcp.tool_definitions import Definition
from server.mcp.tools import DEFINITIONS
from tests.support.long_form import LONG
from tests.unit.mcp.world import PATH, text_of, world

CALLS = 10_000 if LONG else 300
LONGEST = 4_000
"""Characters of the longest refusal: a model reads every one of them."""

WAYS_ON = (
    "Correct the call", "Call claude_", "call again", "Give ", "Use ", "Say ", "Name ", "Put ", "Start ", "Spell ",
    "Leave ", "leave ", "Remove ", "Pass ", "Send ", "Shorten ", "Take ", "Then call", "Do this work", "Finish ",
    "Read it with", "Ask ", "Choose ", "Lower ", "Wait ", "Write ",
)  # fmt: skip

odd_text = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", " ", "\x00", "\ud800", "../..", "/etc/passwd", "~", "~root", "-p", "--settings={}", "j1", "b1", "null",
         "{{results.a}}", "a\nb", "é" * 50, "0", "ffffffff", "-1", "bypassPermissions", "x" * 5000]
    ),
)  # fmt: skip
odd = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.integers(-3, 3), st.floats(allow_nan=True, allow_infinity=True),
        odd_text,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


LISTS = {"tasks", "jobIds", "allowedTools", "disallowedTools", "directories", "mcpServers"}
NUMBERS = {"offset", "limit", "timeoutSeconds", "maxBudgetUsd", "treeBudgetUsd", "treeTimeoutSeconds", "maxConcurrent"}
FLAGS = {"verbose", "fork", "subtree"}
numbers = st.one_of(st.integers(-3, 10**12), st.floats(), st.sampled_from([0, -0.0, 1e308, 0.001]))
words = st.one_of(odd_text, st.sampled_from(["stub:say=x", "plan", "text", "all", "queued", "opus"]))


def near(name: str) -> st.SearchStrategy[Any]:
    """A value of the right type and with any content, so that it passes the first check."""
    if name in FLAGS:
        return st.booleans()
    if name in NUMBERS:
        return numbers
    if name == "tasks":
        options = {key: near(key) for key in ("key", "cwd", "timeoutSeconds", "jsonSchema", "model")}
        options["dependsOn"] = st.lists(st.one_of(words, st.integers(-1, 3)), max_size=2)
        task = st.fixed_dictionaries({"task": words}, optional=options)
        return st.lists(st.one_of(words, task), max_size=4)
    return st.lists(words, max_size=4) if name in LISTS else words


def value_of(name: str) -> st.SearchStrategy[Any]:
    return st.one_of(near(name), near(name), near(name), near(name), near(name), near(name), odd)


@st.composite
def call_of(draw: st.DrawFn, definition: Definition) -> tuple[Definition, dict[str, Any]]:
    """Draw a call of one tool: mostly with what is required, some of the rest, and rarely one that does not exist."""
    fields = {field.alias or name: field.is_required() for name, field in definition.arguments.model_fields.items()}
    some = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)) if fields else []
    needed = [name for name, required in fields.items() if required and draw(st.integers(0, 9))]
    arguments = {name: draw(value_of(name)) for name in dict.fromkeys([*needed, *some])}
    if not draw(st.integers(0, 9)):
        arguments[draw(odd_text)] = draw(odd)
    return definition, arguments


TOOLS = (*DEFINITIONS, claude_approve, claude_permit)
calls = st.one_of([call_of(definition) for definition in TOOLS])


class Tally:
    """What came of the calls."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()


async def try_calls(home: Path, asked: list[tuple[Definition, dict[str, Any]]], tally: Tally) -> None:
    async with (
        world(home, wait_seconds=0.01, max_running=2, max_children=CALLS, max_jobs=CALLS) as here,
        here.client() as person,
    ):
        holder = await here.waiting_job(person)

        client_context = ClientContext(cwd=str(here.work), env={"PATH": PATH}, client="odd")
        # A person and a job take turns: a job can ask for more than it has.
        for (definition, sent), job in zip(asked, cycle([None, holder]), strict=False):
            if (arguments := over_the_wire(definition, sent)) is None:
                tally.of["unreadable"] += 1
                continue
            call = Call(
                services=here.services, job=job, client_context=client_context, tool_use_id=None, on_progress=None
            )
            with anyio.fail_after(60):
                result = await outcome(definition, answer(call, definition, arguments))
            words = text_of(result)
            words.encode()
            assert "Traceback" not in words
            assert 'File "' not in words
            if result.is_error:
                tally.of["refused"] += 1
                assert len(words) <= LONGEST, words[:200]
                if not words.startswith(("Execution error: ", "Job error: Job ")):
                    assert any(way in words for way in WAYS_ON), words
            else:
                tally.of["answered"] += 1


def over_the_wire(definition: Definition, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Return arguments as they arrive, or None where no message arrives at all."""
    params = {"name": definition.name, "arguments": arguments}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    message = message_in(line)
    if isinstance(message, Exception):
        return None
    assert isinstance(message.message, JSONRPCRequest)
    arrived: dict[str, Any] = (message.message.params or {})["arguments"]
    return arrived


async def answer(call: Call, definition: Definition, arguments: dict[str, Any]) -> str:
    return await definition.handle(call, definition.arguments.model_validate(arguments))


@pytest.mark.timeout(900)
def test_bad_input_is_answered_in_words_that_say_what_to_do():
    tally = Tally()
    gathered: list[tuple[Definition, dict[str, Any]]] = []

    @settings(
        max_examples=CALLS, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(calls)
    def gather(one: tuple[Definition, dict[str, Any]]) -> None:
        gathered.append(one)

    gather()
    base = Path(tempfile.mkdtemp(prefix="cj-")).resolve()
    try:
        anyio.run(try_calls, base, gathered, tally)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"{len(gathered)} calls: {dict(tally.of)}")
    assert len(gathered) >= CALLS
    assert tally.of["refused"] > CALLS // 3
    assert tally.of["answered"] > 0


def test_every_tool_refuses_what_it_does_not_know():
    for definition in DEFINITIONS:
        with pytest.raises(ValidationError):
            definition.arguments.model_validate({"no such argument": 1})
