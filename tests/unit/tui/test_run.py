"""How the view is put together: which tree its feed is about, and what it says about itself to the engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import prepare
from server.client.wire import ClientError
from server.tui.app import TopApp
from server.tui.run import run_view
from tests.unit.tui.played_engine import SECONDS, PlayedEngine, played_engine

World = tuple[EngineEndpoint, PlayedEngine, list[TopApp]]


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    paths = prepare(home / "state")
    ran: list[TopApp] = []

    def run(app: TopApp, **_: Any) -> None:
        ran.append(app)

    monkeypatch.setattr(TopApp, "run", run)
    with played_engine(paths) as engine:
        yield EngineEndpoint(paths=paths, environ={}, timeout=SECONDS), engine, ran


def test_without_an_id_the_feed_is_about_every_tree(world: World):
    endpoint, engine, ran = world
    run_view(endpoint, {}, None)
    [app] = ran
    assert app.link is not None
    assert app.link.tree is None
    assert engine.hellos == []


def test_of_a_job_the_feed_is_about_its_tree_also_where_that_has_ended_long_ago(world: World):
    endpoint, engine, ran = world
    engine.job = {"ok": True, "jobId": "j5", "rootId": "b1"}
    run_view(endpoint, {"CLAUDE_JOBS_MAX_JOBS": "3", "HOME": "/h"}, "j5")
    [app] = ran
    assert app.link is not None
    assert app.link.tree == "b1"
    [hello] = engine.hellos
    assert hello["client"] == "claude-jobs top"
    assert hello["settings"] == {"CLAUDE_JOBS_MAX_JOBS": "3"}


def test_a_job_that_cannot_be_read_is_an_error_before_the_view_opens(world: World):
    endpoint, engine, ran = world
    engine.job = {"ok": False, "error": "No job j5."}
    with pytest.raises(ClientError, match="No job j5"):
        run_view(endpoint, {}, "j5")
    assert ran == []


def test_a_terminal_without_utf_8_gets_characters_of_ascii(world: World):
    endpoint, _, ran = world
    run_view(endpoint, {"LC_ALL": "C"}, None)
    run_view(endpoint, {"LC_ALL": "C.UTF-8"}, None)
    plain, full = (len(app.get_line_filters()) for app in ran)
    assert plain == full + 1
