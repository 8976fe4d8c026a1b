"""A clean environment, a state directory with a path short enough for its socket, and commands before a real engine."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.cli.app import app
from tests.support.engines import House, at_work_below, house

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the person who runs the tests."""
    for name in [name for name in os.environ if name.startswith(("CLAUDE", "ANTHROPIC"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def home() -> Iterator[Path]:
    # Not tmp_path: its length would decide where the socket stands.
    base = Path(tempfile.mkdtemp(prefix="cj-")).resolve()
    yield base
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def quarters() -> Iterator[House]:
    with house() as made:
        yield made
    # What a test has started would outlive its directory.
    assert at_work_below(made.base) == []


@pytest.fixture
def invoke(quarters: House, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in the environment of the house."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "CLAUDE"))]:
        monkeypatch.delenv(name)
    for name, value in quarters.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(quarters.work)
    # In a context of its own, as a process has one: a command remembers whether it was asked for JSON.
    return lambda *arguments, **more: copy_context().run(CliRunner().invoke, app, list(arguments), **more)
