"""Starts processes that outlive the engine: through a small fork server on Linux, directly elsewhere."""

import array
import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from jobs.processes import fork_server
from jobs.processes.fork_server import ANSWER, FORK, LENGTH, MOST_DESCRIPTORS, NOT_PRIVATE, RUNS, RefusedError
from jobs.processes.orphans import subreaper
from jobs.processes.process_table import ProcessIdentity, already_ended, process_table

T = TypeVar("T")

_ANSWER_SECONDS = 30.0
"""Seconds after which a fork server that does not answer is taken for dead: it may be stopped."""

_PAUSE = 0.001
"""Seconds between two looks whether a look at the process table is over."""

_ROOM = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)


class SpawnerDiedError(Exception):
    """The fork server died while it was asked: the process may run, or it may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Order to start a process.

    Args:
        directory: Absolute path of the attempt's directory, which is made where there is none.
        argv: Absolute path of the program, and its arguments.
        env: Its whole environment.
        record: What the attempt is, written there before the process exists; or nothing.
        stdin: What the process will read, written there.
        group: Path of the attempt's control group, which is made if that is possible, or "".
    """

    directory: str
    argv: Sequence[str]
    env: Mapping[str, str]
    record: bytes = b""
    stdin: bytes = b""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process that was started. Its owner closes the descriptors.

    Args:
        identity: Which one.
        written: Descriptors of its stdout and its stderr, to read from; fewer where too many files were open.
        watch: Descriptor of the process, or None where there is none.
    """

    identity: ProcessIdentity
    written: Sequence[int] = ()
    watch: int | None = None


class Spawner(Protocol):
    """Starts each process as the leader of a new session, in the root directory, without standard streams.

    They inherit the lock of their attempt.
    """

    subreapers: bool
    """Whether the orphans of a started process become its own children."""
    children: bool
    """Whether a started process is a child of this process, which must then collect it."""

    def orphan_parents(self) -> frozenset[int]:
        """Return the ids of the processes to which the orphans of a killed shim fall; empty where there are none."""
        ...

    def between_launches(self, look: Callable[[], T]) -> T:
        """Return what `look` returns; meanwhile no process is on its way from the fork to its program.

        Called in a thread.
        """
        ...

    async def start(self, order: Order) -> Started:
        """Make an attempt's files, start its program and return once it runs.

        Raises:
            RefusedError: The attempt runs already, or its directory is not private.
            OSError: The operating system refused, with its error number.
            SpawnerDiedError: It is not known whether the process was started.
        """
        ...


class DirectSpawner:
    """Starts processes as children of this one."""

    subreapers = False
    children = True

    def orphan_parents(self) -> frozenset[int]:
        """Return nothing: whether orphans fall to this process is not known."""
        return frozenset()

    def between_launches(self, look: Callable[[], T]) -> T:
        """Return what `look` returns."""
        return look()

    async def start(self, order: Order) -> Started:
        """Make an attempt's files, start its program and return once it runs."""
        return await anyio.to_thread.run_sync(self._start, order)

    def _start(self, order: Order) -> Started:
        fork_server.make_group(os.fsencode(order.group))
        # By itself: a mode holds for the last directory of a path alone.
        Path(order.directory).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock, *written = fork_server.open_files(os.fsencode(order.directory), order.record, order.stdin)
        try:
            process = subprocess.Popen(
                order.argv,
                cwd="/",
                env=dict(order.env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError:
            for descriptor in written:
                os.close(descriptor)
            raise
        finally:
            os.close(lock)
        # From here on the process is known by its identity and collected by `Process.reap`; the handle would warn at
        # its deletion that the process still runs, which is what it is meant to do.
        process.returncode = 0
        identity = process_table().identify(process.pid) or already_ended(process.pid)
        return Started(identity=identity, written=written)


class ForkServer:
    """Starts processes through a fork server, which is started at the first launch and again whenever it has died.

    Requests are sent one after the other and do not wait for the answers to those before. All of it happens on the
    event loop, which neither waits for a disk nor for another thread: what takes time is done by the fork server.
    """

    subreapers = True
    children = False

    def __init__(self) -> None:
        # Keeps the order of the launches that wait for a look to be over.
        self._turn = anyio.Lock(fast_acquire=True)
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answers: deque[asyncio.Future[Started]] = deque()
        self._unsent = bytearray()
        self._one_look = threading.Lock()
        self._look_waits = False
        # Held by a look, and while an answer is due.
        self._launching = threading.Lock()
        self._closed = False
        self._one_died = False

    def orphan_parents(self) -> frozenset[int]:
        """Return the ids of this process and of the fork server."""
        server = self._server
        return frozenset({os.getpid()} if server is None else {os.getpid(), server.pid})

    async def start(self, order: Order) -> Started:
        """Make an attempt's files, start its program and return once it runs."""
        body = _body(order)
        # A launch that was asked for is made: cancelled half-way, it would leave half a request, or a process that
        # is not followed.
        with anyio.CancelScope(deadline=anyio.current_time() + _ANSWER_SECONDS, shield=True):
            async with self._turn:
                while not self._may_launch():  # noqa: ASYNC110 - a thread releases the lock
                    # It takes a few milliseconds.
                    await anyio.sleep(_PAUSE)
                answer = self._ask(body)
            return await answer
        self._lose()
        raise SpawnerDiedError

    def between_launches(self, look: Callable[[], T]) -> T:
        """Return what `look` returns; meanwhile no process is on its way from the fork to its program."""
        with self._one_look:
            # Requests that come from here on wait, so that those under way come to an end.
            self._look_waits = True
            with self._launching:
                self._look_waits = False
                return look()

    def close(self) -> None:
        """End the fork server for good; what it started goes on."""
        self._closed = True
        self._lose()

    def _ask(self, body: bytes) -> asyncio.Future[Started]:
        """Queue a request and return the future of its answer."""
        try:
            self._connect()
        except OSError:
            if not self._answers:
                self._launching.release()
            raise
        answer: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        is_first = not self._unsent
        self._unsent += LENGTH.pack(len(body)) + body
        if is_first:
            self._send()
        return answer

    def _send(self) -> None:
        """Send what the fork server takes now; the rest follows once it takes more."""
        connection, loop = self._connection, self._loop
        if connection is None or loop is None:
            return
        try:
            del self._unsent[: connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._lose()
            return
        if self._unsent:
            loop.add_writer(connection, self._send)
        else:
            loop.remove_writer(connection)

    def _may_launch(self) -> bool:
        if self._look_waits:
            return False
        return bool(self._answers) or self._launching.acquire(blocking=False)

    def _connect(self) -> None:
        if self._closed:
            # A launch that was under way when the engine left: another engine makes it.
            raise OSError(errno.EAGAIN, "the engine is stopping")
        if self._connection is None:
            self._connection = self._launch()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._connection, self._read)

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            # In the session of the engine, by which it is told from what jobs left.
            # After one that died: launches go on even if borrowed memory was the cause.
            cautious = [FORK] if self._one_died else []
            self._server = subprocess.Popen(
                [sys.executable, "-I", "-S", fork_server.__file__, str(theirs.fileno()), *cautious],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # The directories that it makes are for this user alone, also where this process is no engine.
                umask=0o077,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    def _read(self) -> None:
        """Take the answers that are there."""
        connection = self._connection
        while connection is not None and self._connection is connection:
            try:
                answer, ancillary, _, _ = connection.recvmsg(ANSWER.size, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                answer, ancillary = b"", []
            if len(answer) < ANSWER.size or not self._answers:
                self._lose()
                return
            _settle(self._answers.popleft(), answer, ancillary)
            if not self._answers:
                self._launching.release()

    def _lose(self) -> None:
        """End the fork server, and fail every launch that waits for an answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(connection)
                self._loop.remove_writer(connection)
            connection.close()
        self._unsent.clear()
        server, self._server = self._server, None
        if server is not None:
            self._one_died = True
            # At the end of its input it has nothing left to do. Killed, so that also a stopped one goes.
            server.kill()
            # Collected in a thread: while it waits for a disk that does not answer, it cannot end.
            threading.Thread(target=server.wait, name="end of the fork server", daemon=True).start()
        if self._answers:
            self._launching.release()
        while self._answers:
            if not (answer := self._answers.popleft()).done():
                answer.set_exception(SpawnerDiedError())


@contextmanager
def spawner() -> Iterator[Spawner]:
    """Provide this platform's spawner."""
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


def _body(order: Order) -> bytes:
    words = (str(len(order.argv)), *order.argv, *(f"{name}={value}" for name, value in order.env.items()))
    # Joined first: to encode each word by itself takes five times as long.
    paths, texts = os.fsencode(f"{order.directory}\0{order.group}"), os.fsencode("\0".join(words))
    fields = (paths, order.record, order.stdin, texts)
    body = b"\0".join(fields)
    if body.count(b"\0") != len(words) + 3:
        raise OSError(errno.EINVAL, "an argument or a variable holds a NUL byte")
    return body


def _settle(future: "asyncio.Future[Started]", answer: bytes, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    number, pid, start = ANSWER.unpack(answer)
    if future.done():
        # It came too late.
        for descriptor in descriptors:
            os.close(descriptor)
    elif number in (RUNS, NOT_PRIVATE):
        future.set_exception(RefusedError(number))
    elif number:
        future.set_exception(OSError(number, os.strerror(number)))
    else:
        identity = ProcessIdentity(pid=pid, start=float(start)) if start else already_ended(pid)
        written, watch = descriptors[:2].tolist(), descriptors[2:].tolist()
        future.set_result(Started(identity=identity, written=written, watch=watch[0] if watch else None))
