"""A thousand clients wait for jobs; a tenth of them vanish; the rest are woken, and nothing is left of any."""

import json
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from server.client.wire import Hello
from server.engine.listener import allow_many_files
from tests.support.engines import House, house
from tests.support.waiting import until_now

CLIENTS = 1000
JOBS = 10
LEAVING = 10
"""One client in so many vanishes."""

INFO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "crowd", "version": "1"}}


@pytest.fixture
def crowded() -> Iterator[House]:
    """A house whose engine was started with the usual limit of open files; ours is lifted after that."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = min(1024, limits[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (usual, limits[1]))
    try:
        with house() as made:
            with made.pump() as pump:
                pump.json("claude_list_jobs")
            if allow_many_files() < CLIENTS + usual:
                pytest.skip("the system lets no process have so many sockets")
            yield made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def waiter(made: House, job_id: str) -> socket.socket:
    """A client on a bare connection that has asked to be told of a job's end."""
    connection = made.bare_connection(60)
    connection.sendall(Hello(cwd="/", client="crowd").encode())
    say(connection, id=0, method="initialize", params=INFO)
    say(connection, method="notifications/initialized")
    say(connection, id=1, method="tools/call", params={"name": "claude_wait", "arguments": {"jobIds": [job_id]}})
    return connection


def say(connection: socket.socket, **message: Any) -> None:
    connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def woken_at(connection: socket.socket) -> float:
    """Read up to the answer of the wait and return when it was there, in seconds since the epoch."""
    with connection.makefile("rb") as lines:
        for line in lines:
            if json.loads(line).get("id") == 1:
                return time.time()
    raise EOFError("the engine closed the connection")


@pytest.mark.timeout(170)
def test_clients_that_vanish_disturb_nobody(crowded: House, capsys: pytest.CaptureFixture[str]):
    gates = [crowded.base / f"gate{index}" for index in range(JOBS)]
    with crowded.pump() as pump:
        batch = pump.json("claude_run_batch_async", tasks=[f"stub:wait={gate}" for gate in gates])
        job_ids = batch["jobIds"]
        status = crowded.control("status")
        assert status is not None
        engine = psutil.Process(status["pid"])
        before, tasks = engine.num_fds(), status["tasks"]
        crowd = [waiter(crowded, job_ids[index % JOBS]) for index in range(CLIENTS)]
        until_now(lambda: connections(crowded) >= CLIENTS, 60, "every client")
        # Each job loses one in ten of those who wait for it.
        stayed = [(index % JOBS, one) for index, one in enumerate(crowd) if index // JOBS % LEAVING]
        for index, one in enumerate(crowd):
            if not index // JOBS % LEAVING:
                one.close()
        until_now(lambda: connections(crowded) <= len(stayed) + 2, 60, "the end of a tenth")
        seconds: list[float] = []
        for number, gate in enumerate(gates):
            gate.touch()
            arrivals = [woken_at(one) for which, one in stayed if which == number]
            seconds += [arrival - ended_at(crowded, batch["batchId"], job_ids[number]) for arrival in arrivals]
        for _, one in stayed:
            one.close()
        until_now(lambda: connections(crowded) <= 2, 60, "the end of the others")
        assert engine.num_fds() <= before + 3
        after = crowded.control("status")
        assert after is not None
        assert after["tasks"] <= tasks + 3
        assert [pump.json("claude_status", jobId=each)["status"] for each in job_ids] == ["completed"] * JOBS
    seconds.sort()
    with capsys.disabled():
        print(
            f"\n  {CLIENTS} waiting for {JOBS} jobs, {CLIENTS - len(stayed)} vanished; wake-up median "
            f"{statistics.median(seconds) * 1000:.0f} ms, p99 {seconds[len(seconds) * 99 // 100] * 1000:.0f} ms"
        )
    assert len(seconds) == len(stayed)


def connections(made: House) -> int:
    status = made.control("status")
    assert status is not None
    return int(status["connections"])


def ended_at(made: House, batch_id: str, job_id: str) -> float:
    """When the job's process was over, by the file that its shim writes last."""
    return (made.paths.trees / batch_id / job_id / "1" / "lock").stat().st_mtime
