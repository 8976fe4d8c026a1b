"""What ten open pages cost the engine while a batch of 200 jobs runs: with their streams, and without.

Each reader takes the stream of a page at its tree, as the browser does. The share of a core is the engine's alone.
"""

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection

from tests.benchmarks.watched import ROOMY, Onlooker, engine_of, told, with_chatty_jobs
from tests.support.engines import House, Pump, house
from tests.support.waiting import until_now

BATCH = 200
PAGES = 10
ROUNDS = 6


def let_in(made: House) -> tuple[int, str]:
    """Return the port of the page and a cookie for it."""
    answer = made.control("web")
    assert answer is not None
    connection = HTTPConnection("127.0.0.1", answer["port"])
    with closing(connection):
        connection.request("GET", answer["url"].partition(str(answer["port"]))[2])
        reply = connection.getresponse()
        assert reply.status == 200
        return answer["port"], str(reply.getheader("set-cookie")).partition(";")[0]


@contextmanager
def watched(port: int, cookie: str, root_id: str) -> Iterator[list[int]]:
    """Read the streams of ten pages at one tree, and count the pages of the feed that each has got."""
    counts = [0] * PAGES
    request = f"GET /api/feed?tree={root_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n"
    streams = [socket.create_connection(("127.0.0.1", port)) for _ in range(PAGES)]

    def follow(number: int) -> None:
        streams[number].sendall(request.encode())
        # The end of the block resets it.
        with suppress(OSError), streams[number].makefile("rb") as lines:
            for line in lines:
                counts[number] += line.startswith(b"event: page")

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(PAGES)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        for stream in streams:
            stream.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for stream in streams:
            stream.close()


def spent_on(
    client: Pump, engine: Onlooker, page: tuple[int, str] | None, tasks: list[str]
) -> tuple[float, float, int]:
    """Run a batch with or without pages; return the engine's CPU seconds, how long it took, and the fewest pages."""
    before, began = engine.spent().cpu, time.monotonic()
    batch = client.json("claude_run_batch_async", tasks=tasks)["batchId"]
    if page is None:
        _until_over(client, batch)
        return engine.spent().cpu - before, time.monotonic() - began, 0
    with watched(*page, batch) as counts:
        _until_over(client, batch)
        spent = engine.spent().cpu - before, time.monotonic() - began
    return *spent, min(counts)


def _until_over(client: Pump, batch: str) -> None:
    until_now(lambda: not client.json("claude_wait", batchId=batch, timeoutSeconds=60).get("pending"), 300, batch)


def compared(made: House, name: str, tasks: list[str]) -> None:
    """Run a batch alternately with ten pages and with none, and tell what the pages cost."""
    engine = engine_of(made)
    page = let_in(made)
    with made.pump() as client:
        spent_on(client, engine, None, tasks)
        alone, beside, shares, pages = [], [], [], []
        for turn in range(ROUNDS):
            engine.quiet()
            alone.append(spent_on(client, engine, None, tasks)[0])
            engine.quiet()
            cpu, took, got = spent_on(client, engine, page, tasks)
            pages.append(got)
            beside.append(cpu)
            shares.append((cpu - alone[turn]) / took)
        share, ratio = statistics.median(shares), statistics.median(beside) / statistics.median(alone)
        told(name, f"{share * 100:.1f} % of a core, {ratio:.2f} of the CPU without, {min(pages)} pages", "< 2 %")


def test_ten_pages_beside_200_jobs_of_three_seconds():
    with house(**{**ROOMY, "CLAUDE_JOBS_MAX_RUNNING": "200", "CLAUDE_JOBS_MAX_STARTING": "200"}) as made:
        compared(made, f"{PAGES} pages beside {BATCH} jobs of 3 s", ["stub:sleep=3"] * BATCH)


def test_ten_pages_beside_60_running_jobs_that_call_a_tool_each_second():
    with house(**ROOMY) as made:
        name = f"{PAGES} pages beside 60 jobs that call a tool each second"
        compared(with_chatty_jobs(made), name, ["hello"] * 60)
