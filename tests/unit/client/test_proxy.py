"""The relay between a client on two pipes and engines on socket pairs, one after the other."""

import json
import os
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from server.client import proxy as module
from server.client.jsonrpc import INVALID_REQUEST, PARSE_ERROR
from server.client.pending_requests import GONE
from server.client.proxy import StdioProxy
from server.client.wire import ClientError
from tests.unit.client.test_pending_requests import INITIALIZE, INITIALIZED, call, line

SECONDS = 20.0


class Stage:
    """A relay on a thread; the test plays the client and every engine."""

    def __init__(self) -> None:
        self.source, self.client = os.pipe()
        received, self.sink = os.pipe()
        self.heard = os.fdopen(received, "rb", buffering=0)
        self.dials: list[Callable[[], socket.socket]] = []
        self.dialled = threading.Event()
        self.failure: BaseException | None = None
        self.connection, self.engine = self.pair()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        theirs.settimeout(SECONDS)
        return ours, theirs

    def next_engine(self) -> socket.socket:
        """Let the next dial succeed and return that engine's end."""
        ours, theirs = self.pair()
        self.dials.append(lambda: ours)
        return theirs

    def start(self) -> None:
        self.thread.start()

    def say(self, data: bytes) -> None:
        os.write(self.client, data)

    def hang_up(self) -> None:
        with suppress(OSError):
            os.close(self.client)

    def hears(self) -> Any:
        return json.loads(self.heard.readline())

    def _dial(self) -> socket.socket:
        self.dialled.set()
        if not self.dials:
            raise ConnectionRefusedError("no more engines")
        return self.dials.pop(0)()

    def _run(self) -> None:
        try:
            StdioProxy(self.source, self.sink, self._dial).run(self.connection)
        except (ClientError, OSError) as error:
            self.failure = error
        finally:
            os.close(self.sink)

    def ended(self) -> bool:
        self.thread.join(SECONDS)
        return not self.thread.is_alive()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.hang_up()
    made.engine.close()
    made.heard.close()
    assert made.ended()


def read(engine: socket.socket, count: int) -> bytes:
    with engine.makefile("rb") as reader:
        return b"".join(reader.readline() for _ in range(count))


def test_a_call_in_flight_is_asked_again_and_answered_once(stage: Stage):
    stage.start()
    stage.say(call(1))
    assert read(stage.engine, 1) == call(1)
    second = stage.next_engine()
    # Half an answer of the dead engine must not reach the client.
    stage.engine.sendall(b'{"jsonrpc":"2.0","id":1,"resu')
    stage.engine.close()
    assert read(second, 1) == call(1)
    second.sendall(line(id=1, result={"from": "second"}))
    assert stage.hears()["result"] == {"from": "second"}
    second.close()


def test_the_handshake_comes_first_and_its_second_answer_is_swallowed(stage: Stage):
    stage.start()
    stage.say(INITIALIZE)
    assert read(stage.engine, 1) == INITIALIZE
    stage.engine.sendall(line(id=0, result={"era": 1}))
    assert stage.hears()["result"] == {"era": 1}
    stage.say(INITIALIZED + call(1) + call(2))
    assert read(stage.engine, 3) == INITIALIZED + call(1) + call(2)
    second = stage.next_engine()
    stage.engine.close()
    assert read(second, 1) == INITIALIZE
    # Said before the second greeting was answered: it keeps its place behind the others.
    stage.say(call(3))
    second.sendall(line(id=0, result={"era": 2}))
    assert read(second, 4) == INITIALIZED + call(1) + call(2) + call(3)
    second.sendall(line(id=2, result={}))
    assert stage.hears()["id"] == 2
    second.close()


def test_a_subscription_is_made_again_before_the_next_engine_and_its_answer_is_swallowed(stage: Stage):
    stage.start()
    subscribe = line(id=1, method="resources/subscribe", params={"uri": "job://a"})
    for asked, key in ((INITIALIZE, 0), (INITIALIZED + subscribe, 1)):
        stage.say(asked)
        assert read(stage.engine, asked.count(b"\n")) == asked
        stage.engine.sendall(line(id=key, result={}))
        assert stage.hears()["id"] == key
    stage.engine.close()
    second = stage.next_engine()
    stage.say(call(2))
    assert read(second, 1) == INITIALIZE
    second.sendall(line(id=0, result={}))
    _, again, asked = read(second, 3).splitlines(keepends=True)
    assert (json.loads(again)["params"], asked) == ({"uri": "job://a"}, call(2))
    second.sendall(line(id=json.loads(again)["id"], result={}) + line(id=2, result={}))
    assert stage.hears() == json.loads(line(method="notifications/resources/updated", params={"uri": "job://a"}))
    assert stage.hears()["id"] == 2
    second.close()


