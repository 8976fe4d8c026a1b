"""Paused jobs cost the others nothing: a batch alone, and the same one beside two thousand paused jobs."""

import statistics
import time

from tests.benchmarks.watched import ROOMY, Onlooker, engine_of, told
from tests.support.engines import Pump, house

PAUSED = 2_000
JOBS = 100
ROUNDS = 5


def test_a_batch_beside_paused_jobs():
    with house(**{**ROOMY, "CLAUDE_JOBS_MAX_RUNNING": "4"}) as built, built.pump() as client:
        engine = engine_of(built)
        _batch(client, engine)
        alone = [_batch(client, engine) for _ in range(ROUNDS)]
        gate = built.work / "gate"
        blocker = client.json("claude_run_batch_async", tasks=[f"stub:wait={gate}"] * 4)["batchId"]
        # Two deadlines: such a batch is queued as a whole, and not in waves.
        tasks = [{"task": "x", "subtreeSeconds": 3600 + number % 2} for number in range(PAUSED)]
        held = client.json("claude_run_batch_async", tasks=tasks)["batchId"]
        engine.quiet()
        began = time.monotonic()
        assert client.json("claude_pause", jobId=held)["queued"] == PAUSED
        told(f"a pause of {PAUSED} queued jobs", f"{(time.monotonic() - began) * 1e3:.0f} ms", "none")
        gate.touch()
        client.json("claude_wait", batchId=blocker)
        engine.quiet()
        beside = [_batch(client, engine) for _ in range(ROUNDS)]
        ratio = statistics.median(beside) / statistics.median(alone)
        told(f"CPU of {JOBS} jobs beside {PAUSED} paused ones, to alone", f"{ratio:.2f}", "<= 1.1")
        assert client.json("claude_status", jobId=held)["counts"] == {"queued": PAUSED}
        client.json("claude_kill_job", jobId=held)
        engine.quiet()


def _batch(client: Pump, engine: Onlooker) -> float:
    """Run a batch to its end and return the engine's seconds of CPU for it, which a busy machine changes little."""
    before = engine.spent().cpu
    batch = client.json("claude_run_batch_async", tasks=["x"] * JOBS)["batchId"]
    while client.json("claude_wait", batchId=batch)["pending"]:
        pass
    return engine.spent().cpu - before
