"""The process that opened a connection, held so that its id cannot be reused while the engine checks it."""

import errno
import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.processes.process_table import ProcessIdentity, ProcessTable, process_table

SO_PEERPIDFD = 77
"""The socket option of Linux 6.5 and later; Python 3.11 has no name for it (include/uapi/asm-generic/socket.h)."""

_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
"""Level and options of macOS (sys/un.h)."""


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
