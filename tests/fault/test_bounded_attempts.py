"""However an attempt ends, the job starts a bounded number of times, and what each start has spent is counted.

The stub notes its starts and its bill in files of its own, which no engine reads.
"""

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import FAKES, House, house
from tests.support.noted import claude_of, shim_of
from tests.support.spending import Till
from tests.support.waiting import until_now

pytestmark = [pytest.mark.timeout(170), pytest.mark.skipif(sys.platform != "linux", reason="the stub reads /proc")]

STUB = FAKES / "spending_stub.py"
DOLLAR = 500_000
"""Tokens read that cost one US dollar."""

LIMIT = 20_000_000
"""Most bytes of an attempt's output here."""

SECONDS = 60.0
"""Bound of every wait."""


class Case:
    """One test's jobs in an engine that several tests share, and what their stubs noted.

    Args:
        made: The house.
        base: A directory of this test's.
    """

    def __init__(self, made: House, base: Path) -> None:
        self.house = made
        self.base = base

    def task(self, **directives: object) -> str:
        given = {"starts": self.base / "starts", "bill": self.base / "bill", "read": DOLLAR, "written": 0, **directives}
        return " ".join(f"stub:{name}={value}" for name, value in given.items())

    def starts(self) -> int:
        path = self.base / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def billed(self) -> float:
        return Till(self.base / "bill").total()

    def has_paid(self, dollars: int) -> bool:
        return self.billed() > dollars - 0.5

    def run(self, **directives: object) -> Any:
        """Run a job to its end and return its status."""
        with self.house.pump() as pump:
            job = pump.json("claude_run_async", task=self.task(**directives), maxBudgetUsd=2.5)
            return pump.settled(job["jobId"])

    def attempt(self, job_id: str, number: int = 1) -> Path:
        """The directory of an attempt."""
        [path] = self.house.paths.trees.glob(f"*/{job_id}/{number}")
        return path

    def has_said(self, job_id: str) -> bool:
        """Tell whether the call of a job's first attempt is in its output."""
        return b'"message_start"' in (self.attempt(job_id) / "out").read_bytes()

    def pids(self, job_id: str) -> list[int]:
        """The shim and the `claude` of a job's first attempt."""
        return [shim_of(self.attempt(job_id)), claude_of(self.attempt(job_id))]


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with house(
        CLAUDE_JOBS_CLI=str(STUB), CLAUDE_JOBS_MEMORY_FLOOR_BYTES="0", CLAUDE_JOBS_MAX_OUTPUT_BYTES=str(LIMIT)
    ) as made:
        yield made


@pytest.fixture
def case(place: House, tmp_path: Path) -> Case:
    return Case(place, tmp_path)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_a_job_that_removes_its_directory_and_dies_starts_twice_and_pays_for_both(case: Case, levels: int):
    status = case.run(rmdir=levels, fall="KILL")
    assert (status["status"], status["reason"], case.starts()) == ("failed", "lost", 2)
    assert status["costUsd"] == pytest.approx(case.billed()) == pytest.approx(2.0)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_a_job_that_removes_its_directory_and_answers_is_completed(case: Case, levels: int):
    status = case.run(rmdir=levels)
    assert (status["status"], case.starts()) == ("completed", 1)
    assert status["costUsd"] == pytest.approx(case.billed()) == pytest.approx(1.0)


def test_a_job_that_removes_its_working_directory_and_dies_is_told_that_it_is_gone(case: Case):
    work = case.base / "work"
    work.mkdir()
    with case.house.pump() as pump:
        job_id = pump.json("claude_run_async", task=case.task(rmcwd=1, fall="KILL"), cwd=str(work))["jobId"]
        status = pump.settled(job_id)
    assert (status["status"], status["reason"], case.starts()) == ("failed", "startup", 1)
    assert f"The directory {work} is gone or cannot be entered. Make it again and retry" in status["error"]
    assert status["costUsd"] == pytest.approx(case.billed()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT", "TERM", "HUP"])
def test_a_signal_that_comes_in_every_attempt_is_met_twice(case: Case, name: str):
    status = case.run(fall=name)
    assert (status["status"], status["reason"], case.starts()) == ("failed", "lost", 2)
    assert status["costUsd"] == pytest.approx(case.billed()) == pytest.approx(2.0)


def test_a_person_who_interrupts_claude_has_it_ended(case: Case):
    status = case.run(fall="INT")
    assert (status["status"], status["reason"], case.starts()) == ("failed", "signal", 1)


@pytest.mark.parametrize("whom", ["claude", "both"])
def test_a_job_whose_claude_is_killed_once_goes_on_and_completes(case: Case, whom: str):
    go = case.base / "go"
    with case.house.pump() as pump:
        jobs = []
        for number in range(1, 7):
            job_id = pump.json("claude_run_async", task=case.task(wait=go))["jobId"]
            jobs.append(job_id)
            until_now(partial(case.has_paid, 2 * number - 1), SECONDS, "a paid call")
            # What is billed and not yet written would be a cost that nobody can know.
            until_now(partial(case.has_said, job_id), SECONDS, "the output of the call")
            for pid in case.pids(job_id)[whom == "claude" :]:
                os.kill(pid, signal.SIGKILL)
            until_now(partial(case.has_paid, 2 * number), SECONDS, "another attempt")
        go.touch()
        ended = [pump.settled(job_id) for job_id in jobs]
    assert [one["status"] for one in ended] == ["completed"] * 6
    assert case.starts() == 12
    assert sum(one["costUsd"] for one in ended) == pytest.approx(case.billed()) == pytest.approx(12.0)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "HUP"])
