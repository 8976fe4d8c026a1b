"""Whole answers out of pages, as `claude_result` makes them."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from server.cli import answers
from server.cli.answers import whole_answer
from server.client.tool_client import Client
from server.mcp import replies
from server.mcp.tools import MAX_RESULT_CHARS


class Engine:
    """Answers `claude_result` with pages of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[int] = []

    def call(self, tool: str, arguments: Mapping[str, Any]) -> str:
        assert tool == "claude_result"
        self.asked.append(arguments["offset"])
        where, asked = "/trees/t/j1/1/out", f"jobId {arguments['jobId']!r}"
        return replies.page(self.text, offset=arguments["offset"], limit=arguments["limit"], asked=asked, where=where)


NOTE = replies.page("0123456789" * 3, offset=0, limit=10, asked="jobId 'j2'", where="/trees/t/j2/1/out")


@pytest.mark.parametrize(
    ("text", "pages"),
    [("", 1), ("abc", 1), ("0123456789", 1), ("0123456789a", 2), ("0123456789" * 2, 2), ("a\nb\n\n" * 9, 5), (NOTE, 8)],
)
def test_pages_are_put_together_to_the_whole_answer(monkeypatch: pytest.MonkeyPatch, text: str, pages: int):
    monkeypatch.setattr(answers, "PAGE_CHARS", 10 if text != NOTE else len(NOTE) // 8)
    engine = Engine(text)
    assert whole_answer(cast(Client, engine), "j1") == text
    assert len(engine.asked) == pages


def test_an_answer_that_ends_as_a_page_does_is_one_page(monkeypatch: pytest.MonkeyPatch):
    engine = Engine(NOTE)
    assert whole_answer(cast(Client, engine), "j1") == NOTE
    assert engine.asked == [0]


def test_a_page_is_no_longer_than_the_tool_grants():
    assert answers.PAGE_CHARS <= MAX_RESULT_CHARS
