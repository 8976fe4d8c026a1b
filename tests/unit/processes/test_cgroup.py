"""Control groups of attempts, played in a group that is marked as systemd marks one that it delegates."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.processes import cgroup

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.append(sys.argv[1])
group, work, do = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
(group / "cgroup.procs").write_text("0")
import anyio
from jobs.processes import cgroup
from jobs.processes.process_table import process_table
from jobs.processes.kill import Target, kill_all, find_processes
from tests.unit.claude.support import TORTURE_STUB, start

async def hidden():
    process = await start(work, f"stub:do=unseen stub:pids={work}/pids", stub=TORTURE_STUB, marker="key:j:1")
    with anyio.fail_after(60):
        assert await process.wait() == 0
    return process

if do in ("hide", "keep"):
    process = anyio.run(hidden)
    pid = int((work / "pids").read_text())
    table, target = process_table(), Target(marker="key:j:1", shim=process.identity)
    said = {"lives": pid in table.entries(), "seen without": len(find_processes(table, [target]))}
    said["markers"] = list(cgroup.markers())
    kept = {table.identify(pid)} if do == "keep" else set()
    said["killed"] = kill_all(table, [target], exempt=kept.__contains__)
    said["left"] = pid in table.entries()
    said["groups left"] = list(cgroup.markers())
    if do == "keep":
        kill_all(table, [target])
else:
    inner = cgroup.path_of("key:j:1")
    inner.mkdir()
    (inner / "cgroup.procs").write_text("0")
    inside = Path("/proc/self/cgroup").read_text()
    cgroup.leave()
    outside = Path("/proc/self/cgroup").read_text()
    said = {"inside": inner.name in inside, "outside": inner.name in outside, "killed": cgroup.end("key:j:1")}
print(json.dumps(said))
"""


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A group below our own, for a process that will take itself for an engine."""
    own = cgroup.own_group()
    if own is None:
        pytest.skip("there is no unified hierarchy of control groups here")
    path = own / f"test-of-claude-jobs-{os.getpid()}"
    try:
        path.mkdir()
        os.setxattr(path, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield path
    for inner in path.glob("claude-jobs-*"):
        inner.rmdir()
    path.rmdir()


def play(group: Path, work: Path, do: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(group), str(work), do],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_daemon_that_nothing_else_shows_is_ended_with_its_group(delegated: Path, tmp_path: Path):
    # No subreaper here: this is what an engine meets after the one that launched the job has died.
    assert play(delegated, tmp_path, "hide") == {
        "lives": True,
        "seen without": 0,
        "markers": ["key:j:1"],
        "killed": 1,
        "left": False,
        "groups left": [],
    }


def test_a_daemon_that_a_person_keeps_is_not_ended_with_its_group(delegated: Path, tmp_path: Path):
    said = play(delegated, tmp_path, "keep")
    assert (said["killed"], said["left"], said["groups left"]) == (0, True, ["key:j:1"])


def test_an_engine_that_a_job_started_leaves_the_jobs_group(delegated: Path, tmp_path: Path):
    assert play(delegated, tmp_path, "leave") == {"inside": True, "outside": False, "killed": 0}


def test_a_group_that_is_not_ours_to_divide_is_left_alone():
    # That of these tests; nothing is found.
    assert cgroup.path_of("key:j:1") is None
    assert (cgroup.end("key:j:1"), list(cgroup.markers())) == (0, [])
