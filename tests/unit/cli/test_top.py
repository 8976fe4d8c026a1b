"""`claude-jobs top` up to the view: where it refuses, and what the view is given."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer import Exit

from server.cli import top as command
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import prepare
from server.tui import run
from tests.unit.conftest import Invoke
from tests.unit.tui.played_engine import PlayedEngine, played_engine


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedEngine]:
    paths = prepare(home / "state")
    monkeypatch.setenv("CLAUDE_JOBS_HOME", paths.directory)
    with played_engine(paths) as made:
        yield made


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command take its streams for a terminal."""
    # Not `sys` itself: pytest sets its streams again before each phase of a test.
    monkeypatch.setattr(command, "sys", SimpleNamespace(stdin=Terminal(), stderr=Terminal()))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(command, "out", Console(file=Terminal()))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[EngineEndpoint, str | None]]:
    """What the view was started with."""
    started: list[tuple[EngineEndpoint, str | None]] = []
    monkeypatch.setattr(run, "run_view", lambda endpoint, _, under: started.append((endpoint, under)))
    return started


def test_without_a_terminal_it_names_the_commands_that_print_jobs(invoke: Invoke):
    done = invoke("top")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "`claude-jobs tree` prints the jobs" in done.stderr


@pytest.mark.usefixtures("terminal")
def test_in_a_terminal_every_tree_is_shown(engine: PlayedEngine, shown: list[tuple[EngineEndpoint, str | None]]):
    command.top(None)
    [(endpoint, under)] = shown
    assert under is None
    # An engine was reached before the view took the terminal.
    assert len(engine.hellos) == 1
    assert endpoint.paths.directory


@pytest.mark.usefixtures("terminal")
def test_the_beginning_of_an_id_is_enough(engine: PlayedEngine, shown: list[tuple[EngineEndpoint, str | None]]):
    engine.ids = ["j1234"]
    command.top("j12")
    assert [under for _, under in shown] == ["j1234"]


@pytest.mark.usefixtures("terminal")
def test_an_unknown_id_is_refused_while_there_is_a_plain_terminal(
    engine: PlayedEngine, shown: list[tuple[EngineEndpoint, str | None]]
):
    with pytest.raises(Exit) as ended:
        command.top("jnone")
    assert ended.value.exit_code == 1
    assert shown == []
    assert len(engine.hellos) == 1


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("missing", ["textual", "textual.app"])
def test_without_textual_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, missing: str):
    said: list[str] = []

    def noted(error: object) -> Any:
        said.append(str(error))
        raise Exit(1)

    monkeypatch.setattr(command, "fail", noted)
    monkeypatch.delitem(sys.modules, "server.tui.run")
    monkeypatch.setattr(sys, "meta_path", [Without(missing), *sys.meta_path])
    with pytest.raises(Exit):
        command.top(None)
    assert "pip install 'textual>=8,<9'" in said[0]


@pytest.mark.usefixtures("terminal")
def test_another_module_that_is_missing_is_no_matter_of_textual(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "server.tui.run")
    monkeypatch.setattr(sys, "meta_path", [Without("sqlite3"), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError):
        command.top(None)


class Without:
    """Finds no module of the view: one of its imports is missing.

    Args:
        missing: The module that it imports.
    """

    def __init__(self, missing: str) -> None:
        self._missing = missing

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "server.tui.run":
            raise ModuleNotFoundError(f"No module named {self._missing!r}", name=self._missing)
