"""What the READMEs say of the tools is what the live list holds."""

import re
from pathlib import Path
from typing import Any

import pytest

from server.mcp.arguments import (
    BatchArguments,
    ListArguments,
    ResultArguments,
    RunArguments,
    SendArguments,
    TaskArguments,
    WaitArguments,
)
from server.mcp.permission_tools import ApproveArguments
from server.mcp.prompts import PROMPTS
from server.mcp.resources import TEMPLATES
from server.mcp.tools import listing
from tests.unit.mcp.world import call_json, world

ROOT = Path(__file__).parents[3]
README = (ROOT / "server" / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Tools\n")[2].partition("\n## ")[0]
NAMES = sorted(tool.name for tool in listing(leaf=False))


def test_the_readme_of_the_server_has_one_row_for_each_tool_in_any_order():
    rows = re.findall(r"^\| `(claude_[a-z_]+)` \|", SECTION, re.MULTILINE)
    assert sorted(rows) == NAMES


@pytest.mark.anyio
async def test_the_replies_have_the_keys_that_the_readme_says(home: Path):
    rows = re.findall(r"^\| `(claude_[a-z_]+)` \| .+ \| `\{(.+)\}`", SECTION, re.MULTILINE)
    async with world(home) as here, here.client() as client:
        replies: dict[str, dict[str, Any]] = {}

        async def ask(tool: str, **arguments: Any) -> dict[str, Any]:
            replies[tool] = await call_json(client, tool, **arguments)
            return replies[tool]

        job = (await ask("claude_run_async", task="x"))["jobId"]
        batch = (await ask("claude_run_batch_async", tasks=["stub:exit=3"]))["batchId"]
        for over in ({"batchId": batch}, {"jobIds": [job]}):
            await ask("claude_wait", **over)
        await ask("claude_send", jobId=job, task="more")
        await ask("claude_retry", jobId=batch)
        await ask("claude_pause", jobId=batch)
        await ask("claude_kill_job", jobId=batch)
    assert {tool: set(reply) for tool, reply in replies.items()} == {tool: set(keys.split(", ")) for tool, keys in rows}


def test_the_table_of_the_first_readme_names_each_tool_once():
    first = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`claude_.+?`) \| ", first, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", "".join(cells))) == NAMES


def test_the_readme_names_every_field_of_a_task_and_no_other():
    fields = {field.alias or name for name, field in TaskArguments.model_fields.items()}
    named = SECTION.partition("**Tasks of a batch**")[2].partition("An option next to")[0]
    assert set(re.findall(r"`(\w+)`", named)) == fields


def test_the_readme_says_every_default_that_is_more_than_nothing():
    line = SECTION.partition("**Defaults:**")[2].partition("\n\n")[0]
    models = (
        RunArguments,
        BatchArguments,
        WaitArguments,
        SendArguments,
        ListArguments,
        ResultArguments,
        ApproveArguments,
    )
    said = {
        field.alias or name: str(field.default).lower()
        for model in models
        for name, field in model.model_fields.items()
        if not field.is_required() and field.default
    }
    assert dict(re.findall(r"`(\w+)` (?:is )?`(\w+)`", line)) == said


def test_the_readme_names_every_resource_and_prompt():
    section = README.partition("## Resources and prompts\n")[2].partition("\n## ")[0]
    for template in TEMPLATES:
        assert f"`{template.uri_template.replace('{id}', 'ID')}`" in section
    for prompt in PROMPTS:
        assert f"`{prompt.name}`" in section
