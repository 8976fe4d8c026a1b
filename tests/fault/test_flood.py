"""A client that sends and does not read: the engine takes no more than it can bear, and others are served meanwhile."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from server.client.wire import Hello
from tests.support.engines import House, house
from tests.support.waiting import until_now

CALLS = 2000
JOBS = 40
MOST_GROWTH = 100 * 2**20
"""Bytes by which the engine may grow; it grew by three times as much when nothing held such a client back."""

OTHERS = 10.0
"""Seconds for another client's call on a busy machine; it took 19 s and more."""

INFO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "flood", "version": "1"}}

pytestmark = pytest.mark.timeout(170)


@pytest.fixture(scope="module")
def stocked() -> Iterator[House]:
    """A house whose engine knows some jobs."""
    with house() as made:
        with made.pump() as pump:
            pump.text("claude_run_batch", tasks=["x"] * JOBS)
        yield made


@contextmanager
def silent_client(made: House) -> Iterator[socket.socket]:
    """A client on a bare connection, past the handshake, whose system keeps little of what it does not read."""
    with made.bare_connection(60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(Hello(cwd="/", client="flood").encode())
        say(connection, id="shake", method="initialize", params=INFO)
        say(connection, method="notifications/initialized")
        yield connection


def line(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def say(connection: socket.socket, **message: Any) -> None:
    connection.sendall(line(**message))


def tool(number: int, name: str, **arguments: Any) -> bytes:
    return line(id=number, method="tools/call", params={"name": name, "arguments": arguments})


def answers(connection: socket.socket, count: int) -> dict[Any, Any]:
    """Read until so many requests have their answers, and return these by their ids."""
    found: dict[Any, Any] = {}
    with connection.makefile("rb") as lines:
        while len(found) < count:
            message = json.loads(lines.readline())
            if "id" in message and "method" not in message:
                assert message["id"] not in found
                found[message["id"]] = message
    return found


def engine_of(made: House) -> psutil.Process:
    status = made.control("status")
    assert status is not None
    return psutil.Process(status["pid"])


def figure(made: House, name: str) -> int:
    status = made.control("status")
    assert status is not None
    return int(status[name])


def seconds_of_another_clients_call(made: House) -> float:
    with made.pump() as pump:
        since = time.monotonic()
        pump.json("claude_list_jobs")
        return time.monotonic() - since


def test_a_client_that_does_not_read_is_held_back_and_gets_every_answer_later(
    stocked: House, capsys: pytest.CaptureFixture[str]
):
    engine = engine_of(stocked)
    before = engine.memory_info().rss
    with silent_client(stocked) as flood:
        flood.sendall(b"".join(tool(number, "claude_list_jobs") for number in range(CALLS)))
        slowest = max(seconds_of_another_clients_call(stocked) for _ in range(3))
        growth = engine.memory_info().rss - before
        with capsys.disabled():
            print(f"\n  {CALLS} unread calls: {growth / 2**20:.0f} MB more, another client's slowest {slowest:.2f} s")
        assert growth < MOST_GROWTH
        assert slowest < OTHERS
        found = answers(flood, CALLS + 1)
        assert set(found) == {"shake", *range(CALLS)}
        assert all("result" in answer for answer in found.values())


def test_a_wait_is_cancelled_behind_replies_that_nobody_reads(stocked: House):
    with stocked.pump() as pump:
        job_id = pump.json("claude_run_async", task="stub:wait=/nonexistent")["jobId"]
    with silent_client(stocked) as flood:
        waits = 1000
        flood.sendall(b"".join(tool(number, "claude_wait", jobIds=[job_id]) for number in range(waits)))
        until_now(lambda: figure(stocked, "tasks") >= waits, 60.0, "every wait")
        flood.sendall(b"".join(tool(waits + number, "claude_list_jobs", limit=JOBS) for number in range(1000)))
        for number in range(waits):
            say(flood, method="notifications/cancelled", params={"requestId": number})
        until_now(lambda: figure(stocked, "tasks") < waits // 2, 60.0, "the end of the waits")
        # One that is not worked on yet is never answered either.
        say(flood, method="notifications/cancelled", params={"requestId": 2 * waits - 1})
        found = answers(flood, 1000)
        assert set(found) == {"shake", *range(waits, 2 * waits - 1)}


def test_a_client_that_reads_half_of_an_answer_and_dies_leaves_nothing(stocked: House):
    tasks, files = figure(stocked, "tasks"), engine_of(stocked).num_fds()
    with silent_client(stocked) as flood:
        flood.sendall(b"".join(tool(number, "claude_list_jobs", limit=JOBS) for number in range(CALLS)))
        flood.recv(5000)
    until_now(lambda: figure(stocked, "connections") <= 1, 60.0, "the end of the connection")
    until_now(lambda: figure(stocked, "tasks") <= tasks + 2, 60.0, "the end of its calls")
    assert engine_of(stocked).num_fds() <= files + 2


def test_a_long_reply_reaches_a_slow_reader_whole_while_others_are_served(stocked: House):
    with stocked.pump() as pump:
        word = "y" * 100_000
        job_id = pump.json("claude_run_async", task=f"stub:say={word}")["jobId"]
        pump.settled(job_id)
    with silent_client(stocked) as slow:
        slow.sendall(tool(1, "claude_result", jobId=job_id, limit=200_000))
        received = bytearray()
        slow.settimeout(30)
        assert seconds_of_another_clients_call(stocked) < OTHERS
        while b'"id":1' not in received or not received.endswith(b"\n"):
            received += slow.recv(2048)
        [reply] = [one for one in map(json.loads, received.splitlines()) if one.get("id") == 1]
        assert word in reply["result"]["content"][0]["text"]
