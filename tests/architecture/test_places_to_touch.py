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
