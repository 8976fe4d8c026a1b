"""Control group (cgroup) of each attempt: the kernel keeps every process of the attempt in it, also hidden ones.

Linux only, and only where the engine's own group is marked as delegated, as systemd marks a service or scope that has
`Delegate=yes`. The scope of a terminal or an editor is not ours to divide; there, attempts are found without.
"""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_DELEGATED = "user.delegate"
"""The attribute by which systemd marks a group that its processes may divide."""

_PREFIX = "claude-jobs-"
_KILL_SECONDS = 2.0
_PAUSE = 0.005


def end(marker: str, spared: Callable[[int], bool] = lambda _: False) -> int:
    """Kill everything in the group of an attempt, remove it, and return how many processes that were.

    A group with a spared process is left alone: the kernel ends all of it or nothing.

    Args:
        marker: The job marker of the attempt's processes.
        spared: Tells of a process id whether that process may outlive the attempt.
    """
    path = path_of(marker) if marker else None
    if path is None or not path.is_dir() or any(map(spared, _members(path))):
        return 0
    killed = 0
    until = time.monotonic() + _KILL_SECONDS
    # A group that still holds a dying process cannot be removed.
    while time.monotonic() < until:
        with suppress(OSError):
            killed = max(killed, len(_members(path)))
            (path / "cgroup.kill").write_text("1")
            path.rmdir()
            break
        if not path.is_dir():
            break
        time.sleep(_PAUSE)
    return killed


def end_all(markers: Collection[str], spared: Callable[[int], bool]) -> int:
    """Do what `end` does for several attempts; where there are no groups, that is found out once."""
    return sum(end(marker, spared) for marker in markers) if markers and _delegated() is not None else 0


def markers() -> Iterator[str]:
    """Return the job marker of each attempt that still has a group."""
    own = _delegated()
    return iter(() if own is None else [path.name.removeprefix(_PREFIX) for path in own.glob(f"{_PREFIX}*")])


def leave() -> None:
    """Leave the group of an attempt, if this process was started in one: it would end with that attempt."""
    own = own_group()
    if own is not None and own.name.startswith(_PREFIX):
        with suppress(OSError):
            (own.parent / "cgroup.procs").write_text("0")
            _delegated.cache_clear()


def path_of(marker: str) -> Path | None:
    """Return where the group of an attempt is or would be, or None where there are no groups."""
    own = _delegated()
    return None if own is None or "/" in marker else own / f"{_PREFIX}{marker}"


def _members(path: Path) -> list[int]:
    try:
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split()]
    except OSError:
        return []


@lru_cache(maxsize=1)
def _delegated() -> Path | None:
    own = own_group()
    if own is None:
        return None
    try:
        return own if os.getxattr(own, _DELEGATED) == b"1" else None
    except OSError:
        return None


def own_group() -> Path | None:
    """Return this process's group in the unified hierarchy."""
    if sys.platform != "linux":
        return None
    try:
        groups, mounts = Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    paths = [line.removeprefix("0::") for line in groups.splitlines() if line.startswith("0::")]
    # "ID PARENT DEVICE ROOT PLACE OPTIONS … - TYPE SOURCE OPTIONS"; a part of the hierarchy is not looked into.
    hierarchies = [
        line.split()[4]
        for line in mounts.splitlines()
        if line.partition(" - ")[2].startswith("cgroup2 ") and line.split()[3] == "/"
    ]
    return Path(hierarchies[0] + paths[0]) if paths and hierarchies else None
