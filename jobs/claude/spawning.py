"""Starting a process that outlives the engine: through a small fork server on Linux, directly elsewhere."""

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from jobs.claude import fork_server
from jobs.claude.fork_server import ANSWER, LENGTH
from jobs.claude.orphans import subreaper

T = TypeVar("T")

_ANSWER_SECONDS = 30.0
"""Seconds after which a fork server that does not answer is taken for dead, one that somebody stopped for example."""


class SpawnerDiedError(Exception):
    """The fork server died while it was asked: the process may run, or it may not."""


class Spawner(Protocol):
    """Starts processes as leaders of sessions of their own, in the root directory, without standard streams."""

    subreapers: bool
    """Whether the orphans of a started process become its own children."""
    children: bool
    """Whether a started process is a child of this process, which must then collect it."""

    def adopters(self) -> frozenset[int]:
        """Return the ids of the processes to which the orphans of a killed shim fall; empty where there are none."""
        ...

    def between_launches(self, look: Callable[[], T]) -> T:
        """Return what `look` returns; meanwhile no process is on its way from the fork to its program."""
        ...

    def start(self, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> int:
        """Start a program and return its process id once it runs.

        Args:
            argv: Absolute path of the program, and its arguments.
            env: Its whole environment.
            descriptors: Open files that it inherits, under whatever numbers.

        Raises:
            OSError: The operating system refused, with its error number.
            SpawnerDiedError: Nobody can tell whether the process was started.
        """
        ...


class DirectSpawner:
    """Starts processes as children of this one."""

    subreapers = False
    children = True

    def adopters(self) -> frozenset[int]:
        """Return nothing: whether orphans fall to this process is not known."""
        return frozenset()

    def between_launches(self, look: Callable[[], T]) -> T:
        """Return what `look` returns."""
        return look()

    def start(self, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> int:
        """Start a program and return its process id."""
        process = subprocess.Popen(
            argv,
            cwd="/",
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(descriptors),
        )
        # From here on the process is known by its identity and collected by `Process.reap`; the handle would warn at
        # its deletion that the process still runs, which is what it is meant to do.
        process.returncode = 0
        return process.pid


class ForkServer:
    """Starts processes through a fork server, which is started at the first launch and again whenever it has died."""

    subreapers = True
    children = False

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._closed = False

    def adopters(self) -> frozenset[int]:
        """Return the ids of this process and of the fork server."""
        server = self._server
        return frozenset({os.getpid()} if server is None else {os.getpid(), server.pid})

    def start(self, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> int:
        """Start a program and return its process id."""
        body = _body(argv, env)
        with self._turn:
            connection = self._connect()
            try:
                # Descriptors go with the first byte; the rest of a long body is sent piece by piece.
                socket.send_fds(connection, [LENGTH.pack(len(body))], list(descriptors))
                connection.sendall(body)
                answer = _answer(connection)
            except OSError:
                answer = b""
            if len(answer) < ANSWER.size:
                self._stop()
                raise SpawnerDiedError
        number, pid = ANSWER.unpack(answer)
        if number:
            raise OSError(number, os.strerror(number))
        return int(pid)

    def between_launches(self, look: Callable[[], T]) -> T:
        """Return what `look` returns; meanwhile no process is on its way from the fork to its program."""
        with self._turn:
            return look()

    def close(self) -> None:
        """End the fork server, and start no other one; what it started goes on."""
        with self._turn:
            self._closed = True
            self._stop()

    def _connect(self) -> socket.socket:
        if self._closed:
            # A launch that was under way in a thread when the engine left: another engine makes it.
            raise OSError(errno.EAGAIN, "the engine leaves")
        if self._server is not None and self._server.poll() is not None:
            self._stop()
        if self._connection is None:
            self._connection = self._launch()
        return self._connection

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            # In the session of the engine, by which it is told from what jobs left.
            self._server = subprocess.Popen(
                [sys.executable, "-I", "-S", fork_server.__file__, str(theirs.fileno())],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.settimeout(_ANSWER_SECONDS)
        return ours

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._server is not None:
            # At the end of its input it has nothing left to do. Killed, so that also a stopped one is gone at once: a
            # wait with a time-out would sleep on the event loop.
            self._server.kill()
            self._server.wait()
            self._server = None


@contextmanager
def spawner() -> Iterator[Spawner]:
    """Give this platform's way to start processes."""
    if sys.platform != "linux":
        yield DirectSpawner()
        return
    server = ForkServer()
    # What the fork server leaves, were it killed, falls to this process.
    with subreaper():
        try:
            yield server
        finally:
            server.close()


def _body(argv: Sequence[str], env: Mapping[str, str]) -> bytes:
    words = [os.fsencode(word) for word in (*argv, *(f"{name}={value}" for name, value in env.items()))]
    if any(b"\0" in word for word in words):
        raise OSError(errno.EINVAL, "an argument or a variable holds a NUL byte")
    return b"\0".join((b"%d" % len(argv), *words))


def _answer(connection: socket.socket) -> bytes:
    answer = b""
    while len(answer) < ANSWER.size and (part := connection.recv(ANSWER.size - len(answer))):
        answer += part
    return answer
