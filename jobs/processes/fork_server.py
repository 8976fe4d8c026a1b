"""Fork server: a small process that launches the shims, `python -I -S fork_server.py DESCRIPTOR [fork]`; Linux only.

It makes the files of the attempt, starts the shim and opens what the engine follows it by. In the engine that would be
some forty system calls, each of which gives up the interpreter and waits to have it back. Each shim becomes a subreaper
between `fork` and `exec`: every orphan of its job is its child from then on, even one that changed its environment
and its session. A fork of the engine, which has 130 MB, would take 13 to 20 ms, one of this process of 11 MB takes 2,
and `Vfork` none (measured). Only a process with one thread, as this one, may run code between the two.

It ends when the engine closes the other end of the socket or dies; the shims go on. It is a subreaper too: what a
killed shim leaves falls to it, where the engine finds it.

Each shim also gets a resource limit that nothing enforces and that only root can raise again. What a job starts
inherits it, so a process of a job is known as one also after the shim, the fork server and the engine were killed.

A request is four bytes of length and that many bytes of body, fields that are separated by NUL: the attempt's
directory, its control group or nothing, its record, its stdin, the number of arguments, the arguments and the variables
`NAME=VALUE`. Requests may follow each other before they are answered; they are answered in their order. An answer is an
error number, the process id and the start of the process in clock ticks, or 0; with it come descriptors of its stdout,
its stderr and the process itself.
"""

import array
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence

LENGTH = struct.Struct("!I")
ANSWER = struct.Struct("!iiQ")
MOST_DESCRIPTORS = 3

RUNS = -1
"""Sent in place of an error number: the attempt has a process already."""
NOT_PRIVATE = -2
"""The same: the directory is not this user's alone."""

FORK = "fork"
"""Argument that forbids `Vfork`."""
RECORD = "job.json"
STDIN = "in"
STDOUT = "out"
STDERR = "err"
LOCK = "lock"

RLIMIT_LOCKS = 10
"""Limit of file locks (asm-generic/resource.h), for which Python has no name. Linux has not enforced it since 2.4.25,
it is never set, and a process without privileges can only lower it."""
JOB_LOCKS = (1 << 40) + 0x636A
"""Hard limit of file locks in every process of a job, on a machine that has no lower one for all users."""

