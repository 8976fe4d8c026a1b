"""A job's own shell connects in every way with every trick: it is never the person.

The ways are those that a person has: the socket by hand in both roles, the pump, the commands. The tricks are those by
which a process can hide what it belongs to. Whatever combination, nothing of a person's comes out, and nothing begins.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engines import House, Pump, house
from tests.support.noted import shim_of
from tests.support.shells import SHELL_CLI, JobShell, job_shell
from tests.support.tokens import attempt_directory, token_of
from tests.support.waiting import until_now

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an orphan falls to init and is not known")

INSIDE = "runs inside a job, so it may not act as a person"
UNKNOWN = "cannot tell which process opened this connection"
OVER = "token is not valid"

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False, timeout=20).returncode == 0


NAMESPACE = ("unshare", "--pid", "--fork", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")))
IN_NAMESPACE = pytest.mark.skipif(not _can_unshare(), reason="no new pid namespace can be made here")

Command = Callable[[JobShell], Sequence[str]]

DOORS: dict[str, Command] = {
    "socket as mcp": lambda shell: shell.raw("mcp"),
    "socket as control": lambda shell: shell.raw("control"),
    "pump": lambda shell: shell.pump(),
    "run": lambda shell: shell.cli("run", "a way out"),
    "engine stop": lambda shell: shell.cli("engine", "stop"),
}

TRICKS: dict[str, Command] = {
    "none": lambda shell: shell.with_home,
    "bare environment": lambda shell: shell.bare,
    "new session": lambda shell: (*shell.bare, "setsid", "--wait"),
    "orphan": lambda shell: shell.orphaned,
    "deep": lambda shell: (*shell.bare, *PYTHON, NESTED),
    "pid namespace": lambda shell: (*shell.bare, *NAMESPACE),
    "orphan in a pid namespace": lambda shell: (*shell.bare, *NAMESPACE, *PYTHON, INIT, *shell.orphaned),
}

PYTHON: Sequence[str] = ("python3", "-I", "-S", "-c")

INIT = """
import os, subprocess, sys
subprocess.Popen(sys.argv[1:])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""
"""The first process of a namespace: at its end everything else in there ends."""

NESTED = """
import os, sys
for _ in range(80):
    if child := os.fork():
        os.waitpid(child, 0)
        os._exit(0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

CONNECTORS = {"ended_child": UNKNOWN, "zombie_child": UNKNOWN, "living_child": INSIDE}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A running job's shell, and the person who looks from outside.

    Args:
        person: A person's pump.
        shell: The job's shell.
        ended: Token of a job that is over.
    """

    person: Pump
    shell: JobShell
    ended: str

    def jobs(self) -> set[str]:
        return {line["jobId"] for line in self.person.json("claude_list_jobs", limit=1000) if "jobId" in line}

    def refused(self, command: Sequence[str], *words: str) -> None:
        """Run a command in the job's shell; it is refused in one of these words and has no effect."""
        before = self.jobs()
        said = self.shell.run(*command)
        assert any(word in said for word in words), said
        assert '"ok":true' not in said
        assert self.jobs() == before
        # The same engine answers still.
        assert self.person.json("claude_status", jobId=self.shell.job["jobId"])["status"] == "running"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with house(CLAUDE_JOBS_CLI=SHELL_CLI) as made:
        made.start_engine()
        with made.pump() as person:
            with job_shell(made, person) as first:
                ended = token_of(attempt_directory(made, first.job))
            person.settled(first.job["jobId"])
            with job_shell(made, person) as shell:
                yield Scene(person=person, shell=shell, ended=ended)


@pytest.mark.parametrize(
    "trick", [pytest.param(name, marks=[IN_NAMESPACE] if "namespace" in name else []) for name in TRICKS]
)
@pytest.mark.parametrize("endpoint", DOORS)
def test_no_door_opens_to_a_process_of_a_job_that_hides(scene: Scene, endpoint: str, trick: str):
    scene.refused([*TRICKS[trick](scene.shell), *DOORS[endpoint](scene.shell)], INSIDE)


@pytest.mark.parametrize("trick", ["bare environment", "orphan"])
@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("role", ["mcp", "control"])
def test_a_connection_that_another_process_opened_is_judged_by_that_one(
    scene: Scene, role: str, connector: str, trick: str
):
    command = scene.shell.raw(role, connector=connector)
    scene.refused([*TRICKS[trick](scene.shell), *command], CONNECTORS[connector])


@AS_ROOT
@pytest.mark.parametrize("role", ["mcp", "control"])
@pytest.mark.parametrize(("connector", "words"), [("other_user", "Permission denied"), ("other_user_later", INSIDE)])
def test_another_user_id_helps_nobody(scene: Scene, connector: str, words: str, role: str):
    scene.refused([*scene.shell.bare, *scene.shell.raw(role, connector=connector)], words)


@AS_ROOT
@pytest.mark.parametrize("endpoint", ["pump", "run", "engine stop"])
def test_a_command_under_another_user_id_is_kept_out(scene: Scene, endpoint: str):
    other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    before = scene.jobs()
    said = scene.shell.run(*scene.shell.bare, *other, *DOORS[endpoint](scene.shell))
    assert "ermission" in said or "belongs to" in said, said
    assert scene.jobs() == before


@pytest.mark.parametrize("trick", ["none", "orphan"])
@pytest.mark.parametrize("role", ["mcp", "control"])
@pytest.mark.parametrize("which", ["ended", "made up", "not even text"])
def test_a_token_that_no_live_job_holds_is_refused_in_every_role(scene: Scene, which: str, role: str, trick: str):
    token = {"ended": scene.ended, "made up": "x", "not even text": "\u00e9"}[which]
    scene.refused([*TRICKS[trick](scene.shell), *scene.shell.raw(role, token)], OVER)