def test_a_job_whose_shim_alone_is_killed_goes_on_in_the_same_attempt(case: Case, name: str):
    go = case.base / "go"
    with case.house.pump() as pump:
        job_id = pump.json("claude_run_async", task=case.task(wait=go))["jobId"]
        until_now(partial(case.has_paid, 1), SECONDS, "the call")
        os.kill(case.pids(job_id)[0], getattr(signal, f"SIG{name}"))
        go.touch()
        status = pump.settled(job_id)
    assert (status["status"], case.starts()) == ("completed", 1)
    assert status["costUsd"] == pytest.approx(case.billed()) == pytest.approx(1.0)


def test_an_answer_that_was_given_before_the_kill_is_kept(case: Case):
    with case.house.pump() as pump:
        job_id = pump.json("claude_run_async", task=case.task(stay=60))["jobId"]
        until_now(partial(case.has_paid, 1), SECONDS, "the call")
        until_now(lambda: b'"result"' in (case.attempt(job_id) / "out").read_bytes(), SECONDS, "the answer")
        os.kill(case.pids(job_id)[1], signal.SIGKILL)
        status = pump.settled(job_id)
    assert (status["status"], case.starts()) == ("completed", 1)


def test_why_a_process_is_ended_is_on_disk_before_it_is_ended(case: Case):
    """An engine that dies in between is believed by the next one, and the job is not taken for lost."""
    with case.house.pump() as pump:
        job_id = pump.json("claude_run_async", task=case.task(wait=case.base / "never"), timeoutSeconds=2)["jobId"]
        status = pump.settled(job_id)
    assert (status["status"], status["reason"]) == ("timeout", "deadline")
    assert (case.attempt(job_id) / "stop").read_text() == "deadline"


@pytest.mark.parametrize("kind", ["noise", "flood"])
def test_a_job_that_writes_too_much_is_ended_whichever_stream_it_writes_to(case: Case, kind: str):
    with case.house.pump() as pump:
        job_id = pump.json("claude_run_async", task=case.task(**{kind: 50 * LIMIT}))["jobId"]
        status = pump.settled(job_id)
    assert (status["status"], status["reason"], case.starts()) == ("failed", "output_limit", 1)
    written = sum((case.attempt(job_id) / name).stat().st_size for name in ("out", "err"))
    print(f"limit {LIMIT}, written {written}")
    assert LIMIT < written < 25 * LIMIT


@pytest.mark.parametrize("stay", [0, 60])
def test_a_job_whose_output_only_claims_to_be_large_is_ended_without_being_read_for_hours(case: Case, stay: int):
    status = case.run(sparse=2**40, stay=stay)
    assert (status["status"], status["reason"], case.starts()) == ("failed", "output_limit", 1)
    assert status["costUsd"] == pytest.approx(case.billed()) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_an_answer_is_kept_though_the_state_directory_was_opened_to_others(case: Case, mode: int):
    go, trees = case.base / "go", case.house.paths.trees
    with case.house.pump() as pump:
        job_id = pump.json("claude_run_async", task=case.task(wait=go))["jobId"]
        until_now(partial(case.has_paid, 1), SECONDS, "the call")
        attempt = case.attempt(job_id)
        opened = [attempt, attempt.parent, attempt.parent.parent, trees, trees.parent]
        for path in opened:
            path.chmod(mode)
        said = case.house.run("list")
        assert (said.returncode == 0) == (mode == 0o755), said
        assert mode == 0o755 or f"chmod 700 '{trees.parent}'" in said.stderr
        go.touch()
        status = pump.settled(job_id)
        trees.parent.chmod(0o700)
    assert (status["status"], case.starts()) == ("completed", 1)
    assert f"(mode {mode:04o}); it is private again." in status["note"]
    assert attempt.stat().st_mode & 0o777 == 0o700
    assert case.run()["status"] == "completed"
