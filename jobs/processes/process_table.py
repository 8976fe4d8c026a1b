"""Process table of the machine: identity, parent and job marker of each process, and signals to exactly one."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import psutil

from jobs.claude.command import MARKER
from jobs.processes.fork_server import job_locks


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process and no later one of the same number.

    Args:
        pid: Process id.
        start: When it started: clock ticks since boot on Linux, seconds since the epoch elsewhere.
    """

    pid: int
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One living process, zombies excepted.

    Args:
        identity: Which one.
        parent: Process id of its parent.
        group: Its process group.
        session: Its session; 0 for the kernel's own threads.
    """

    identity: ProcessIdentity
    parent: int
    group: int
    session: int


class ProcessTable(Protocol):
    """The platform's process table."""

    def entries(self) -> Mapping[int, Entry]:
        """Return every living process by its id."""
        ...

    def entry(self, pid: int) -> Entry | None:
        """Return the living process that has this id now, or None."""
        ...

    def identify(self, pid: int) -> ProcessIdentity | None:
        """Return the identity of the process that has this id now, zombies included, or None."""
        ...

    def parent(self, pid: int) -> int | None:
        """Return the id of the process's parent now, or None where there is no such process."""
        ...

    def job_marker(self, pid: int) -> str | None:
        """Return the job marker that the process inherited, or None where it has none or may not be read."""
        ...

    def variable(self, pid: int, name: str) -> str | None:
        """Return a variable of the environment that the process was started with; None as for `job_marker`."""
        ...

    def limited(self, pid: int) -> bool:
        """Return whether the process has the resource limit that every process of a job inherits."""
        ...

    def send(self, target: ProcessIdentity, number: signal.Signals) -> bool:
        """Signal exactly this process; False where it is gone or not ours."""
        ...

    def newest(self) -> Iterator[int]:
        """Return the ids that were given out last, latest first, as far as the platform tells."""
        ...

    def age(self, target: ProcessIdentity) -> float | None:
        """Return for how many seconds this process has been, by a clock that is never set; None where there is none."""
        ...


class LinuxTable:
    """The table as `/proc` shows it; signals go through a pidfd, so a reused id is never hit."""

    def entries(self) -> Mapping[int, Entry]:
        """Return every living process by its id."""
        # One listing and one read for each: 2 ms for 75 processes were measured, psutil takes ten times that.
        return {
            entry.identity.pid: entry
            for name in os.listdir("/proc")  # noqa: PTH208 - a Path for every process doubles the cost of a pass
            if name.isdigit() and (entry := self.entry(int(name))) is not None
        }

    def entry(self, pid: int) -> Entry | None:
        """Return the living process that has this id now, or None."""
        fields = _stat(pid)
        if not fields or fields[0] in {b"Z", b"X"}:
            return None
        return Entry(
            identity=ProcessIdentity(pid=pid, start=float(fields[19])),
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
        )

    def identify(self, pid: int) -> ProcessIdentity | None:
        """Return the identity of the process that has this id now, zombies included, or None."""
        fields = _stat(pid)
        return ProcessIdentity(pid=pid, start=float(fields[19])) if fields else None

    def parent(self, pid: int) -> int | None:
        """Return the id of the process's parent now, or None where there is no such process."""
        fields = _stat(pid)
        return int(fields[1]) if fields else None

    def job_marker(self, pid: int) -> str | None:
        """Return the job marker that the process inherited, or None where it has none or may not be read."""
        return self.variable(pid, MARKER)

    def variable(self, pid: int, name: str) -> str | None:
        """Return a variable of the environment that the process was started with; None as for `job_marker`."""
        start = f"{name}=".encode()
        environ = _read(f"/proc/{pid}/environ")
        if start not in environ:
            return None
        found = [entry for entry in environ.split(b"\0") if entry.startswith(start)]
        return found[0][len(start) :].decode("utf-8", "replace") if found else None

    def limited(self, pid: int) -> bool:
        """Return whether the process has the resource limit that every process of a job inherits."""
        _, _, locks = _read(f"/proc/{pid}/limits").partition(b"Max file locks")
        hard = locks.split(maxsplit=2)[1] if locks else b"unlimited"
        return hard != b"unlimited" and int(hard) <= job_locks()

    def send(self, target: ProcessIdentity, number: signal.Signals) -> bool:
        """Signal exactly this process; False where it is gone or not ours."""
        with pidfd(target) as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except (ProcessLookupError, PermissionError):
                return False
            return True

    def newest(self) -> Iterator[int]:
        """Return the ids that were given out last, latest first."""
        last = int(_read("/proc/loadavg").rsplit(maxsplit=1)[-1] or 0)
        return iter(range(last + 2, max(1, last - 10), -1))

    def age(self, target: ProcessIdentity) -> float:
        """Return for how many seconds this process has been, by the clock that counts from the boot."""
        return (_ticks() - target.start) / os.sysconf("SC_CLK_TCK")