@pytest.mark.parametrize("trick", ["none", "orphan"])
@pytest.mark.parametrize("which", ["ended", "made up"])
def test_a_pump_with_a_token_that_no_live_job_holds_is_refused(scene: Scene, which: str, trick: str):
    directory = scene.shell.house.base / which.replace(" ", "-")
    directory.mkdir(exist_ok=True)
    token = {"ended": scene.ended, "made up": "x"}[which]
    (directory / "in").write_text(json.dumps({"claude_jobs_token": token}) + "\n")
    scene.refused([*TRICKS[trick](scene.shell), *scene.shell.pump("--job", str(directory))], OVER)


@pytest.mark.parametrize("trick", ["none", "orphan"])
def test_control_is_not_for_a_job_that_brings_its_own_good_token(scene: Scene, trick: str):
    token = token_of(attempt_directory(scene.shell.house, scene.shell.job))
    scene.refused([*TRICKS[trick](scene.shell), *scene.shell.raw("control", token)], INSIDE)


@pytest.mark.parametrize("connector", ["itself", "ended_child"])
@pytest.mark.parametrize("trick", ["none", "bare environment", "orphan"])
def test_a_live_jobs_token_makes_any_process_that_job(scene: Scene, trick: str, connector: str):
    token = token_of(attempt_directory(scene.shell.house, scene.shell.job))
    before = scene.jobs()
    said = scene.shell.run(*TRICKS[trick](scene.shell), *scene.shell.raw("mcp", token, connector))
    assert '"ok":true' in said
    [new] = scene.jobs() - before
    assert scene.person.json("claude_status", jobId=new)["parentJobId"] == scene.shell.job["jobId"]


def test_the_person_outside_is_still_let_in_at_every_door(scene: Scene):
    made: House = scene.shell.house
    assert made.run("list").returncode == 0
    assert made.run("engine", "status").returncode == 0
    with made.pump() as another:
        assert another.json("claude_list_jobs", limit=1)


@pytest.mark.timeout(300)
def test_a_job_in_mode_plan_cannot_make_itself_a_root_with_bypass_by_any_chain_of_tricks():
    with house(CLAUDE_JOBS_CLI=SHELL_CLI) as made:
        made.endpoint.paths.config.write_text("max_depth = 2\nallow_bypass_permissions = false\n")
        made.start_engine()
        with made.pump() as person:
            with job_shell(made, person, permissionMode="plan") as shell:
                wide = ("CLAUDE_JOBS_MAX_DEPTH=99", "CLAUDE_ALLOW_BYPASS_PERMISSIONS=1")
                root = shell.cli("run", "--permission-mode", "bypassPermissions", "a way out")
                go = made.base / "go"
                waits = 'while [ -e "$1" ] && ! [ -e "$2" ]; do sleep 0.05; done; cd /; shift 2; exec "$@"'
                later = ("/bin/sh", "-c", waits, "sh", str(made.base), str(go), *root)
                log = made.base / "orphan.log"
                # An orphan that stands ready before anything else happens; it keeps no output of the shell's open.
                aside = ("/bin/sh", "-c", 'log=$1; shift; "$@" >"$log" 2>&1 &', "sh", str(log))
                shell.run(*aside, *shell.orphaned, "env", *wide, *later)
                assert OVER in shell.run(*shell.orphaned, *shell.raw("control", "x"))
                before = engine_of(made)
                shell.run("kill", "-9", str(before))
                made.wait_for_the_engine_to_go()
                # The next engine is started by the job too, and is told nothing better of its starter.
                for trick in ("bare environment", "new session", "orphan"):
                    at_root = ("env", *wide, "/bin/sh", "-c", 'cd /; exec "$@"', "sh", *root)
                    assert INSIDE in shell.run(*TRICKS[trick](shell), *at_root)
                assert engine_of(made) != before
                for role in ("mcp", "control"):
                    assert UNKNOWN in shell.run(*shell.orphaned, *shell.raw(role, connector="ended_child"))
                go.touch()
                until_now(lambda: INSIDE in log.read_text(), 60.0, "the refusal of the orphan")
                jobs = person.json("claude_list_jobs", limit=100)
                assert [job["jobId"] for job in jobs if "jobId" in job] == [shell.job["jobId"]]
            assert person.settled(shell.job["jobId"])["status"] == "completed"


def engine_of(made: House) -> int:
    """Return the process id of the engine that answers a person."""
    status = made.control("status")
    assert status is not None
    return int(status["pid"])


def test_an_orphan_whose_shim_and_engine_were_killed_at_once_is_still_no_person(tmp_path: Path):
    said, go = tmp_path / "said", tmp_path / "go"
    with house(CLAUDE_JOBS_CLI=SHELL_CLI) as made:
        made.start_engine()
        engine = engine_of(made)
        with made.pump() as person, job_shell(made, person) as shell:
            wait = f'exec >"{said}" 2>&1; while [ ! -e "{go}" ]; do sleep 0.05; done; exec "$@"'
            shell.run(*shell.orphaned, "sh", "-c", wait, "sh", *shell.cli("list"))
            shim = shim_of(attempt_directory(made, shell.job))
            for pid in (engine, shim):
                os.kill(pid, signal.SIGKILL)
            made.wait_for_the_engine_to_go()
            made.start_engine()
            go.touch()
            until_now(lambda: INSIDE in said.read_text(), 30.0, "the refusal")
            assert shell.job["jobId"] not in said.read_text()
