"""The job feed of a whole engine: what its watchers cost it, and who may watch."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil
import pytest

from server.client.connect import RefusedError, connect_running, control
from server.client.wire import Hello, Role
from tests.support.engines import House, Pump, house
from tests.support.tokens import attempt_directory, running, token_of
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(300)

SECONDS = 60.0
MOST_GROWTH = 25_000_000
"""Bytes by which an engine may grow meanwhile: a page of each watcher, and what 400 more jobs leave behind."""


@pytest.fixture
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_MAX_CHILDREN="1000", CLAUDE_JOBS_MAX_RUNNING="20") as built:
        built.start_engine()
        yield built


@contextmanager
def watching(made: House) -> Iterator[socket.socket]:
    """Open a connection on which the feed can be asked for."""
    found = connect_running(made.endpoint, Hello(cwd="/", role=Role.CONTROL, client="test"))
    assert found is not None
    with socket.socket(fileno=found.detach()) as stream:
        stream.settimeout(SECONDS)
        yield stream


def asked(stream: socket.socket, **more: Any) -> None:
    stream.sendall(json.dumps({"do": "feed", **more}).encode() + b"\n")


def batch(person: Pump, jobs: int) -> None:
    assert person.json("claude_run_batch", tasks=["stub:say=ok"] * jobs)["results_summary"]["successful"] == jobs


def test_watchers_that_never_read_or_have_died_cost_the_engine_no_memory(made: House):
    engine = made.control("status")
    assert engine is not None
    process = psutil.Process(engine["pid"])
    with made.pump() as person, ExitStack() as stack:
        for _ in range(2):
            batch(person, 200)
        with watching(made) as dying:
            asked(dying)
        before = process.memory_info().rss
        for _ in range(20):
            deaf = stack.enter_context(watching(made))
            for _ in range(50):
                # The same from the beginning each time, which nobody reads.
                asked(deaf)
        for _ in range(2):
            batch(person, 200)
        assert process.memory_info().rss - before < MOST_GROWTH
        with watching(made) as other, other.makefile("rb") as lines:
            asked(other)
            assert json.loads(lines.readline())["ok"] is True


def test_the_engine_keeps_no_connection_of_a_watcher_that_has_died(made: House):
    with made.pump() as person:
        with watching(made) as stream, stream.makefile("rb") as lines:
            asked(stream)
            page = json.loads(lines.readline())
            asked(stream, cursor=page["cursor"])
        batch(person, 1)

        def is_gone() -> bool:
            status = made.control("status")
            return status is not None and status["connections"] == 2

        until_now(is_gone, SECONDS, "the end of the connection")


def test_a_job_may_not_watch(made: House):
    with made.pump() as person:
        job_id = person.json("claude_run_async", task=f"stub:wait={made.base}/gate")["jobId"]
        token = token_of(attempt_directory(made, running(person, job_id)))
        for request in ({"do": "feed"}, {"do": "job", "job": job_id}):
            with pytest.raises(RefusedError):
                control(made.endpoint, request, Hello(cwd="/", token=token, client="test"))
        (made.base / "gate").touch()
        person.settled(job_id)
