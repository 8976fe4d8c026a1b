"""A state directory that is copied, moved or renamed while jobs are in it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import House, house
from tests.support.noted import shim_of
from tests.support.waiting import until_now


@pytest.fixture
def own() -> Iterator[House]:
    """A house that runs one job at a time."""
    with house(CLAUDE_JOBS_MAX_RUNNING="1") as made:
        yield made


def copy_of(house: House, name: str = "copy") -> House:
    """Copy the state directory as a backup would, and return a client of the copy."""
    base = house.base / name
    (base / "work").mkdir(parents=True)
    subprocess.run(["cp", "-a", house.paths.home, base / "state"], check=True)
    return at(house, base)


def at(house: House, base: Path) -> House:
    return House(base=base, environ={**house.environ, "CLAUDE_JOBS_HOME": str(base / "state")})


def listed(house: House) -> dict[str, Any]:
    return {job["jobId"]: job for job in json.loads(house.run("list", "--json").stdout)["jobs"]}


def begin(house: House) -> tuple[str, str, Path]:
    """Start a job that waits for a gate and one that is queued; return both ids and the gate."""
    gate, ledger = house.base / "gate", house.base / "ledger"
    with house.pump() as pump:
        running = pump.json("claude_run_async", task=f"stub:wait={gate} stub:say=mine stub:ledger={ledger}")["jobId"]
        until_now(ledger.exists)
        waiting = pump.json("claude_run_async", task=f"stub:say=later stub:ledger={ledger}")["jobId"]
    return running, waiting, gate


def starts(house: House) -> int:
    return (house.base / "ledger").read_text().count("begin")


def test_a_copy_touches_nothing_of_the_original_and_says_that_it_is_one(own: House):
    running, waiting, gate = begin(own)
    copy = copy_of(own)
    try:
        first = copy.run("list")
        assert str(own.paths.home) in first.stderr
        assert "claude-jobs retry" in first.stderr
        found = listed(copy)
        assert {job: found[job]["status"] for job in found} == {running: "failed", waiting: "cancelled"}
        assert "is a copy" not in copy.run("list").stderr
        status = copy.run("status", running).stdout
        assert "copy" in status
        assert f"copy of {own.paths.home}" in copy.run("engine", "status").stdout
        assert f"copy of {own.paths.home}" in copy.run("doctor").stdout
        copy.run("kill", running)
        assert starts(own) == 1
        assert listed(own)[running]["status"] == "running"
        copy.run("engine", "stop")
        copy.wait_for_the_engine_to_go()
        again = copy.run("retry", waiting)
        assert again.returncode == 0, again.stderr
        copy.run("wait", waiting)
        assert listed(copy)[waiting]["status"] == "completed"
        assert starts(own) == 2
    finally:
        copy.close()
    gate.touch()
    with own.pump() as pump:
        ended = [pump.settled(job) for job in (running, waiting)]
        assert [(job["status"], job["attempt"]) for job in ended] == [("completed", 1), ("completed", 1)]
        assert '"mine"' in pump.text("claude_result", jobId=running)
    assert starts(own) == 3


def test_a_copy_in_the_originals_place_touches_no_process_of_the_original(own: House):
    running, _, gate = begin(own)
    shim = shim_of(own.paths.trees / running / running / "1")
    own.run("engine", "stop")
    own.wait_for_the_engine_to_go()
    kept = own.base / "kept"
    own.paths.home.rename(kept)
    subprocess.run(["cp", "-a", kept, own.paths.home], check=True)
    assert listed(own)[running]["status"] == "failed"
    own.run("retry", running)
    own.run("kill", running)
    os.kill(shim, 0)
    gate.touch()
    until_now(lambda: not Path(f"/proc/{shim}").exists(), 20.0, "the end of the original's process")
    assert "mine" in (kept / "trees" / running / running / "1" / "out").read_text()


def test_a_renamed_directory_goes_on_where_it_was(own: House):
    running, waiting, gate = begin(own)
    own.run("engine", "stop")
    own.wait_for_the_engine_to_go()
    (own.base / "new").mkdir()
    (own.base / "new" / "work").mkdir()
    own.paths.home.rename(own.base / "new" / "state")
    moved = at(own, own.base / "new")
    try:
        assert listed(moved)[running]["status"] == "running"
        gate.touch()
        with moved.pump() as pump:
            assert [pump.settled(job)["status"] for job in (running, waiting)] == ["completed", "completed"]
        assert starts(own) == 2
        assert "copy of" not in moved.run("engine", "status").stdout
    finally:
        moved.close()


def test_a_directory_that_was_moved_to_another_file_system_goes_on_too(own: House):
    _, waiting, gate = begin(own)
    gate.touch()
    with own.pump() as pump:
        pump.settled(waiting)
    own.run("engine", "stop")
    own.wait_for_the_engine_to_go()
    moved = copy_of(own, "moved")
    shutil.rmtree(own.paths.home)
    try:
        assert listed(moved)[waiting]["status"] == "completed"
        assert "copy of" not in moved.run("engine", "status").stdout
    finally:
        moved.close()
