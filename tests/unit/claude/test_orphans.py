"""What a job leaves behind after its mark, its session and its parents are gone: only a subreaper still finds it.

The subreaper is a process of its own here: what pytest started must not fall to the tests.
"""

import json
import subprocess
import sys
from pathlib import Path

from jobs.claude.command import MARKER
from jobs.claude.orphans import become_subreaper, is_subreaper, orphans
from jobs.claude.proctable import ProcessIdentity, process_table
from tests.support.waiting import until_now

ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, os, sys, time
sys.path.append(sys.argv[1])
from jobs.claude.orphans import become_subreaper, bury, is_subreaper, orphans
from jobs.claude.proctable import ProcessIdentity, ended_children, process_table
from jobs.claude.survivors import Target, clear, find
said = {"before": is_subreaper(), "asked": become_subreaper(), "after": is_subreaper()}
table = process_table()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", ["sleep", "60"], {})
    os._exit(0)
os.wait()
until = time.monotonic() + 10
while not (found := orphans(table, [], [])) and time.monotonic() < until:
    time.sleep(0.01)
[stray] = found
older, younger = ProcessIdentity(pid=1, start=stray.start - 1), ProcessIdentity(pid=1, start=stray.start + 1)
said["an older attempt lives"] = len(orphans(table, [older, younger], []))
said["a younger attempt lives"] = len(orphans(table, [younger], []))
target = Target(marker=None, known=found)
# Looked at before it is cleared: were no mark taken for the mark of everything, this would end the whole machine.
said["found"] = find(table, [target]) == [stray]
said["killed"] = clear(table, (target,)) if said["found"] else 0
while not ended_children(os.getpid()) and time.monotonic() < until:
    time.sleep(0.01)
bury()
said["left"] = len(orphans(table, [], [])) + len(ended_children(os.getpid()))
print(json.dumps(said))
"""


def test_a_daemon_that_forked_twice_and_cleared_its_environment_is_found_once_nobody_can_want_it():
    if sys.platform != "linux":
        # The weaker promise of other systems, stated in the README.
        assert not become_subreaper()
        return
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "before": False,
        "asked": True,
        "after": True,
        "an older attempt lives": 0,
        "a younger attempt lives": 1,
        "found": True,
        "killed": 1,
        "left": 0,
    }


def test_a_child_with_a_living_attempts_mark_or_in_our_own_session_is_no_orphan():
    assert not is_subreaper()
    own = subprocess.Popen(["/bin/sleep", "60"], env={})
    envs: list[dict[str, str]] = [
        {MARKER: "k:j:1"},
        {},
        {MARKER: ""},
        {MARKER: "made up"},
    ]
    living, *strays = [subprocess.Popen(["/bin/sleep", "60"], env=env, start_new_session=True) for env in envs]
    try:
        table = process_table()
        until_now(lambda: table.mark(living.pid) is not None and table.mark(strays[-1].pid) is not None)
        found = {identity.pid for identity in orphans(table, [ProcessIdentity(pid=1, start=float("inf"))], {"k:j:1"})}
        assert {stray.pid for stray in strays} <= found
        assert not {own.pid, living.pid} & found
    finally:
        for process in (own, living, *strays):
            process.kill()
            process.wait()
