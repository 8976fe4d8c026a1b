"""The connection of the view before engines that the test plays: pages, ends of engines, and what a person reads."""

import queue
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from server.client.connect import connect
from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths, prepare
from server.client.wire import ClientError, Hello, Welcome
from server.tui import engine_link
from server.tui.engine_link import CRASHED, OLDER, STOPPED, EngineLink
from tests.support.waiting import until_now
from tests.unit.tui.played_engine import SECONDS, PlayedEngine
from tests.unit.tui.stand_in import page, row


class World:
    """A link, what it has brought, and engines that come and go.

    Attributes:
        started: How many engines were started for it.
    """

    def __init__(self, paths: StatePaths, stack: ExitStack) -> None:
        self.paths = paths
        self.arrived: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self.said: queue.Queue[str] = queue.Queue()
        self.link = EngineLink(
            EngineEndpoint(paths=paths, environ={}, timeout=SECONDS),
            Hello(cwd="/", client="a test"),
            self.arrived.put,
            self.said.put,
        )
        self.started = 0
        self._stack = stack

    def engine(self) -> PlayedEngine:
        engine = PlayedEngine(self.paths)
        self._stack.callback(engine.stop)
        return engine

    def start(self, endpoint: EngineEndpoint, hello: Hello) -> tuple[Any, Any]:
        """What stands for a start: the next engine, played too."""
        self.last = self.engine()
        self.started += 1
        return connect(endpoint, hello)

    def told(self, *expected: str) -> None:
        """Wait for these states, one after the other."""
        for words in expected:
            assert self.said.get(timeout=SECONDS) == words

    def told_at_last(self, words: str) -> None:
        while self.said.get(timeout=SECONDS) != words:
            pass


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(engine_link, "LOOK_AGAIN_SECONDS", 0.01)
    with ExitStack() as stack:
        made = World(prepare(home / "state"), stack)
        monkeypatch.setattr(engine_link, "connect", made.start)
        stack.callback(made.link.close)
        yield made


def answered(*rows: Mapping[str, Any], cursor: str) -> dict[str, Any]:
    return page(*rows, ok=True, cursor=cursor)


def test_each_page_is_asked_for_from_where_the_one_before_ended(world: World):
    engine = world.engine()
    for number in range(3):
        engine.pages.put(answered(row(number), cursor=f"c{number}"))
    world.link.open()
    assert [world.arrived.get(timeout=SECONDS)["jobs"][0]["jobId"] for _ in range(3)] == ["j0", "j1", "j2"]
    until_now(lambda: len(engine.feeds) == 4, SECONDS, "the next request")
    assert engine.feeds == [{"do": "feed"}, *[{"do": "feed", "cursor": f"c{number}"} for number in range(3)]]
    assert engine.hellos[0]["role"] == "control"
    world.told("")
    assert world.said.empty()
    assert world.started == 0


def test_a_tree_that_is_shown_alone_is_named_in_each_request(world: World):
    engine = world.engine()
    world.link.tree = "b1"
    engine.pages.put(answered(cursor="c"))
    world.link.open()
    until_now(lambda: len(engine.feeds) == 2, SECONDS, "the next request")
    assert [one["tree"] for one in engine.feeds] == ["b1", "b1"]


def test_an_engine_is_started_at_first_and_after_a_stop_only_when_that_is_asked_for(world: World):
    world.link.open()
    until_now(lambda: world.started == 1, SECONDS, "the start")
    world.last.pages.put(answered(row(0), cursor="c"))
    world.told("")
    world.last.stop()
    world.told(STOPPED, STOPPED)
    assert world.started == 1
    world.link.start_engine()
    until_now(lambda: world.started == 2, SECONDS, "the next start")
    # From the beginning: the next engine knows nothing of the cursor.
    until_now(lambda: world.last.feeds == [{"do": "feed"}], SECONDS, "a request")
    world.last.pages.put(answered(row(0), cursor="c"))
    world.told_at_last("")


