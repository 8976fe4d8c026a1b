"""The process that opened a connection, held so that its id cannot be reused, and whether it runs inside a job."""

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.errors import JobsError
from jobs.processes.process_table import ProcessIdentity, ProcessTable, process_table

SO_PEERPIDFD = 77
"""The socket option of Linux 6.5 and later; Python 3.11 has no name for it (include/uapi/asm-generic/socket.h)."""

_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
"""Level and options of macOS (sys/un.h)."""

_MAX_ANCESTORS = 4096
"""Most ancestors that are read; a longer line of them is refused, so that no process hides by its depth."""

_LOOKS = 5
"""How often the ancestors are read when they change meanwhile: a person's script may end just then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that connected; not necessarily the one that sends, where several share the socket.

    Args:
        identity: Which process.
        descriptor: A pidfd of it, or None where the platform has none.
    """

    identity: ProcessIdentity
    descriptor: int | None = None

    def alive(self, table: ProcessTable) -> bool:
        """Whether it has not ended; a zombie has."""
        if self.descriptor is not None:
            # Readable from the moment of the exit on, before the process is reaped. Not `select`, which takes no
            # descriptor above 1,023.
            look = select.poll()
            look.register(self.descriptor, select.POLLIN)
            return not look.poll(0)
        return table.identify(self.identity.pid) == self.identity and table.parent(self.identity.pid) is not None


@contextmanager
def peer_of(connection: socket.socket, *, option: int = SO_PEERPIDFD) -> Iterator[Peer | None]:
    """Hold the process at the other end while the block runs; None where it has ended or is not visible from here.

    Linux 6.5 and later give a pidfd of the very process that connected. Before that the engine opens one by process id
    as soon as it accepts: a process that takes the id between the connect and the accept is taken for the peer. macOS
    has no pidfd; there the start time distinguishes a process from a later one with its id.

    Args:
        connection: An accepted unix socket.
        option: The socket option that returns the pidfd.
    """
    descriptor = _pidfd(connection, option) if sys.platform == "linux" else None
    try:
        pid = peer_pid(connection)
        identity = process_table().identify(pid) if pid else None
        known = identity is not None and (descriptor is not None or sys.platform != "linux")
        yield Peer(identity=identity, descriptor=descriptor) if known and identity else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def peer_pid(connection: socket.socket) -> int:
    """Return the id of the process that connected; 0 where it lives outside the engine's pid namespace."""
    if sys.platform == "darwin":
        return int(struct.unpack("i", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))[0])
    return _credentials(connection)[0] if hasattr(socket, "SO_PEERCRED") else 0


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user id of the process that connected, or None where the platform does not report it."""
    if hasattr(socket, "SO_PEERCRED"):
        return _credentials(connection)[1]
    if sys.platform == "darwin":
        # struct xucred: version, uid, number of groups, groups.
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)
        return int(struct.unpack("2I", credentials[:8])[1])
    return None


def _pidfd(connection: socket.socket, option: int) -> int | None:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, option)
    except OSError as error:
        # Any other error says that the process has ended.
        if error.errno != errno.ENOPROTOOPT:
            return None
    try:
        return os.pidfd_open(peer_pid(connection))
    except OSError:
        return None


def _credentials(connection: socket.socket) -> tuple[int, int]:
    """Return the process id and the user id of the other end, where the platform has SO_PEERCRED."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid


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


def refuse_inside_job(
    peer: Peer | None, table: ProcessTable | None = None, own_commands: Collection[ProcessIdentity] = ()
) -> None:
    """Refuse a process of a job that comes without the job's token: it would escape its tree and the tree's limits.

    Blocks for as long as the process table is read: 0.6 ms for five ancestors (measured).

    Args:
        peer: The process that connected, or None where that is not known.
        table: The process table, or None for this platform's.
        own_commands: As `inside_job` takes it.

    Raises:
        InsideJobError: It runs inside a job.
        UnknownPeerError: It has ended, or its ancestors cannot be read to the first one.
    """
    table = table or process_table()
    inside = peer is not None and peer.alive(table) and inside_job(peer.identity.pid, table, own_commands)
    # Checked once more: what was read by process id is about this process only if it lived until here.
    if peer is None or not peer.alive(table):
        raise UnknownPeerError
    if inside:
        raise InsideJobError


def refuse_pid_inside_job(pid: int, own_commands: Collection[ProcessIdentity] = ()) -> None:
    """Refuse a process of a job, known by its id alone. Blocks as `refuse_inside_job` does.

    Raises:
        InsideJobError: It runs inside a job.
        UnknownPeerError: Its ancestors cannot be read to the first one.
    """
    if inside_job(pid, process_table(), own_commands):
        raise InsideJobError


def inside_job(pid: int, table: ProcessTable, own_commands: Collection[ProcessIdentity] = ()) -> bool:
    """Tell whether a process or one of its ancestors has a job's mark, or an ancestor is this engine.

    A process that clears its environment still has a marked ancestor, and an orphan of a job gets a marked shim or the
    engine as its parent. One whose shim and engine were killed gets init, and is known by the resource limit that it
    inherited and that only root can raise. A process that another service starts for a job is not recognised:
    `systemd-run`, `at`, a running tmux.

    Args:
        pid: The process.
        table: The process table.
        own_commands: Processes that this engine started for the person: what they start is the person's. An orphan of
            one falls to the engine or to init, and is not known any more.

    Raises:
        UnknownPeerError: The line of ancestors cannot be read to its end.
    """
    for _ in range(_LOOKS):
        line = _line_of(pid, table)
        if line is None:
            continue
        own = next((place for place, one in enumerate(line) if one in own_commands), len(line))
        is_marked = any(table.job_marker(one.pid) is not None or table.limited(one.pid) for one in line[: own + 1])
        if is_marked or os.getpid() in (one.pid for one in line[1:own]):
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
