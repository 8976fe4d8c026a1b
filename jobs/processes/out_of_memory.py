"""Tells whether the kernel's out-of-memory killer ended a process, by the control group and the kernel's counter."""

import time
from functools import lru_cache
from pathlib import Path

from jobs.processes import cgroup

VMSTAT = Path("/proc/vmstat")

SIGKILL_EXIT = 137
"""Exit code of a process that SIGKILL ended, the only signal that this killer sends."""

RECENT = 1.0
"""Seconds for which a reading of the counter serves as the beginning of further attempts: the kernel adds up its
statistics of all processors for each."""


def kills() -> int | None:
    """Return how many processes this machine's kernel has ended for lack of memory; None where it does not tell."""
    return _counter(VMSTAT, "oom_kill")


def recent_kills() -> int | None:
    """Return what `kills` returned at most `RECENT` seconds ago."""
    return _kills_in(int(time.monotonic() / RECENT))


def explanation(marker: str, before: int | None) -> str:
    """Return why an attempt that SIGKILL ended was killed, as a sentence, or nothing where nothing tells.

    Args:
        marker: The job marker of the attempt's processes.
        before: What `kills` returned when the attempt began.
    """
    group = cgroup.path_of(marker)
    if group is not None and _counter(group / "memory.events", "oom_kill"):
        return "It was out of memory: the kernel ended it."
    now = kills()
    if before is not None and now is not None and now > before:
        return "Probably out of memory: the kernel ended a process for lack of memory while it ran."
    return ""


@lru_cache(maxsize=1)
def _kills_in(_stretch: int) -> int | None:
    return kills()


def _counter(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(value) for key, _, value in (line.partition(" ") for line in lines) if key == name), None)