def test_an_engine_that_was_killed_is_started_again_unasked_and_no_system_error_is_shown(world: World):
    world.link.open()
    until_now(lambda: world.started == 1, SECONDS, "the start")
    world.last.pages.put(answered(row(0), cursor="c"))
    world.told("")
    world.last.die()
    until_now(lambda: world.started == 2, SECONDS, "the next start")
    world.last.pages.put(answered(row(0), cursor="c"))
    world.told(CRASHED, "")


def test_an_engine_without_the_feed_is_said_to_be_older_and_how_to_end_it(world: World):
    world.engine().pages.put({"ok": False, "error": "Unknown request 'feed'."})
    world.link.open()
    world.told(OLDER)


def test_what_the_engine_says_of_its_trouble_is_shown_and_it_is_asked_again(world: World):
    engine = world.engine()
    engine.pages.put({"ok": False, "error": "The disk is full."})
    engine.pages.put(answered(row(0), cursor="c"))
    world.link.open()
    world.told("The disk is full.", "")
    assert world.arrived.get(timeout=SECONDS)["cursor"] == "c"


def test_an_engine_that_does_not_answer_is_named_with_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_link, "ANSWER_SECONDS", 0.05)
    world.engine()
    world.link.open()
    said = world.said.get(timeout=SECONDS)
    assert "did not answer within" in said
    assert "claude-jobs engine stop" in said


def test_a_link_that_is_closed_while_the_engine_is_silent_hangs_up(world: World):
    engine = world.engine()
    world.link.open()
    until_now(lambda: bool(engine.feeds), SECONDS, "a request")
    world.link.close()
    engine.pages.put(answered(row(0), cursor="c"))
    # Served to the end of its connection, and nobody came back.
    until_now(engine.pages.empty, SECONDS, "the answer")
    engine.stop()
    assert len(engine.hellos) == 1
    assert world.arrived.empty()


def test_everything_about_a_job_is_one_request(world: World):
    world.engine().job = {"ok": True, "jobId": "j1", "task": "whole"}
    assert world.link.details("j1")["task"] == "whole"


@pytest.mark.parametrize("running", [True, False])
def test_details_that_cannot_be_had_say_why(world: World, running: bool):
    if running:
        world.engine().job = {"ok": False, "error": "No job j1."}
    with pytest.raises(ClientError) as refused:
        world.link.details("j1")
    assert str(refused.value) == ("No job j1." if running else STOPPED)


def test_a_half_answer_counts_as_none(world: World):
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(world.paths.address)
        listener.listen()
        world.link.open()
        stream, _ = listener.accept()
        with stream, stream.makefile("rb") as lines:
            lines.readline()
            stream.sendall(Welcome(pid=1).encode())
            lines.readline()
            stream.sendall(b'{"ok":true,"cursor":"c","jobs"')
    world.paths.socket.unlink()
    world.told(STOPPED)
    assert world.arrived.empty()


def test_an_engine_that_dies_with_a_request_unread_is_no_system_error(world: World):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(world.paths.address)
        listener.listen()
        world.link.open()
        stream, _ = listener.accept()
        with stream:
            while not stream.recv(1).endswith(b"\n"):
                pass
            stream.sendall(Welcome(pid=1).encode())
            select.select([stream], [], [], SECONDS)
    world.told(CRASHED)
    until_now(lambda: world.started == 1, SECONDS, "the next start")


def test_an_engine_that_does_not_greet_is_named_with_what_to_do(world: World):
    endpoint = EngineEndpoint(paths=world.paths, environ={}, timeout=0.05)
    link = EngineLink(endpoint, Hello(cwd="/"), world.arrived.put, world.said.put)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(world.paths.address)
        listener.listen()
        link.open()
        assert "did not answer within 0.05 s" in world.said.get(timeout=SECONDS)
        link.close()
