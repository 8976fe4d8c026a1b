"""Both ways in which the fork server starts a program: from a copy of its memory, and in its own."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.processes import fork_server
from jobs.processes.fork_server import ANSWER, FORK, LENGTH, Spawn, Vfork, can_vfork, fork, job_locks
from tests.support.signal_masks import STANDARD_SIGNALS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no fork server elsewhere")

SHELL = "/bin/sh"


@pytest.fixture(params=["fork", "vfork"])
def spawn(request: pytest.FixtureRequest) -> Iterator[Spawn]:
    """Both ways to start a program, with the signals ignored that the fork server ignores."""
    if request.param == "vfork" and not can_vfork():
        pytest.skip("this machine copies")
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        yield fork if request.param == "fork" else Vfork()
    finally:
        for number, handler in before:
            signal.signal(number, handler)


BEGINNING = """
exec >/dev/fd/"$1"
orphan=$(sh -c 'sleep 60 >/dev/null & echo $!')
set -- "$2" $(cat /proc/"$orphan"/stat)
kill -9 "$orphan"
echo "$1|$VALUE|$$|$5|$(ps -o sid= -p $$ | tr -d ' ')"
grep SigIgn /proc/$$/status
grep 'Max file locks' /proc/$$/limits
"""


def said_by(spawn: Spawn, *arguments: str) -> tuple[int, list[str]]:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        argv = [SHELL, "-c", BEGINNING, "name", str(write), *arguments]
        pid = spawn([os.fsencode(word) for word in argv], [b"VALUE=x=y", b"PATH=/bin:/usr/bin"])
    finally:
        os.close(write)
    with os.fdopen(read, errors="surrogateescape") as file:
        return pid, file.read().splitlines()


def test_both_ways_give_a_program_the_same_beginning(spawn: Spawn):
    for _ in range(3):
        pid, (what, signals, locks) = said_by(spawn, "a 'b' \udcff")
        assert os.fsencode(what) == b"a 'b' \xff|x=y|%d|%d|%d" % (pid, pid, pid)
        assert int(signals.split()[1], 16) & STANDARD_SIGNALS == 0
        assert locks.split()[3:5] == [str(job_locks())] * 2


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        ([b"/nonexistent"], errno.ENOENT),
        ([b"/etc/passwd"], errno.EACCES),
        ([SHELL.encode(), b"x" * 10_000_000], errno.E2BIG),
    ],
)
def test_both_ways_tell_what_was_refused_and_go_on(spawn: Spawn, argv: list[bytes], number: int):
    for _ in range(2):
        with pytest.raises(OSError, match=re.escape(os.strerror(number))) as raised:
            spawn(argv, [])
        assert raised.value.errno == number
        assert len(said_by(spawn, "x")[1]) == 3


def test_hundreds_of_programs_leave_no_memory_behind(spawn: Spawn):
    way = "fork" if spawn is fork else "Vfork()"
    done = subprocess.run(
        [sys.executable, "-c", HUNDREDS, str(Path(fork_server.__file__).parent), way],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 512 * 1024


def _unknown(_: str) -> str:
    raise OSError(errno.EINVAL, "no such name")


def _refused(*_: object) -> int:
    raise PermissionError(errno.EPERM, "not in this sandbox")


@pytest.mark.parametrize(
    ("where", "name", "answer"),
    [
        (os, "confstr", _unknown),
        (os, "confstr", lambda _: "glibc 2.17"),
        (os, "confstr", lambda _: None),
        (os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "1", "aarch64"))),
        (Vfork, "__call__", _refused),
        (Vfork, "__call__", lambda *_: 1),
    ],
    ids=["musl", "an old glibc", "no name", "another processor", "a sandbox", "an emulator"],
)
def test_memory_is_lent_only_where_that_works(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, answer: Callable[..., object]
):
    monkeypatch.setattr(where, name, answer)
    assert not can_vfork()


@pytest.mark.parametrize("told", [True, False])
def test_a_server_that_is_told_so_forks(tmp_path: Path, told: bool):
    if not told and not can_vfork():
        pytest.skip("this machine copies")
    ours, theirs = socket.socketpair()
    forks = tmp_path / "forks"
    arguments = [fork_server.__file__, str(theirs.fileno()), *([FORK] if told else [])]
    argv = [sys.executable, "-c", AUDITED, str(forks), *arguments]
    with subprocess.Popen(argv, pass_fds=[theirs.fileno()]) as server, ours:
        theirs.close()
        body = b"\0".join([os.fsencode(tmp_path / "1"), b"", b"", b"", b"1", b"/bin/true"])
        ours.settimeout(30)
        ours.sendall(LENGTH.pack(len(body)) + body)
        number, pid, _ = ANSWER.unpack(ours.recv(ANSWER.size))
        ours.close()
        server.wait(30)
    assert (number, pid > 0, forks.exists()) == (0, True, told)


HUNDREDS = """
import signal, sys
sys.path.append(sys.argv[1])
from fork_server import Vfork, fork
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
spawn = eval(sys.argv[2])
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
for number in range(400):
    if number == 100:
        before = resident()
    spawn([b"/bin/true", b"x" * 10_000], [b"VALUE=x"] * 400)
print(resident() - before)
"""

AUDITED = """
import runpy, sys
forks, *sys.argv = sys.argv[1:]
sys.addaudithook(lambda event, _: open(forks, "w").close() if event == "os.fork" else None)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
