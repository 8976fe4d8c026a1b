"""Orphan processes of jobs whose shim was killed: they fall to the engine or its fork server, and are killed.

As long as a shim lives, orphans of its job are its own children. Those of a killed one fall to the next process above
that asks for them: the fork server, or the engine after the fork server has died. What an earlier engine launched falls
to init instead, and is known by its job marker and its session alone. macOS has nothing of the kind; there a process
that forks twice, changes its session and clears its environment escapes.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobs.processes.kill_children import children
from jobs.processes.process_table import Exempt, ProcessIdentity, ProcessTable, is_zombie, nothing

_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37

_SECONDS = 3.0
"""Most seconds to go on: a process that waits for a broken device cannot be killed."""

_CALM = 5
"""Looks in a row that must find nothing after a kill."""

_PAUSE = 0.002


_BECOMES_A_SHIM_SECONDS = 1.0
"""Seconds within which a forked process becomes a shim: milliseconds, more on a machine with much to do."""


@contextmanager
def subreaper() -> Iterator[bool]:
    """Make this process the parent of the orphans of everything that it starts, while the block lasts.

    The attribute is that of this process alone: what it starts does not inherit it.

    Yields:
        False where the system has no such thing.
    """
    if sys.platform != "linux":
        yield False
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    before = ctypes.c_int(0)
    prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    taken = prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield taken
    finally:
        # A program that embedded an engine goes on as it was: it would not collect orphans.
        prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def reparented(
    table: ProcessTable,
    orphan_parents: Collection[int],
    shims: Collection[ProcessIdentity],
    marks: Collection[str],
    exempt: Exempt = nothing,
) -> frozenset[ProcessIdentity]:
    """Return the reparented processes without the marker of a living attempt; two short lists are read.

    This process is also given orphans that were never a job's, where it is the first process of a container, or a shell
    became it. They lack the resource limit of a job's processes and are left alone.

    Args:
        table: The process table.
        orphan_parents: Ids of the processes that orphans are reparented to, this one among them.
        shims: The shims of the attempts that live.
        marks: The job markers of these attempts, and of those that are just being launched.
        exempt: Tells which processes are left alone.
    """
    known = {shim.pid for shim in shims}
    own, session = os.getpid(), os.getsid(0)
    entries = [
        entry
        for orphan_parent in orphan_parents
        for pid in children(orphan_parent)
        # The session is that of the engine's own helpers.
        if pid not in known and (entry := table.entry(pid)) is not None and entry.session != session
        if orphan_parent != own or table.limited(pid)
    ]
    return frozenset(
        entry.identity
        for entry in entries
        if table.job_marker(entry.identity.pid) not in marks and not exempt(entry.identity)
    )


def is_not_yet_a_shim(table: ProcessTable, server: int, identity: ProcessIdentity) -> bool:
    """Tell whether a process is one that the fork server has forked and that has not become a shim yet.

    Args:
        table: The process table.
        server: Process id of the fork server.
        identity: The process.
    """
    age = table.age(identity)
    return age is not None and age < _BECOMES_A_SHIM_SECONDS and _command_line(identity.pid) == _command_line(server)


def orphans(
    table: ProcessTable,
    orphan_parents: Collection[int],
    shims: Collection[ProcessIdentity],
    marks: Collection[str],
    exempt: Exempt = nothing,
) -> frozenset[ProcessIdentity]:
    """Return those of the reparented processes that belong to no living attempt; arguments as for `reparented`.

    Such a process does not tell whose it was: it can clear its marker, empty it or make one up. It is the orphan of an
    attempt whose shim was killed, and is left alone while such an attempt lives that began before it did. One with the
    marker of a living attempt is ended with that attempt.
    """
    began = [shim.start for shim in shims if table.identify(shim.pid) != shim]
    found = reparented(table, orphan_parents, shims, marks, exempt)
    return frozenset(identity for identity in found if not any(start <= identity.start for start in began))


def end_orphans(table: ProcessTable, look: Callable[[], Collection[ProcessIdentity]]) -> int:
    """Kill orphans until none is found any more, and return how many processes that were.

    What was below an orphan is reparented when the orphan has ended, and is found then. A look is so short that a chain
    of processes which fork and end is caught: one of them is a child of an orphan parent at any moment.

    Args:
        table: The process table.
        look: Returns the orphans that there are.
    """
    until = time.monotonic() + _SECONDS
    killed: set[ProcessIdentity] = set()
    calm = 0
    while calm < (_CALM if killed else 1) and time.monotonic() < until:
        hits = {one for one in look() if table.send(one, signal.SIGKILL)}
        killed |= hits
        calm = 0 if hits else calm + 1
        if killed and not hits:
            time.sleep(_PAUSE)
    return len(killed)


def reap_zombies() -> None:
    """Collect the orphans that have ended; a shim that has ended is collected with them."""
    session = os.getsid(0)
    for pid in ended_children():
        # A helper of the engine is in the engine's session, and the code that started it collects it.
        with suppress(ProcessLookupError, ChildProcessError):
            if os.getsid(pid) != session:
                os.waitpid(pid, os.WNOHANG)


def ended_children() -> list[int]:
    """Return the ids of this process's children that have ended and were not collected; only Linux tells.

    Orphans are all among the children of the first thread; what another thread started, it collects itself.
    """
    if sys.platform != "linux":
        return []
    try:
        # Almost always there is none, and one call tells so.
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return []
    except ChildProcessError:
        return []
    return [pid for pid in children(os.getpid()) if is_zombie(pid)]


def _command_line(pid: int) -> bytes | None:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
