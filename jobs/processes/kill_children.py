"""The program that a shim becomes at its end: it kills every child process that is left; Linux only.

`python -I -S kill_children.py DIRECTORY [NAME…]`, where DIRECTORY is the attempt's. The process is a subreaper, so what
its job left is its child, or becomes one as soon as the process between them has ended: without children nothing is
left. It spares processes that the attempt does not own:

- the engine of its state directory: the job's pump may have started it;
- the shim of another attempt, which falls to this process when such an engine dies;
- programs that a person wants to keep, by NAME, with all below them.
"""

import os
import signal
import sys
import time
from collections.abc import Collection, Sequence

SECONDS = 5.0
"""Most seconds to go on: a process that waits for a broken device, or belongs to another user, cannot be killed."""

_FIRST_PAUSE = 0.0001
_LONGEST_PAUSE = 0.01

_MOST_BYTES = 4 * 1024 * 1024
"""Longest command line or environment that is read; Linux allows two million bytes for both by default."""

ENGINE = ("engine", "--detached")
"""Last arguments of an engine that a client started."""


def main() -> None:
    """Kill children until none is left or the time is over."""
    # HOME/trees/ROOT/JOB/ATTEMPT: see `StatePaths.trees` and `LaunchPlanner.path`.
    trees = sys.argv[1].rsplit("/", 3)[0]
    keep = frozenset(sys.argv[2:])
    until = time.monotonic() + SECONDS
    pause = _FIRST_PAUSE
    while time.monotonic() < until:
        _reap()
        doomed = [pid for pid in children(os.getpid()) if not spared(pid, trees, keep)]
        if not sum(map(_kill, doomed)):
            return
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def children(parent: int) -> list[int]:
    """Return the ids of the children of a process that its first thread has, ended ones included; orphans go there."""
    try:
        with open(f"/proc/{parent}/task/{parent}/children") as file:  # noqa: PTH123 - see `spared`
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == parent]  # noqa: PTH208 - see `spared`


def spared(pid: int, trees: str, keep: Collection[str]) -> bool:
    """Tell whether a process may outlive the attempt that it is below.

    Args:
        pid: Its id.
        trees: Directory of the job directories.
        keep: Names of programs that a person wants to keep.
    """
    arguments = tuple(os.fsdecode(_read(f"/proc/{pid}/cmdline")).split("\0")[:-1])
    if arguments[-2:] == ENGINE:
        return _serves(pid, os.path.dirname(trees))  # noqa: PTH120 - no pathlib: this must start fast
    if arguments[:2] == ("/bin/sh", "-c") and arguments[4:5] and arguments[4].startswith(f"{trees}/"):
        # An attempt from before an update of the engine has its shim's id in a file of its own.
        noted = _read(f"{arguments[4]}/lock").partition(b"\n")[0] or b"shim %b" % _read(f"{arguments[4]}/pid").strip()
        return noted == b"shim %d" % pid
    return bool(keep) and not names_of(_executable(pid), arguments).isdisjoint(keep)


def names_of(executable: str, arguments: Sequence[str]) -> set[str]:
    """Return the names by which a person may refer to a process.

    That of its executable file, and of its first argument up to a parenthesis, as in "bazel(project)". A Java program
    is also known by its main class, which has a package's name before it.

    Args:
        executable: Path of its file.
        arguments: Its argument vector.
    """
    program = executable.removesuffix(" (deleted)").rpartition("/")[2]
    first = arguments[0].partition("(")[0].rpartition("/")[2] if arguments else ""
    classes = [word for word in arguments[1:] if "." in word] if program == "java" else []
    return {program, first, *classes}


def _serves(pid: int, home: str) -> bool:
    homes = [word[17:] for word in _read(f"/proc/{pid}/environ").split(b"\0") if word.startswith(b"CLAUDE_JOBS_HOME=")]
    return homes[:1] == [os.fsencode(home)]


def _executable(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - see `spared`
    except OSError:
        return ""


def _kill(pid: int) -> bool:
    """Kill a child, whose id no other process can have before `_reap`; False where that is not permitted."""
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return False
    return True


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _parent(pid: int) -> int:
    text = _read(f"/proc/{pid}/stat")
    return int(text[text.rindex(b")") + 2 :].split()[1]) if b")" in text else 0


def _read(path: str) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe in the place of a file would keep this process for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _MOST_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
