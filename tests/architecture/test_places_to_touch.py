"""How many files say the name of one thing: what is added like it is written in as many places."""

import re

import pytest

from tests.support.sources import relative, sources

OPTION = {"jobs/spec.py", "server/mcp/arguments.py", "server/cli/task_options.py"}
"""What a job is asked, what a model can say, and what a person can say."""


def naming(*names: str) -> set[str]:
    """Return the files of the packages in which one of these words stands."""
    words = re.compile(rf"\b(?:{'|'.join(names)})\b")
    return {relative(path) for path in sources() if words.search(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("names", [("effort",), ("append_system_prompt", "appendSystemPrompt")])
def test_an_option_that_is_passed_on_is_named_in_three_files(names: tuple[str, ...]):
    assert naming(*names) == OPTION


def test_a_tool_is_named_in_two_files():
    # Others are named in the texts of errors too.
    assert naming("claude_dashboard") == {"server/mcp/statistics.py", "server/cli/app.py"}


@pytest.mark.parametrize("name", ["linger_seconds", "max_task_chars", "trusted_directories", "wait_seconds"])
def test_a_setting_is_named_in_one_file_and_where_it_is_used(name: str):
    assert "jobs/settings.py" in naming(name)
    assert len(naming(name)) == 2
