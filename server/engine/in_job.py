"""Tells whether a process runs inside a job: it or an ancestor has a job's mark, or it descends from the engine."""

import os

from jobs.errors import JobsError
from jobs.processes.process_table import ProcessIdentity, ProcessTable, process_table
from server.engine.peer import Peer

_MAX_ANCESTORS = 4096
"""Most ancestors that are read; a longer line of them is refused, so that no process hides by its depth."""

_LOOKS = 5
"""How often the ancestors are read when they change meanwhile: a person's script may end just then."""


class InsideJobError(JobsError):
    """A process inside a job asked for what only a person or a program outside every tree may have."""

    def __init__(self) -> None:
        super().__init__(
            "This process runs inside a job, so it may not act as a person. "
            "Use the tools of the job's own MCP server claude-jobs: claude_run_async, claude_wait and the others."
        )


class UnknownPeerError(JobsError):
    """It is not known which process a connection belongs to, so it cannot count as a person's."""

    def __init__(self) -> None:
        super().__init__(
            "The engine cannot tell which process opened this connection: that process has ended, or it runs in a "
            "container that the engine cannot see into. Open a connection from a process that stays until it is "
            "answered, on the same side of the container as the engine."
        )


def refuse_inside_job(peer: Peer | None, table: ProcessTable | None = None) -> None:
    """Refuse a process of a job that comes without the job's token: it would escape its tree and the tree's limits.

    Blocks for as long as the process table is read: 0.6 ms for five ancestors (measured).

    Args:
        peer: The process that connected, or None where that is not known.
        table: The process table, or None for this platform's.

    Raises:
        InsideJobError: It runs inside a job.
        UnknownPeerError: It has ended, or its ancestors cannot be read to the first one.
    """
    table = table or process_table()
    inside = peer is not None and peer.alive(table) and inside_job(peer.identity.pid, table)
    # Checked once more: what was read by process id is about this process only if it lived until here.
    if peer is None or not peer.alive(table):
        raise UnknownPeerError
    if inside:
        raise InsideJobError


def inside_job(pid: int, table: ProcessTable) -> bool:
    """Tell whether a process or one of its ancestors has a job's mark, or an ancestor is this engine.

    A process that clears its environment still has a marked ancestor, and an orphan of a job gets a marked shim or the
    engine as its parent. One whose shim and engine were killed gets init, and is known by the resource limit that it
    inherited and that only root can raise. A process that another service starts for a job is not recognised:
    `systemd-run`, `at`, a running tmux.

    Raises:
        UnknownPeerError: The line of ancestors cannot be read to its end.
    """
    for _ in range(_LOOKS):
        line = _line_of(pid, table)
        if line is None:
            continue
        if any(table.job_marker(one.pid) is not None or table.limited(one.pid) for one in line) or os.getpid() in (
            one.pid for one in line[1:]
        ):
            return True
        # Unchanged: no ancestor ended while it was read, so none was skipped.
        if line == _line_of(pid, table):
            return False
    raise UnknownPeerError


def _line_of(pid: int, table: ProcessTable) -> list[ProcessIdentity] | None:
    """Return a process and its ancestors up to the first one below init, or None where one of them vanished."""
    line: list[ProcessIdentity] = []
    while pid > 1 and len(line) < _MAX_ANCESTORS:
        identity, parent = table.identify(pid), table.parent(pid)
        if identity is None or parent is None:
            # With `hidepid` the system hides other users' processes, a login shell's parent for example.
            return line if line and _of_another_user(pid) else None
        line.append(identity)
        pid = parent
    return line if line and pid <= 1 else None


def _of_another_user(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False
