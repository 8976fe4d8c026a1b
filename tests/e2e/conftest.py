"""Fixtures for tests with the real `claude` binary."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest

from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import PrintRun, find_cli, run_claude


class RunPrint(Protocol):
    """`run_print(task, story=...)`: run the real `claude -p` on a task."""

    def __call__(
        self,
        task: str,
        *,
        story: Story | ScriptedApi,
        args: Sequence[str] = (),
        mcp_config: Mapping[str, Any] | None = None,
    ) -> PrintRun: ...


@pytest.fixture(scope="session")
def claude_cli() -> Path:
    """Return the real binary; without one the test is skipped."""
    cli = find_cli()
    if cli is None:
        pytest.skip("no claude binary: install the extra `claude-jobs[cli]`, or set CLAUDE_JOBS_CLI to its path")
    assert os.access(cli, os.X_OK), f"{cli} cannot be executed; repair CLAUDE_JOBS_CLI"
    return cli


@pytest.fixture
def scripted() -> Iterator[Callable[[Story], ScriptedApi]]:
    """Return a function that serves a story until the test is over."""
    with ExitStack() as stack:
        yield lambda story: stack.enter_context(ScriptedApi(story))


@pytest.fixture
def run_print(claude_cli: Path, scripted: Callable[[Story], ScriptedApi], tmp_path: Path) -> RunPrint:
    """Return a function that runs the binary with a home of its own; pass an API to look at it afterwards."""
    numbers = count()

    def run(
        task: str,
        *,
        story: Story | ScriptedApi,
        args: Sequence[str] = (),
        mcp_config: Mapping[str, Any] | None = None,
    ) -> PrintRun:
        api = scripted(story) if isinstance(story, Story) else story
        directory = tmp_path / f"run{next(numbers)}"
        return run_claude(claude_cli, task, api=api, directory=directory, args=args, mcp_config=mcp_config)

    return run
