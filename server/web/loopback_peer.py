"""Which process is at the other end of a TCP connection on loopback: one inside a job, or of another user, is refused.

A cookie can be stolen: a browser keeps it in a file, and sends it to every server on this host, whatever its port. So a
request counts as a person's only where its process does, as on the engine's own socket. Linux alone says in `/proc`
which process holds a socket. Elsewhere, on macOS for example, the cookie alone decides.

What Linux tells, and what follows from it:

- Nobody owns the socket any more, since its process has ended: refused, as nobody waits for the answer.
- It belongs to another user: refused, but for root, who may do everything anyway; a relay of a virtual machine or of a
  container runs as root.
- Processes of this user hold it: refused where one of them is inside a job.
- It belongs to this user, and no process that can be looked into holds it: some hide their files from everybody but
  root, such as the `sshd` that forwards a port, and some live where `/proc` does not show them, in another container.
  It is let in where there are processes that hide, and none of these is inside a job; refused otherwise.

A program that runs already and connects for others, such as a proxy, counts as itself.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

import anyio
import anyio.to_thread

from jobs.errors import JobsError

Address = tuple[str, int]
"""Host and port of one end."""

Refuse = Callable[[int], None]
"""Raises a `JobsError` where the process with this id may not act as a person. Blocks."""

TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
"""Where Linux lists sockets; one of IPv6 can be connected to an address of IPv4."""

_MAPPED: Final = "0000000000000000FFFF0000"
"""What stands before an address of IPv4 in the second table."""

_LOOKS: Final = 3
"""How often it is looked again where a process changes meanwhile."""

_THREADS: Final = 2
"""How many threads look at once."""


class PeerRefusedError(JobsError):
    """The process at the other end may not use the page."""


class _State(Enum):
    ENDED = "ended"
    """The socket is closed, or nobody holds it."""
    CHANGED = "changed"
    """A process ended while it was looked at."""


_ENDED = "The program that asked has ended, or the engine cannot see it. Ask again from a program that stays."
_OTHER_USER = "This page belongs to another user of this machine."
_HIDDEN = (
    "The engine cannot tell which program asks: it runs in another container than the engine, or a job runs programs "
    "that hide what they do. Open the page on the engine's side, or use `claude-jobs top`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketRow:
    """A socket as the kernel lists it.

    Args:
        uid: The user whose it is.
        inode: Its number; 0 where no process holds it.
    """

    uid: int
    inode: int


class LoopbackPeers:
    """Decides once for each connection, in a thread, and forgets it with the connection.

    Args:
        refuse: Judges one process.
    """

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._connections: dict[Address, _Connection] = {}
        self._threads = anyio.CapacityLimiter(_THREADS)

    def come(self, client: Address) -> None:
        """Note a new connection; one with the same address is over."""
        self._connections[client] = _Connection()

    def go(self, client: Address) -> None:
        """Forget a connection."""
        self._connections.pop(client, None)

    async def refusal(self, client: Address, server: Address) -> str | None:
        """Return why the process at the other end may not use the page, or None.

        Args:
            client: The other end.
            server: This end.
        """
        connection = self._connections.get(client) or _Connection()
        async with connection.turn:
            if not connection.is_judged:
                judged = await anyio.to_thread.run_sync(
                    refusal_of, client, server, self._refuse, limiter=self._threads, abandon_on_cancel=True
                )
                connection.refusal, connection.is_judged = judged, True
        return connection.refusal


class _Connection:
    def __init__(self) -> None:
        self.turn = anyio.Lock()
        self.is_judged = False
        self.refusal: str | None = None


def refusal_of(client: Address, server: Address, refuse: Refuse) -> str | None:
    """Return why the process that opened a connection may not use the page, or None. Blocks.

    It takes as long as reading the names of this user's open files does.

    Args:
        client: The end that connected.
        server: The end that accepted.
        refuse: Judges one process.
    """
    if sys.platform != "linux":
        return None
    for _ in range(_LOOKS):
        row = socket_row(client, server)
        if row is None or row.inode == 0:
            return _ENDED
        if row.uid != os.geteuid():
            return None if row.uid == 0 else _OTHER_USER
        verdict = _judged(row.inode, refuse)
        if verdict is not _State.CHANGED:
            return _ENDED if verdict is _State.ENDED else verdict
    return _ENDED


def _judged(inode: int, refuse: Refuse) -> str | _State | None:
    owners, hidden = look_for(inode)
    if not owners:
        return _HIDDEN if not hidden or _first_refusal(hidden, refuse) is not None else None
    said = _first_refusal(owners, refuse)
    # Once more: an id may have passed to another process before that was judged.
    return said if said is not None or set(owners) <= set(look_for(inode)[0]) else _State.CHANGED


def _first_refusal(pids: Sequence[int], refuse: Refuse) -> str | None:
    for pid in pids:
        try:
            refuse(pid)
        except JobsError as error:
            return str(error)
    return None


def socket_row(local: Address, remote: Address) -> SocketRow | None:
    """Return the socket with these two ends, or None where there is none. Blocks for a short read.

    Args:
        local: Its own end, an address of IPv4.
        remote: The other one.
    """
    ours, theirs = _spelled(local), _spelled(remote)
    for table, before in zip(TABLES, ("", _MAPPED), strict=True):
        wanted = f" {before}{ours} {before}{theirs} "
        with suppress(OSError), open(table, encoding="ascii") as lines:  # noqa: PTH123 - no file of a disk
            for line in lines:
                if wanted in line:
                    fields = line.split()
                    return SocketRow(uid=int(fields[7]), inode=int(fields[9]))
    return None


def _spelled(address: Address) -> str:
    packed = socket.inet_aton(address[0])
    # A word in the order of the machine.
    return f"{int.from_bytes(packed, sys.byteorder):08X}:{address[1]:04X}"


def look_for(inode: int) -> tuple[list[int], list[int]]:
    """Return the processes that hold a socket, and those of this user that hide what they hold. Blocks."""
    wanted = f"socket:[{inode}]"
    owners: list[int] = []
    hidden: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - a Path for every process doubles the cost
        if not name.isdigit():
            continue
        try:
            if wanted in _open_files(f"/proc/{name}/fd"):
                owners.append(int(name))
        except PermissionError:
            if os.geteuid() in _users_of(name):
                hidden.append(int(name))
        except OSError:
            # It has ended.
            continue
    return owners, hidden


def _open_files(directory: str) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield os.readlink(entry.path)  # noqa: PTH115 - as above


def _users_of(pid: str) -> set[int]:
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("Uid:"):
                return {int(one) for one in line.split()[1:]}
    return set()
