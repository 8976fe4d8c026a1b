"""The program that a shim becomes at its end, run as it is run, by a process that has children and is a subreaper."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.processes import kill_children
from jobs.processes.kill_children import names_of
from jobs.processes.process_table import process_table
from tests.support.waiting import until_now

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere orphans fall to init")

PARENT = """
import ctypes, json, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
children = json.loads(sys.argv[1])
for argv, env in children:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.execve(argv[0], argv[1:], env)
    print(pid, flush=True)
sys.stdin.readline()
os.execv(sys.executable, [sys.executable, "-I", "-S", *sys.argv[2:]])
"""


@contextmanager
def parent(
    children: Sequence[Sequence[str]], *arguments: str, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with these children, each a path and an argument vector; it becomes the program at a line of input."""
    given = json.dumps([[list(argv), env or {}] for argv in children])
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PARENT, given, kill_children.__file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        pids = [int(process.stdout.readline()) for _ in children]
        try:
            until_now(lambda: all(b"prctl" not in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids))
            yield process, pids
        finally:
            process.kill()
            for pid in pids:
                if process_table().entry(pid):
                    os.kill(pid, signal.SIGKILL)


def become(process: subprocess.Popen[str]) -> None:
    """Let the process become the program, and wait for its end."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(30) == 0


def left(children: Sequence[Sequence[str]], *arguments: str, env: dict[str, str] | None = None) -> list[int]:
    """Return the indices of the children that the program left alive."""
    with parent(children, *arguments, env=env) as (process, pids):
        become(process)
        return [index for index, pid in enumerate(pids) if process_table().entry(pid)]


def sleep(*arguments: str) -> list[str]:
    """A `sleep` with this argument vector."""
    return ["/bin/sleep", *(arguments or ("sleep",)), "60"]


def shell(*arguments: str) -> list[str]:
    return ["/bin/sh", "/bin/sh", "-c", "while :; do sleep 0.1; done", *arguments]


def test_every_child_is_killed_and_what_was_below_it():
    assert left([sleep(), shell(), ["/usr/bin/setsid", "setsid", "--fork", "sleep", "60"]], "/s/trees/r/j/1") == []


def test_a_process_without_children_ends_at_once():
    assert left([], "/s/trees/r/j/1") == []


def test_programs_with_the_names_of_a_person_are_kept():
    children = [sleep("/opt/watchman"), sleep("bazel(project)"), sleep("watchman2"), shell("watchman")]
    assert left(children, "/s/trees/r/j/1", "watchman", "bazel") == [0, 1]
    assert left([sleep("x"), shell()], "/s/trees/r/j/1", "sleep") == [0]


@pytest.mark.parametrize(
    ("executable", "arguments", "names"),
    [
        ("/usr/bin/watchman", ["watchman", "--foreground"], {"watchman"}),
        ("/usr/bin/watchman (deleted)", [], {"watchman", ""}),
        ("/home/me/jdk/bin/java", ["bazel(x/y)", "-jar", "A.jar"], {"java", "bazel", "A.jar"}),
        ("/jdk/bin/java", ["java", "-Xmx1g", "org.gradle.Daemon", "8.5"], {"java", "org.gradle.Daemon", "8.5"}),
        ("/usr/bin/vim", ["vim", "/etc/org.gradle.Daemon"], {"vim"}),
        ("", [], {""}),
    ],
)
def test_a_program_is_known_by_its_file_its_first_argument_and_a_java_class(
    executable: str, arguments: list[str], names: set[str]
):
    assert names_of(executable, arguments) == names


@pytest.mark.parametrize(("home", "spared"), [("/s", [0]), ("/elsewhere", []), ("/s/trees", [])])
def test_the_engine_of_the_state_directory_is_spared(home: str, spared: list[int]):
    children = [shell("x", "engine", "--detached"), shell("engine")]
    assert left(children, "/s/trees/r/j/1", env={"CLAUDE_JOBS_HOME": home, "PATH": "/bin:/usr/bin"}) == spared


@pytest.mark.parametrize(("name", "text"), [("lock", "shim {}\nclaude 1\n"), ("pid", "{}\n")])
def test_the_shim_of_another_attempt_is_spared(tmp_path: Path, name: str, text: str):
    trees = tmp_path / "trees"
    for job in ("one", "other", "made-up"):
        (trees / "r" / job / "1").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    children = [shell("claude-jobs", str(path)) for path in (trees / "r/other/1", trees / "r/made-up/1", elsewhere)]
    os.mkfifo(trees / "r/made-up/1/lock")
    with parent(children, str(trees / "r/one/1"), env={"PATH": "/bin:/usr/bin"}) as (process, pids):
        (trees / "r/other/1" / name).write_text(text.format(pids[0]))
        (elsewhere / name).write_text(text.format(pids[2]))
        become(process)
        assert [pid for pid in pids if process_table().entry(pid)] == [pids[0]]
