"""Prompts that show a model how to use the tools."""

import re
from pathlib import Path

import pytest
from mcp import MCPError
from mcp_types import TextContent

from server.mcp.initialize import INSTRUCTIONS
from server.mcp.tools import BY_NAME
from tests.unit.mcp.world import ERAS, world

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("era", ERAS)
async def test_both_prompts_are_filled_in_and_name_tools_that_there_are(home: Path, era: str):
    async with world(home) as here, here.client(mode=era) as client:
        listed = (await client.list_prompts()).prompts
        assert [prompt.name for prompt in listed] == ["fan_out", "map_reduce"]
        for prompt in listed:
            arguments = {argument.name: f"<{argument.name}>" for argument in prompt.arguments or ()}
            [message] = (await client.get_prompt(prompt.name, arguments)).messages
            assert isinstance(message.content, TextContent)
            text = message.content.text
            assert all(value in text for value in arguments.values())
            assert set(re.findall(r"claude_[a-z_]+", text)) <= set(BY_NAME)
            assert "claude_wait" in text


@pytest.mark.parametrize(
    "parts", ["the roof\nthe cellar\n", '["the roof", "the cellar"]', "- the roof\n\n- the cellar"]
)
async def test_parts_are_rendered_a_line_each_however_they_are_given(home: Path, parts: str):
    async with world(home) as here, here.client() as client:
        [message] = (await client.get_prompt("fan_out", {"goal": "Inspect the house", "parts": parts})).messages
        assert isinstance(message.content, TextContent)
        text = message.content.text
        assert "\n   - the roof\n   - the cellar\n" in text
        assert "1. Its parts are these:" in text
        [message] = (await client.get_prompt("fan_out", {"goal": "Inspect the house"})).messages
        assert isinstance(message.content, TextContent)
        assert "1. Divide it into independent parts. Keep" in message.content.text
        assert not re.search(r" [.:] | \n|\n\.", message.content.text + text)


async def test_braces_in_an_argument_are_text(home: Path):
    async with world(home) as here, here.client() as client:
        [message] = (await client.get_prompt("map_reduce", {"goal": "{0}", "items": "{x}"})).messages
        assert isinstance(message.content, TextContent)
        assert "{0}" in message.content.text
        assert "{{results.KEY}}" in message.content.text


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [("dance", {}, "There are: fan_out, map_reduce"), ("map_reduce", {"goal": "x"}, "map_reduce needs: items")],
)
async def test_a_prompt_that_cannot_be_given_says_why(home: Path, era: str, name: str, arguments: dict, words: str):
    async with world(home) as here, here.client(mode=era) as client:
        with pytest.raises(MCPError, match=words):
            await client.get_prompt(name, arguments)


def test_the_instructions_name_tools_that_there_are():
    assert set(re.findall(r"claude_[a-z_]+", INSTRUCTIONS)) <= set(BY_NAME)
    assert len(INSTRUCTIONS.encode()) < 2048