def test_nobody_dials_for_a_client_that_waits_for_nothing(stage: Stage):
    stage.start()
    listen = line(id=9, method="subscriptions/listen", params={})
    stage.say(listen)
    assert read(stage.engine, 1) == listen
    stage.engine.close()
    second = stage.next_engine()
    assert not stage.dialled.is_set()
    stage.say(call(1))
    assert read(second, 2) == listen + call(1)
    second.close()


def test_a_client_that_leaves_while_an_engine_is_dialled_ends_the_relay_at_once(stage: Stage):
    late = threading.Event()
    refused = ConnectionRefusedError("late")

    def dial() -> socket.socket:
        late.wait(SECONDS)
        raise refused

    stage.dials.append(dial)
    stage.start()
    stage.say(call(1))
    assert read(stage.engine, 1) == call(1)
    stage.engine.close()
    assert stage.dialled.wait(SECONDS)
    stage.hang_up()
    stage.heard.close()
    assert stage.ended()
    late.set()


def test_a_request_cancelled_while_an_engine_is_dialled_is_not_asked_again(stage: Stage):
    ours, theirs = stage.pair()
    late = threading.Event()

    def dial() -> socket.socket:
        late.wait(SECONDS)
        return ours

    stage.dials.append(dial)
    stage.start()
    stage.say(call(1) + call(2))
    assert read(stage.engine, 2) == call(1) + call(2)
    stage.engine.close()
    assert stage.dialled.wait(SECONDS)
    stage.say(line(method="notifications/cancelled", params={"requestId": 1}) + call(3))
    # The pipe is empty once the relay has read it.
    while select.select([stage.source], [], [], 0)[0]:
        pass
    late.set()
    assert read(theirs, 2) == call(2) + call(3)
    theirs.close()


def test_without_another_engine_each_call_gets_an_error_and_the_next_call_dials_again(stage: Stage):
    stage.start()

    def refuse() -> socket.socket:
        raise ClientError("This job's token is not valid.")

    stage.dials.append(refuse)
    stage.say(call(1, "claude_wait"))
    assert read(stage.engine, 1)
    stage.engine.close()
    answer = stage.hears()
    assert (answer["id"], answer["error"]["code"]) == (1, GONE)
    assert "token is not valid" in answer["error"]["message"]
    assert "Repeat claude_wait" in answer["error"]["message"]
    second = stage.next_engine()
    stage.say(call(2))
    assert read(second, 1) == call(2)
    second.close()


def test_a_request_that_ends_every_engine_is_given_up(stage: Stage):
    stage.start()
    engines = [stage.engine, *(stage.next_engine() for _ in range(module.MAX_FAILED_ENGINES - 1))]
    stage.say(call(1))
    for engine in engines:
        assert read(engine, 1) == call(1)
        engine.close()
    assert f" {module.MAX_FAILED_ENGINES} engines in a row" in stage.hears()["error"]["message"]


def test_a_client_that_takes_little_at_a_time_gets_every_byte(stage: Stage):
    # As a client leaves it that shares its non-blocking end: writes are partial, then refused.
    os.set_blocking(stage.sink, False)
    os.set_blocking(stage.source, False)
    stage.start()
    payload = random.Random(7).randbytes(1_000_000) + b"\n"
    feeder = threading.Thread(target=stage.engine.sendall, args=(payload,))
    feeder.start()
    got = b""
    while len(got) < len(payload):
        got += os.read(stage.heard.fileno(), 1000 if len(got) < 50_000 else 65536)
    feeder.join(SECONDS)
    assert got == payload
    stage.say(INITIALIZED)
    assert read(stage.engine, 1) == INITIALIZED
    stage.hang_up()
    assert stage.engine.recv(1) == b""