class PortableTable:
    """The table as psutil shows it, for macOS and other systems without `/proc` and pidfd."""

    def entries(self) -> Mapping[int, Entry]:
        """Return every living process by its id."""
        return {pid: entry for pid in psutil.pids() if (entry := self.entry(pid)) is not None}

    def entry(self, pid: int) -> Entry | None:
        """Return the living process that has this id now, or None."""
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                return _portable_entry(process) if process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, OSError):
            # It ended meanwhile, or it belongs to another user.
            return None

    def identify(self, pid: int) -> ProcessIdentity | None:
        """Return the identity of the process that has this id now, zombies included, or None."""
        try:
            return ProcessIdentity(pid=pid, start=psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    def parent(self, pid: int) -> int | None:
        """Return the id of the process's parent now, or None where there is no such process, or a zombie."""
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process.ppid()
        except psutil.Error:
            return None

    def job_marker(self, pid: int) -> str | None:
        """Return the job marker that the process inherited, or None where it has none or may not be read."""
        return self.variable(pid, MARKER)

    def variable(self, pid: int, name: str) -> str | None:
        """Return a variable of the environment that the process was started with; None as for `job_marker`."""
        try:
            return psutil.Process(pid).environ().get(name)
        except (psutil.Error, OSError):
            return None

    def limited(self, pid: int) -> bool:
        """Return False: only Linux has the limit."""
        return False

    def send(self, target: ProcessIdentity, number: signal.Signals) -> bool:
        """Signal this process, its start time checked just before; False where it is gone or not ours."""
        try:
            process = psutil.Process(target.pid)
            if process.create_time() != target.start:
                return False
            process.send_signal(number)
        except (psutil.Error, OSError):
            return False
        return True

    def newest(self) -> Iterator[int]:
        """Return nothing: only Linux tells."""
        return iter(())

    def age(self, target: ProcessIdentity) -> float | None:
        """Return None: the start is a time of day here."""
        return None


Exempt = Callable[[ProcessIdentity], bool]
"""Tells whether a process, with all below it, is left alone."""


def nothing(identity: ProcessIdentity) -> bool:
    """Exempt no process."""
    return False


def is_exempt(table: ProcessTable, exempt: Exempt, pid: int) -> bool:
    """Tell whether the process that has an id now is left alone."""
    identity = table.identify(pid)
    return identity is not None and exempt(identity)


def process_table() -> ProcessTable:
    """Return this platform's table."""
    return LinuxTable() if sys.platform == "linux" else PortableTable()


def already_ended(pid: int) -> ProcessIdentity:
    """Return the identity of a process that was just started and ended before it could be looked at.

    Its start is taken to be now; no living process has this identity.
    """
    if sys.platform != "linux":
        return ProcessIdentity(pid=pid, start=time.time())
    # A start that the kernel tells is a whole number.
    return ProcessIdentity(pid=pid, start=_ticks() + 0.5)


def is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and was not collected; only Linux tells."""
    fields = _stat(pid)
    return bool(fields) and fields[0] == b"Z"


@contextmanager
def pidfd(target: ProcessIdentity) -> Iterator[int | None]:
    """Hold a descriptor of exactly this process; None where it is gone, and wherever the platform has none."""
    if sys.platform != "linux":
        yield None
        return
    try:
        descriptor = os.pidfd_open(target.pid)
    except OSError:
        yield None
        return
    try:
        # Read after the descriptor was opened: from here on the id cannot pass to another process unnoticed.
        fields = _stat(target.pid)
        yield descriptor if fields and float(fields[19]) == target.start else None
    finally:
        os.close(descriptor)


def _ticks() -> int:
    """Return the clock ticks since the boot, by a clock that is never set."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def _stat(pid: int) -> list[bytes]:
    text = _read(f"/proc/{pid}/stat")
    # The command's name is in parentheses and may hold blanks and parentheses itself.
    return text[text.rindex(b")") + 2 :].split() if b")" in text else []


def _read(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _portable_entry(process: psutil.Process) -> Entry:
    return Entry(
        identity=ProcessIdentity(pid=process.pid, start=process.create_time()),
        parent=process.ppid(),
        group=os.getpgid(process.pid),
        session=os.getsid(process.pid),
    )
