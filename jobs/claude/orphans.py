"""Processes that fell to the engine: what a job left without mark, session or living parent is still its child.

Linux lets a process ask to be given the orphans among its descendants. Those of what an earlier engine launched are not
among them: they fell to init when that engine ended. macOS has nothing of the kind; there a process that forks twice,
changes its session and clears its environment escapes.
"""

import ctypes
import os
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress

from jobs.claude.proctable import Entry, ProcessIdentity, ProcessTable, ended_children

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37


def become_subreaper() -> bool:
    """Ask for the orphans of everything that this process starts from now on; False where the system has no such thing.

    The order is kept by this process alone: it is not inherited by what it starts.
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def is_subreaper() -> bool:
    """Tell whether orphans fall to this process."""
    if sys.platform != "linux":
        return False
    answer = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def orphans(
    table: ProcessTable, shims: Collection[ProcessIdentity], marks: Collection[str]
) -> frozenset[ProcessIdentity]:
    """Return the processes that fell to this one, that bear no mark of an attempt that lives and that no job may want.

    Such a process does not tell whose it was: it can clear its mark, empty it or make one up. It is nobody's any more
    once no attempt lives that began before it did. One with the mark of a living attempt is ended with that attempt.

    Args:
        table: The process table.
        shims: The shims of the attempts that live.
        marks: The marks of these attempts, and of those that are just being launched.
    """
    began = [shim.start for shim in shims]
    return frozenset(
        entry.identity
        for entry in _fallen(table.entries())
        if table.mark(entry.identity.pid) not in marks and not any(start <= entry.identity.start for start in began)
    )


def bury() -> None:
    """Collect the orphans that have ended; a shim that has ended is collected with them."""
    session = os.getsid(0)
    for pid in ended_children(os.getpid()):
        # A helper of the engine's own stands in its session, and whoever started it collects it.
        with suppress(ProcessLookupError, ChildProcessError):
            if os.getsid(pid) != session:
                os.waitpid(pid, os.WNOHANG)


def _fallen(entries: Mapping[int, Entry]) -> list[Entry]:
    own, session = os.getpid(), os.getsid(0)
    return [entry for entry in entries.values() if entry.parent == own and entry.session != session]
