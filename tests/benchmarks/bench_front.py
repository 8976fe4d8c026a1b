"""What a client feels: the first reply, submissions and questions, alone and beside a storm; and an idle engine."""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from server.client.connect import pump_command
from tests.benchmarks.bench_engine import xargs
from tests.benchmarks.watched import ROOMY, Onlooker, engine_of, fork_server_of, median_ms, run_batch, told
from tests.support.engines import MAIN, House, Pump, house

BATCH = 200
ROUNDS = 5
IDLE_SECONDS = 10.0
WARM_STARTS = 15
COLD_STARTS = 3


@pytest.fixture
def roomy() -> Iterator[House]:
    """A house whose limits hold nothing back."""
    with house(**ROOMY) as built:
        yield built


def test_a_batch_of_two_hundred_jobs_until_the_engine_is_quiet(roomy: House):
    engine = engine_of(roomy)
    plain, ours = [], []
    with roomy.pump() as client:
        for _ in range(2):
            run_batch(client, ["hello"] * BATCH)
        engine.quiet()
        helper = fork_server_of(engine)
        helped = helper.spent().cpu if helper else 0.0
        for turn in range(ROUNDS):
            plain.append(xargs(roomy.base / f"xargs{turn}", BATCH))
            before = engine.spent()
            ours.append(run_batch(client, ["hello"] * BATCH))
            after = engine.quiet()
            cpu, switches = after.cpu - before.cpu, after.voluntary - before.voluntary
            told("engine, submit until quiet", f"{cpu / BATCH * 1e3:.2f} ms CPU a job", "<= 2.5 ms")
            told("engine, submit until quiet", f"{switches / BATCH:.1f} voluntary switches a job", "<= 10")
    if helper:
        told("fork server", f"{(helper.spent().cpu - helped) / ROUNDS / BATCH * 1e3:.2f} ms CPU a job", "none")
    mine, bare = statistics.median(ours), statistics.median(plain)
    told(f"{BATCH} jobs beside xargs", f"{bare / mine:.2f} ({BATCH / mine:.0f}/s of {BATCH / bare:.0f}/s)", ">= 0.6")


def test_sixty_jobs_of_one_second(roomy: House):
    engine_of(roomy)
    with roomy.pump() as client:
        run_batch(client, ["hello"] * 60)
        told("60 jobs of one second", f"{run_batch(client, ['stub:sleep=1'] * 60):.2f} s", "<= 1.2 s")


def test_a_submission_and_a_status_on_an_idle_engine_and_beside_a_storm(roomy: House):
    engine = engine_of(roomy)
    with roomy.pump() as client, roomy.pump() as other:
        job = client.json("claude_run_async", task="hello")["jobId"]
        client.settled(job)
        submit = median_ms(lambda: client.text("claude_run_async", task="hello"), 40)
        engine.quiet()
        status = median_ms(lambda: client.text("claude_status", jobId=job), 200)
        told("submit", f"{submit:.1f} ms p50", "<= 5 ms")
        told("claude_status, idle engine", f"{status:.1f} ms p50", "<= 2 ms")
        beside = statistics.median(statuses_beside_a_storm(client, other, job))
        told(f"claude_status beside {BATCH} jobs", f"{beside:.1f} ms p50", "<= 30 ms")


def statuses_beside_a_storm(client: Pump, other: Pump, job: str) -> Sequence[float]:
    """Return how long each question took while a batch ran, in milliseconds."""
    storm = threading.Thread(target=run_batch, args=(other, ["hello"] * BATCH))
    storm.start()
    taken = []
    while storm.is_alive():
        taken.append(median_ms(lambda: client.text("claude_status", jobId=job), 1))
    storm.join()
    return taken


def test_an_idle_engine(roomy: House):
    engine = engine_of(roomy)
    with roomy.pump() as client:
        run_batch(client, ["hello"] * 20)
        engine.quiet()
        told("idle engine, a client there", f"{wake_ups(engine):.1f} wake-ups a second", "<= 2")
    told("idle engine, nobody there", f"{wake_ups(engine):.1f} wake-ups a second", "<= 2")


def wake_ups(engine: Onlooker) -> float:
    """Return how often a second the threads of an engine are switched to."""
    before = engine.spent()
    time.sleep(IDLE_SECONDS)
    after = engine.spent()
    return (after.voluntary + after.involuntary - before.voluntary - before.involuntary) / IDLE_SECONDS


def test_the_first_reply(roomy: House):
    program, arguments = pump_command(roomy.paths.home)
    commands = {"claude-jobs mcp": [sys.executable, str(MAIN), "mcp"], "pump of a job": [program, *arguments]}
    cold = []
    for _ in range(COLD_STARTS):
        cold.append(first_reply(roomy, commands["claude-jobs mcp"]))
        roomy.control("stop")
        roomy.wait_for_the_engine_to_go()
    told("first reply, cold", f"{statistics.median(cold):.2f} s", "<= 1 s")
    first_reply(roomy, commands["claude-jobs mcp"])
    # In turns, so that the machine's other work falls on all of them alike.
    rounds = [{name: first_reply(roomy, line) for name, line in commands.items()} for _ in range(WARM_STARTS)]
    for name in commands:
        told(f"first reply, warm, {name}", f"{statistics.median(each[name] for each in rounds) * 1e3:.0f} ms", "<= 40")


def first_reply(stage: House, command: Sequence[str]) -> float:
    """Start the pump as a client does and return the seconds until it answers `initialize`."""
    began = time.monotonic()
    with subprocess.Popen(
        command, env=dict(stage.environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=stage.work
    ) as pump:
        assert pump.stdin is not None
        assert pump.stdout is not None
        info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        pump.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}).encode() + b"\n"
        )
        pump.stdin.flush()
        reply = json.loads(pump.stdout.readline())
        took = time.monotonic() - began
        assert reply["result"]["serverInfo"]["name"] == "claude-jobs"
    return took