_OTHERS = 0o077
_PR_SET_CHILD_SUBREAPER = 36
_KEPT_FROM = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
"""Ignored here: a Ctrl-C in the terminal of a foreground engine, and the ends of children, which the kernel then
collects by itself."""
_RESTORED = (*_KEPT_FROM, signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores the last two by itself."""

_ENVIRONMENT_SECONDS = 1.0
"""Longest wait for a program to show its environment, where /proc does not show it as it was given."""
_ENVIRONMENT_PAUSE = 0.0001

_CLONE_VM = 0x100
_CLONE_VFORK = 0x4000

Spawn = Callable[[list[bytes], list[bytes]], int]
"""Starts a program, absolute path and arguments, with an environment of `NAME=VALUE`; returns the process id once the
program runs, or raises OSError. The program leads a session, is a subreaper, has the limit of a job's processes and the
signals of a fresh process, and inherits the inheritable descriptors."""

_STACK = 16384  # bytes; a system call with its wrapper needs some hundred
_long = ctypes.c_long


class _Context(ctypes.Structure):
    """The beginning of glibc's `ucontext_t`, which has 968 bytes on x86-64, and a stack behind it."""

    _fields_ = (
        ("flags", ctypes.c_ulong),
        ("link", ctypes.c_void_p),
        ("stack", ctypes.c_void_p),
        ("stack_flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
        ("rest", ctypes.c_char * 4056),
        ("room", ctypes.c_ubyte * _STACK),
    )


class RefusedError(Exception):
    """An attempt cannot be launched in its directory.

    Args:
        number: `RUNS` or `NOT_PRIVATE`.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def main() -> None:
    """Serve requests until the other end is closed."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    for number in _KEPT_FROM:
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    spawn = Vfork() if sys.argv[2:] != [FORK] and can_vfork() else fork
    while (body := receive(connection)) is not None:
        answer, descriptors = obey(body, spawn)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        connection.sendmsg([answer], rights)
        for descriptor in descriptors:
            os.close(descriptor)


def receive(connection: socket.socket) -> bytes | None:
    """Return the body of the next request, or None where there will be none."""
    head = _exactly(connection, LENGTH.size)
    return None if head is None else _exactly(connection, *LENGTH.unpack(head))


def obey(body: bytes, spawn: Spawn) -> tuple[bytes, list[int]]:
    """Launch what a request asks for, and return the answer and its descriptors."""
    directory, group, record, stdin, count, *words = body.split(b"\0")
    argv, env = words[: int(count)], words[int(count) :]
    written: list[int] = []
    try:
        make_group(group)
        lock, *written = open_files(directory, record, stdin)
        try:
            os.set_inheritable(lock, True)
            pid = spawn(argv, env)
        finally:
            os.close(lock)
    except (RefusedError, OSError) as error:
        for descriptor in written:
            os.close(descriptor)
        number = error.number if isinstance(error, RefusedError) else error.errno or errno.EIO
        return ANSWER.pack(number, 0, 0), []
    await_environment(pid, env)
    start, watch = watched(pid)
    return ANSWER.pack(0, pid, start), [*written, *watch]


def make_group(group: bytes) -> None:
    """Make the control group of an attempt; where there can be none, the shim does without."""
    if group:
        try:  # noqa: SIM105 - no contextlib: this must start fast
            os.mkdir(group)  # noqa: PTH102 - nor pathlib
        except OSError:
            pass


def open_files(directory: bytes, record: bytes, stdin: bytes) -> list[int]:
    """Make the files of an attempt and return descriptors of its lock, which is taken, of its stdout and its stderr.

    Args:
        directory: Its directory, which is made with those above it.
        record: What the attempt is, written before its process exists; or nothing.
        stdin: What its process will read.

    Raises:
        RefusedError: It runs already, or the directory is not private.
        OSError: The system refused.
    """
    try:
        os.mkdir(directory, 0o700)  # noqa: PTH102 - see `make_group`
    except FileNotFoundError:
        os.makedirs(directory, 0o700)  # noqa: PTH103 - the same
    except FileExistsError:
        pass
    here = _open_private(directory)
    opened: list[int] = []
    try:
        opened.append(open_in(here, LOCK, os.O_RDWR | os.O_CREAT))
        _take(opened[0])
        for name, data in ((RECORD, record), (STDIN, stdin)):
            if data:
                _write_in(here, name, data)
        opened.append(open_in(here, STDOUT, os.O_RDONLY | os.O_CREAT))
        opened.append(open_in(here, STDERR, os.O_RDONLY | os.O_CREAT))
    except (RefusedError, OSError):
        for descriptor in opened:
            os.close(descriptor)
        raise
    finally:
        os.close(here)
    return opened


def open_in(here: int, name: str, flags: int) -> int:
    """Open a file of an attempt, never through a link and never one that belongs to another user.

    Args:
        here: Descriptor of the attempt's directory.
        name: Its name.
        flags: As `os.open` takes them.

    Raises:
        OSError: The system refused, or it belongs to another user.
    """
    # Without O_NONBLOCK a job that puts a named pipe in a file's place would block the process that opens it.
    opened = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=here)
    if os.fstat(opened).st_uid != os.geteuid():
        os.close(opened)
        raise FileNotFoundError(errno.ENOENT, "it belongs to another user", name)
    return opened


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def can_vfork() -> bool:
    """Tell whether `Vfork` works here, by a start that the system must refuse."""
    # `makecontext` takes pointers on x86-64 with glibc, see its manual page. Up to glibc 2.24 a child that borrows
    # memory changes the process id that the library remembers.
    if os.uname().machine != "x86_64" or sys.maxsize < 1 << 32 or _glibc_version() < (2, 25):
        return False
    try:
        Vfork()([b"/"], [])
    except OSError as error:
        # A sandbox may refuse to lend memory; where an emulator copies it, the child's failure does not show here.
        return error.errno == errno.EACCES
    return False


class Vfork:
    """A `Spawn` whose child borrows this process's memory until its `exec`: nothing is copied.

    `posix_spawn` and `subprocess` borrow too, but cannot make the child a subreaper, which only it can ask for itself.
    `os.fork` copies page tables, and then the pages that both write to: 1.5 to 2 ms of CPU a launch (measured). No
    Python may run in borrowed memory, so the child calls functions of the C library alone: each returns into the next,
    as makecontext(3) says of `uc_link`. It leaves its stacks here, and `errno`. See also clone(2) for `CLONE_VFORK`.
    """

    def __init__(self) -> None:
        # Its own functions, not those that a preloaded library puts in their place: these may need a larger stack.
        self._libc = ctypes.CDLL("libc.so.6", use_errno=True)
        self._failed = ctypes.c_char()
        self._limit = (ctypes.c_ulong * 2)()
        self._contexts: list[_Context] = []
        self._stack = ctypes.create_string_buffer(_STACK)
        # It grows downwards, from an address that is a multiple of 16.
        self._top = ctypes.c_void_p((ctypes.addressof(self._stack) + _STACK) & ~15)

    def __call__(self, argv: list[bytes], env: list[bytes]) -> int:
        """Start a program."""
        libc = self._libc
        calls: list[tuple[object, ...]] = [(libc.setsid,), (libc.prctl, _long(_PR_SET_CHILD_SUBREAPER), _long(1))]
        limit = job_locks()
        if limit >= 0:
            self._limit[:] = [limit, limit]
            calls.append((libc.setrlimit, _long(RLIMIT_LOCKS), self._limit))
        calls += [(libc.signal, _long(number), _long(signal.SIG_DFL)) for number in _RESTORED]
        calls.append((libc.execve, ctypes.c_char_p(argv[0]), _strings(argv), _strings(env)))
        # The child runs these only where the program could not be started. `errno` alone does not tell.
        calls += [(libc.memset, ctypes.byref(self._failed), _long(1), _long(1)), (libc._exit, _long(127))]  # noqa: SLF001 - a function of C
        self._failed.value = b"\0"
        first = self._chain(calls)
        ctypes.set_errno(0)
        # It returns after the child's `exec` or end.
        pid: int = libc.clone(libc.setcontext, self._top, _CLONE_VM | _CLONE_VFORK | signal.SIGCHLD, first)
        if pid < 0 or self._failed.value != b"\0":
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return pid

    def _chain(self, calls: Sequence[tuple[object, ...]]) -> object:
        """Return what `setcontext` takes to make these calls one after the other; the last one must not return."""
        while len(self._contexts) < len(calls):
            self._contexts.append(context := _Context())
            self._libc.getcontext(ctypes.byref(context))
            context.stack, context.size = ctypes.addressof(context.room), _STACK
        following = None
        for context, (function, *arguments) in zip(
            reversed(self._contexts[: len(calls)]), reversed(calls), strict=True
        ):
            context.link = following
            # Before every start, as a call that returned has overwritten the way to the next one.
            self._libc.makecontext(ctypes.byref(context), function, len(arguments), *arguments)
            following = ctypes.addressof(context)
        return ctypes.byref(self._contexts[0])


def fork(argv: list[bytes], env: list[bytes]) -> int:
    """Start a program from a copy of this process; a `Spawn`."""
    result, report = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(result, "rb") as reported:
        try:
            pid = os.fork()
            if pid == 0:
                _become(argv, env, report)
        finally:
            os.close(report)
        # The pipe is closed by the `exec` that succeeds.
        refused = reported.read(16)
    if refused:
        raise OSError(int(refused), os.strerror(int(refused)))
    return pid


def await_environment(pid: int, env: Sequence[bytes]) -> None:
    """Wait until a program that was just started shows its environment, which tells the engine whose it is.

    The kernel wakes the parent before it has given the program its arguments and its environment: 3 to 28 of 100 starts
    returned in between (measured). A look for orphans would take such a process for one.

    Args:
        pid: Its process id.
        env: Its environment, as `Spawn` takes it.
    """
    whole = b"".join(word + b"\0" for word in env)
    until = time.monotonic() + _ENVIRONMENT_SECONDS
    try:
        while whole and time.monotonic() < until:
            # Opened at each look: an open file shows the memory that the process had then, at first this one's.
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - see `make_group`
                if whole.startswith(file.read(len(whole)) or b"\0") or _is_over(pid):
                    return
            time.sleep(_ENVIRONMENT_PAUSE)
    except OSError:
        # It is over already: so newer kernels say it.
        return


def _is_over(pid: int) -> bool:
    # Kernels before 6.16 show an empty environment of a program that has ended.
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def watched(pid: int) -> tuple[int, list[int]]:
    """Return the start of a child in clock ticks and a descriptor of it, or 0 and none where it is over already."""
    try:
        watch = os.pidfd_open(pid)
    except OSError:
        return 0, []
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - see `make_group`
            _, _, stat = file.read().rpartition(b")")
        _, parent, *fields = stat.split()
    except (OSError, ValueError):
        parent, fields = b"", []
    # Otherwise it ended, and its id has passed to an unrelated process.
    if parent != b"%d" % os.getpid():
        os.close(watch)
        return 0, []
    return int(fields[17]), [watch]


def job_locks() -> int:
    """Return the hard limit of file locks of the jobs that this process's engine launches; below 0 there is none."""
    _, hard = resource.getrlimit(RLIMIT_LOCKS)
    # An engine that a job's process started has the limit itself. An administrator's limit holds for persons too.
    return JOB_LOCKS if hard == resource.RLIM_INFINITY or hard >= JOB_LOCKS else hard - 1


def _open_private(directory: bytes) -> int:
    try:
        here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise RefusedError(NOT_PRIVATE) from None
    status = os.fstat(here)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS:
        os.close(here)
        raise RefusedError(NOT_PRIVATE)
    return here


def _take(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError(RUNS) from None


def _write_in(here: int, name: str, data: bytes) -> None:
    opened = open_in(here, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(opened, data)
    finally:
        os.close(opened)


def _become(argv: list[bytes], env: list[bytes], report: int) -> None:
    """Turn this forked process into the program; never returns."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        limit = job_locks()
        if limit >= 0:
            resource.setrlimit(RLIMIT_LOCKS, (limit, limit))
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        os.execve(argv[0], argv, dict(word.split(b"=", 1) for word in env))  # noqa: S606 - no shell
    except (OSError, ValueError) as error:
        os.write(report, b"%d" % (getattr(error, "errno", None) or errno.EINVAL))
    finally:
        os._exit(127)


def _glibc_version() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[1].split(".")[:2])
    except (ValueError, OSError, IndexError):
        # musl knows no such name.
        return (0,)


def _strings(words: Sequence[bytes]) -> "ctypes.Array[ctypes.c_char_p]":
    """Return an argument vector as C takes it, ended by NULL."""
    return (ctypes.c_char_p * (len(words) + 1))(*words)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size and (part := connection.recv(min(size - len(data), 1 << 20))):
        data += part
    return bytes(data) if len(data) == size else None


if __name__ == "__main__":
    main()
