"""What falls to the engine when a shim was killed, and what of it no living job can want.

The subreaper is a process of its own here: what pytest started must not fall to the tests.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.claude.command import MARKER
from jobs.processes.fork_server import JOB_LOCKS, RLIMIT_LOCKS
from jobs.processes.orphans import is_not_yet_a_shim, orphans, subreaper
from jobs.processes.process_table import LinuxTable, ProcessIdentity, process_table
from tests.support.waiting import until_now

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, os, resource, sys, time
sys.path.append(sys.argv[1])
from jobs.processes.fork_server import JOB_LOCKS, RLIMIT_LOCKS
from jobs.processes.kill_children import children
from jobs.processes.orphans import reap_zombies, end_orphans, ended_children, orphans, subreaper
from jobs.processes.process_table import LinuxTable, ProcessIdentity, process_table
asking = subreaper()
said = {"asked": asking.__enter__()}
table, own = process_table(), {os.getpid()}
def leave_orphan(*, of_a_job):
    if os.fork() == 0:
        os.setsid()
        if of_a_job:
            resource.setrlimit(RLIMIT_LOCKS, (JOB_LOCKS, JOB_LOCKS))
        if os.fork() == 0:
            os.execve("/bin/sleep", ["sleep", "60"], {})
        os._exit(0)
    os.wait()
leave_orphan(of_a_job=False)
leave_orphan(of_a_job=True)
until = time.monotonic() + 10
while not (found := orphans(table, own, [], [])) and time.monotonic() < until:
    time.sleep(0.01)
[stray] = found
gone, gone_later = ProcessIdentity(pid=1, start=stray.start - 0.5), ProcessIdentity(pid=1, start=stray.start + 0.5)
said["an older shim lives"] = len(orphans(table, own, [table.identify(1)], []))
said["an older shim was killed"] = len(orphans(table, own, [gone, gone_later], []))
said["a younger shim was killed"] = len(orphans(table, own, [gone_later], []))
said["it is a shim"] = len(orphans(table, own, [stray], []))
said["it fell to somebody else"] = len(orphans(table, {1}, [stray], []) & found)
said["killed"] = end_orphans(table, lambda: orphans(table, own, [], []))
while not ended_children() and time.monotonic() < until:
    time.sleep(0.01)
reap_zombies()
said["left"] = len(orphans(table, own, [], [])) + len(ended_children())
others = children(os.getpid())
said["another program's daemon"] = [table.identify(pid) is not None and pid != stray.pid for pid in others]
for pid in others:
    os.kill(pid, 9)
print(json.dumps(said))
"""


def test_a_daemon_without_mark_and_parent_is_found_unless_a_job_with_a_killed_shim_may_want_it():
    if sys.platform != "linux":
        # The weaker promise of other systems, stated in the README.
        with subreaper() as asked:
            assert not asked
        return
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "asked": True,
        "an older shim lives": 1,
        "an older shim was killed": 0,
        "a younger shim was killed": 1,
        "it is a shim": 0,
        "it fell to somebody else": 0,
        "killed": 1,
        "left": 0,
        "another program's daemon": [True],
    }


def test_a_child_with_a_living_attempts_mark_or_in_our_own_session_is_no_orphan():
    own = subprocess.Popen(["/bin/sleep", "60"], env={})
    foreign = subprocess.Popen(["/bin/sleep", "60"], env={}, start_new_session=True)
    envs: list[dict[str, str]] = [
        {MARKER: "k:j:1"},
        {},
        {MARKER: ""},
        {MARKER: "made up"},
    ]
    living, *strays = [subprocess.Popen(["/bin/sleep", "60"], env=env, start_new_session=True) for env in envs]
    try:
        for process in (own, living, *strays):
            resource.prlimit(process.pid, RLIMIT_LOCKS, (JOB_LOCKS, JOB_LOCKS))
        table = process_table()
        until_now(lambda: table.job_marker(living.pid) is not None and table.job_marker(strays[-1].pid) is not None)
        younger = ProcessIdentity(pid=1, start=float("inf"))
        found = {identity.pid for identity in orphans(table, {os.getpid()}, [younger], {"k:j:1"})}
        assert {stray.pid for stray in strays} <= found
        assert not {own.pid, living.pid, foreign.pid} & found
    finally:
        for process in (own, foreign, living, *strays):
            process.kill()
            process.wait()


def test_the_order_ends_with_its_block():
    program = (
        "import os, sys; sys.path.append(sys.argv[1])\n"
        "from jobs.processes.orphans import subreaper\n"
        "with subreaper():\n    pass\n"
        "print(os.getpid(), flush=True)\n"
        "if os.fork() == 0:\n"
        "    middle = os.getpid()\n"
        "    if os.fork():\n        os._exit(0)\n"
        "    while os.getppid() == middle:\n        pass\n"
        "    print(os.getppid(), flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], capture_output=True, text=True, timeout=60, check=True
    )
    own, adopter = done.stdout.split()
    assert own != adopter


@pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server elsewhere")
def test_a_process_that_the_fork_server_has_just_forked_is_told_by_its_command_line_and_its_age():
    class Aged(LinuxTable):
        seconds = 0.0

        def age(self, target: ProcessIdentity) -> float:
            return self.seconds

    server, forked, other = [subprocess.Popen(["/bin/sleep", seconds]) for seconds in ("60", "60", "61")]
    try:
        table = Aged()
        twin, stranger = table.identify(forked.pid), table.identify(other.pid)
        assert twin is not None
        assert stranger is not None
        until_now(
            lambda: all(Path(f"/proc/{one.pid}/comm").read_text() == "sleep\n" for one in (server, forked, other))
        )
        assert is_not_yet_a_shim(table, server.pid, twin)
        assert not is_not_yet_a_shim(table, server.pid, stranger)
        table.seconds = 60.0
        assert not is_not_yet_a_shim(table, server.pid, twin)
    finally:
        for process in (server, forked, other):
            process.kill()
            process.wait()
