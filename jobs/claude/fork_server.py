"""The program of a small process that forks the shims: `python -I -S fork_server.py DESCRIPTOR`, Linux only.

Each shim becomes a subreaper between `fork` and `exec`: every orphan of its job is its child from then on, whatever the
orphan did to its environment and its session. Code between the two costs the 130 MB engine 13 to 20 ms a launch
(measured), and this process of 11 MB under a millisecond. It is single-threaded, so that code is safe here.

It ends when the engine closes the other end of the socket or dies; the shims go on. It is a subreaper too: what a
killed shim leaves falls to it, where the engine finds it.

Each shim also gets a resource limit that nothing enforces and that only root can raise again. What a job starts
inherits it, so a process of a job is known as one also after the shim, the fork server and the engine were killed.

A request is four bytes of length and that many bytes of body: the number of arguments, the arguments and the variables
`NAME=VALUE`, separated by NUL. With its first byte come the descriptors that the program inherits. An answer is two
four-byte integers: an error number, or 0 and the process id.
"""

import array
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import sys

LENGTH = struct.Struct("!I")
ANSWER = struct.Struct("!ii")
MOST_DESCRIPTORS = 4

RLIMIT_LOCKS = 10
"""Limit of file locks (asm-generic/resource.h), for which Python has no name. Linux has not enforced it since 2.4.25,
nobody sets it, and a process without privileges can only lower it."""
JOB_LOCKS = (1 << 40) + 0x636A
"""Hard limit of file locks in every process of a job, on a machine that has no lower one for everybody."""

_PR_SET_CHILD_SUBREAPER = 36
_KEPT_FROM = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
"""Ignored here: a Ctrl-C in the terminal of a foreground engine, and the ends of children, which the kernel then
collects by itself."""
_RESTORED = (*_KEPT_FROM, signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores the last two by itself."""


def main() -> None:
    """Serve requests until the other end is closed."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    for number in _KEPT_FROM:
        signal.signal(number, signal.SIG_IGN)
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    while (request := receive(connection)) is not None:
        body, descriptors = request
        connection.sendall(ANSWER.pack(*launch(body, descriptors, prctl)))
        for descriptor in descriptors:
            os.close(descriptor)


def receive(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return the body and the descriptors of the next request, or None where there will be none."""
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
    head, ancillary, _, _ = connection.recvmsg(LENGTH.size, room)
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    head += _exactly(connection, LENGTH.size - len(head)) if head else b""
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = _exactly(connection, length)
    return (body, list(descriptors)) if len(body) == length else None


def launch(body: bytes, descriptors: list[int], prctl: "ctypes._FuncPointer") -> tuple[int, int]:
    """Start a program and return 0 and its process id once it runs, or the error number of the refusal."""
    try:
        result, report = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO, 0
    try:
        pid = os.fork()
    except OSError as error:
        os.close(report)
        os.close(result)
        return error.errno or errno.EIO, 0
    if pid == 0:
        _become(body, descriptors, prctl, report)
    os.close(report)
    # The pipe is closed by the `exec` that succeeds.
    refused = os.read(result, 16)
    os.close(result)
    return (int(refused), 0) if refused else (0, pid)


def _become(body: bytes, descriptors: list[int], prctl: "ctypes._FuncPointer", report: int) -> None:
    """Turn this forked process into the program; never returns."""
    try:
        count, *words = body.split(b"\0")
        argv, variables = words[: int(count)], words[int(count) :]
        os.setsid()
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        _limit_locks()
        for number in _RESTORED:
            signal.signal(number, signal.SIG_DFL)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        os.execve(argv[0], argv, dict(variable.split(b"=", 1) for variable in variables))  # noqa: S606 - no shell
    except (OSError, ValueError) as error:
        os.write(report, b"%d" % (getattr(error, "errno", None) or errno.EINVAL))
    finally:
        os._exit(127)


def job_locks() -> int:
    """Return the hard limit of file locks of the jobs that this process's engine launches; below 0 there is none."""
    _, hard = resource.getrlimit(RLIMIT_LOCKS)
    # An engine that a job's process started has the limit itself. An administrator's limit holds for persons too.
    return JOB_LOCKS if hard == resource.RLIM_INFINITY or hard >= JOB_LOCKS else hard - 1


def _limit_locks() -> None:
    limit = job_locks()
    if limit >= 0:
        resource.setrlimit(RLIMIT_LOCKS, (limit, limit))


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := connection.recv(min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