def test_a_request_that_no_engine_would_take_is_refused_and_the_others_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "MAX_MESSAGE", 1000)
    stage.start()
    stage.say(call(1) + call(2, text="x" * 1000) + call(3))
    assert read(stage.engine, 2) == call(1) + call(3)
    answer = stage.hears()
    assert (answer["id"], answer["error"]["code"]) == (2, INVALID_REQUEST)
    assert "1000 bytes" in answer["error"]["message"]


@pytest.mark.parametrize(("begin", "end"), [(b'"id":7,', b""), (b"", b',"id":7')], ids=["begins", "ends"])
def test_a_line_that_is_far_too_long_is_refused_by_its_id_and_the_conversation_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, begin: bytes, end: bytes
):
    monkeypatch.setattr(module, "MAX_MESSAGE", 100_000)
    stage.start()
    long = b'{"jsonrpc":"2.0",%b"method":"x","params":{"a":"%b"}%b}\n' % (begin, b"x" * 500_000, end)
    feeder = threading.Thread(target=lambda: suppress_write(stage, long + call(8)), daemon=True)
    feeder.start()
    answer = stage.hears()
    assert (answer["id"], answer["error"]["code"]) == (7, INVALID_REQUEST)
    assert read(stage.engine, 1) == call(8)
    feeder.join(SECONDS)
    # What the client may send, an engine may answer: too long a reply ends nothing either.
    stage.engine.sendall(b'{"jsonrpc":"2.0","id":8,"result":{"a":"%b"}}\n' % (b"x" * 500_000))
    answer = stage.hears()
    assert (answer["id"], answer["error"]["code"]) == (8, GONE)


@pytest.mark.parametrize(("odd", "code"), [(b"no json\n", PARSE_ERROR), (b"[]\n", INVALID_REQUEST)])
def test_what_is_no_message_is_answered_also_where_there_is_no_engine(stage: Stage, odd: bytes, code: int):
    stage.start()
    stage.engine.close()
    stage.say(b"\n" + odd)
    answer = stage.hears()
    assert (answer["id"], answer["error"]["code"]) == (None, code)
    assert not stage.dialled.is_set()


def test_requests_in_flight_are_answered_after_the_end_of_the_input(stage: Stage):
    stage.start()
    stage.say(call(1) + call(2).rstrip(b"\n"))
    stage.hang_up()
    # The last line counts without its newline, too.
    assert read(stage.engine, 2) == call(1) + call(2)
    stage.engine.sendall(line(id=2, result={}))
    assert stage.hears()["id"] == 2
    stage.engine.sendall(line(id=1, result={}))
    assert stage.hears()["id"] == 1
    assert stage.engine.recv(1) == b""
    stage.engine.close()
    assert stage.ended()


def test_what_an_engine_that_died_owes_after_the_end_of_the_input_the_next_one_is_asked(stage: Stage):
    stage.start()
    second = stage.next_engine()
    stage.say(call(1))
    stage.hang_up()
    assert read(stage.engine, 1) == call(1)
    stage.engine.close()
    assert read(second, 1) == call(1)
    second.sendall(line(id=1, result={}))
    assert stage.hears()["id"] == 1
    second.close()
    assert stage.ended()


def test_a_call_that_blocks_after_the_end_of_the_input_gets_an_error_at_the_bound(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "END_SECONDS", 0.05)
    stage.start()
    stage.say(call(1, "claude_run"))
    stage.hang_up()
    answer = stage.hears()
    assert (answer["id"], answer["error"]["code"]) == (1, GONE)
    assert "claude_run was not over" in answer["error"]["message"]
    assert "claude_list_jobs" in answer["error"]["message"]
    assert read(stage.engine, 1)
    # What the engine says of a client that has hung up is no second answer.
    stage.engine.sendall(line(id=1, error={"code": GONE, "message": "Connection closed"}))
    # An engine that does not close its end keeps nobody.
    assert stage.ended()
    assert stage.heard.readline() == b""


def test_nobody_waits_for_a_client_that_is_gone_altogether(stage: Stage):
    stage.start()
    stage.say(call(1))
    assert read(stage.engine, 1) == call(1)
    stage.hang_up()
    stage.heard.close()
    assert stage.engine.recv(1) == b""
    stage.engine.close()
    assert stage.ended()


def suppress_write(stage: Stage, data: bytes) -> None:
    with suppress(OSError):
        while data:
            data = data[os.write(stage.client, data) :]
