"""Jobs that spawn as much as they can: the limits hold, every refusal says why, and the engine goes on answering."""

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import FAKES, House, Pump, house
from tests.support.long_form import LONG

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

STUB = FAKES / "storming_stub.py"
"""The long form: 10,000 calls, and a tree of 1,000 jobs. The short one shows the same in seconds."""

CALLS = 10_000 if LONG else 500
TREE_JOBS = 1_000 if LONG else 60
WIDTH = 20
RUNNING = 12
SLOTS = {0: 1, 1: 4, 2: 6, 3: 8}
LEVELS = 5


class Onlooker:
    """Asks the engine for the status of a job, again and again, over a connection of its own.

    Args:
        pump: The connection.
        job_id: The job.
    """

    def __init__(self, pump: Pump, job_id: str) -> None:
        self.pump, self.job_id = pump, job_id
        self.seconds: list[float] = []
        self.running: list[int] = []
        self.failure: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="onlooker")

    @contextmanager
    def looking(self) -> Iterator["Onlooker"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(60)
        assert self.failure is None, self.failure

    def _look(self) -> None:
        try:
            while not self._over.wait(0.02):
                began = time.monotonic()
                self.pump.text("claude_status", jobId=self.job_id)
                self.seconds.append(time.monotonic() - began)
                self.running.append(self.pump.json("claude_recursion_stats")["running"])
        except (OSError, ValueError, AssertionError, EOFError) as error:
            self.failure = error

    def report(self, what: str) -> None:
        ordered = sorted(self.seconds)
        median, late = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
        print(f"\n{what}: claude_status {median * 1000:.1f} ms median, {late * 1000:.0f} ms p99, n {len(ordered)}")


@pytest.fixture
def storm_house() -> Iterator[House]:
    with house(
        CLAUDE_JOBS_CLI=str(STUB),
        CLAUDE_JOBS_MAX_JOBS=str(TREE_JOBS),
        CLAUDE_JOBS_MAX_DEPTH=str(LEVELS),
        CLAUDE_JOBS_MAX_RUNNING=str(RUNNING),
        CLAUDE_JOBS_MAX_CONCURRENT=json.dumps(SLOTS),
        CLAUDE_JOBS_MEMORY_FLOOR_BYTES="0",
    ) as built:
        yield built


def run(stage: House, root: Path, what: str, **directives: Any) -> tuple[Counter[str], Onlooker]:
    """Run a job with these directives to its end, watched; return what its tree was told, and the onlooker."""
    given = {"ledger": root / "ledger", "report": root / "report", **directives}
    with stage.pump() as client, stage.pump() as other:
        job_id = client.json("claude_run_async", task=" ".join(f"storm:{k}={v}" for k, v in given.items()))["jobId"]
        with Onlooker(other, job_id).looking() as onlooker:
            while client.json("claude_wait", subtreeOf=job_id)["pending"]:
                pass
        counts = client.json("claude_status", jobId=job_id)["descendants"]["counts"]
    assert set(counts) == {"completed"}, counts
    onlooker.report(what)
    said: Counter[str] = Counter()
    for line in (root / "report").read_text().splitlines():
        said.update(json.loads(line))
    print(f"{what}: {sum(counts.values())} jobs, {dict(said)}, at most {max(onlooker.running)} running")
    return said, onlooker


def most_at_once(ledger: Path) -> Counter[str]:
    """Return the most jobs that lived at once, by depth: the lines stand in the order of what happened."""
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for line in ledger.read_text().splitlines():
        what, depth = line.split()
        now[depth] += 1 if what == "begin" else -1
        most[depth] = max(most[depth], now[depth])
    return most


def within_limits(ledger: Path, onlooker: Onlooker) -> None:
    for depth, count in most_at_once(ledger).items():
        assert count <= SLOTS.get(int(depth), SLOTS[max(SLOTS)]), f"depth {depth}: {count}"
    assert max(onlooker.running) <= RUNNING
    assert onlooker.seconds


def test_a_job_that_calls_the_spawn_tools_without_end_gets_its_children_and_reasons(storm_house: House, tmp_path: Path):
    said, onlooker = run(storm_house, tmp_path, "storm of calls", calls=CALLS)
    room = min(100, TREE_JOBS - 1)
    assert said.pop("accepted") == room
    assert sum(said.values()) == CALLS - room
    assert all(words.startswith(("Too many children", "Too many total jobs")) and "/" in words for words in said)
    within_limits(tmp_path / "ledger", onlooker)


def test_a_tree_in_which_every_job_spawns_stays_within_every_limit(storm_house: House, tmp_path: Path):
    said, onlooker = run(storm_house, tmp_path, "storm of trees", spawn=WIDTH)
    accepted = said.pop("accepted")
    assert 1 + accepted * WIDTH <= TREE_JOBS
    assert said
    assert all(
        "limit" in words or "Too many" in words or "No tool" in words or "Unknown tool" in words for words in said
    )
    within_limits(tmp_path / "ledger", onlooker)
