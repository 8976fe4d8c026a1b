"""The engine's socket and locks: connect to it, and start an engine where none runs."""

from __future__ import annotations

import errno
import fcntl
import os
import time

# The class below `socket`: importing `socket` takes 6 ms, and 13 where nothing has imported `enum` yet (measured).
from _socket import AF_UNIX, SOCK_STREAM, socket

from server.client.lock_file import holder_of, is_suspended, sign_lock
from server.client.state_dir import StateDirError
from server.client.wire import ClientError, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from os import PathLike

    from server.client.spawn_engine import StartedEngine
    from server.client.state_dir import StatePaths

SOCKET_SECONDS = 6.0
"""How long a client that starts no engine waits for the socket of one that holds its lock: an engine whose socket was
removed binds it again within 5 s."""


class EngineUnreachableError(ClientError):
    """An engine holds the lock of the state directory and cannot be reached.

    Args:
        paths: The state directory.
        problem: What it does not do, as a clause that follows its name.
        pid: Its process id, or None where that is not known.
    """

    def __init__(self, paths: StatePaths, problem: str, pid: int | None) -> None:
        self.paths = paths
        self.problem = problem
        self.pid = pid
        name = "The engine" if pid is None else f"The engine (pid {pid})"
        if pid is not None and is_suspended(pid):
            cause = f"It is suspended: continue it with `kill -CONT {pid}`, or end it with `claude-jobs engine stop`"
        else:
            cause = (
                "It may be starting, stopping or stuck: try again in a minute, or end it with `claude-jobs engine stop`"
            )
        super().__init__(f"{name} of {paths.home} {problem}. {cause}; its jobs go on. Its log is {paths.log}.")


class EngineEndpoint(Value):
    """What a client needs to reach the engine.

    Args:
        paths: A prepared state directory.
        environ: Environment from which an engine that is started takes its settings.
        command: Program and arguments that run an engine; empty for this installation's own.
        timeout: Most seconds to wait for the engine.
        note: Called with a remark for the person, one line without its newline.
        for_job: The client belongs to a job: an engine that it starts takes no setting from it.
    """

    __slots__ = ("command", "environ", "for_job", "note", "paths", "timeout")

    def __init__(
        self,
        paths: StatePaths,
        environ: Mapping[str, str],
        command: Sequence[str] = (),
        timeout: float = 30.0,
        note: Callable[[str], None] = lambda _line: None,
        *,
        for_job: bool = False,
    ) -> None:
        self.paths = paths
        self.environ = environ
        self.command = command
        self.timeout = timeout
        self.note = note
        self.for_job = for_job

    def __repr__(self) -> str:
        # The environment holds credentials and may not reach a log this way.
        return f"EngineEndpoint({self.paths.directory!r})"


def open_socket(paths: StatePaths, timeout: float = 5.0) -> socket:
    """Return a connection to the engine's socket.

    Args:
        paths: The state directory.
        timeout: Seconds that one later read or write on the connection may take.

    Raises:
        OSError: No engine listens there, or its queue is full.
    """
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(paths.address)
    except OSError:
        connection.close()
        raise
    return connection


def lock(path: str | PathLike[str], timeout: float = 0.0) -> int | None:
    """Take an exclusive `flock` and return its descriptor, to be closed; None where another holds it.

    An engine takes its own lock and retries for a second: a client that checks whether an engine runs holds the lock
    for a moment.

    Args:
        path: A file in a prepared state directory; it is created where it is missing, and never removed here.
        timeout: Seconds for which to retry.

    Raises:
        StateDirError: The directory or its file system cannot be written to.
    """
    deadline = time.monotonic() + timeout
    pauses = _pauses()
    while True:
        handle = _open_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(handle, path):
                return handle
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(handle)
                return None
            next(pauses)
        # Held by another, or removed before it was locked: what is locked must be the file that others find.
        os.close(handle)


def _open_lock(path: str | PathLike[str]) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        directory, name = os.path.split(path)
        raise StateDirError(
            directory,
            f"{name} in it cannot be written ({error.strerror})",
            "Make the directory writable, or set CLAUDE_JOBS_HOME to one that is.",
        ) from error


def is_at(handle: int, path: str | PathLike[str]) -> bool:
    """Tell whether an open file is the one that a path leads to now."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


def ensure_engine(endpoint: EngineEndpoint) -> socket:
    """Return a connection to the engine, which is started where none runs.

    If several clients call this at once, one of them starts one engine.

    Raises:
        EngineStartError: The engine ended while starting, or did not listen in time; or other clients are starting one
            and do not finish.
        EngineUnreachableError: An engine runs and does not listen.
    """
    deadline = time.monotonic() + endpoint.timeout
    pauses = _pauses()
    while (connection := try_connect(endpoint.paths)) is None:
        if (held := lock(endpoint.paths.start_lock)) is not None:
            sign_lock(held)
            try:
                return start_and_connect(endpoint, deadline)
            finally:
                os.close(held)
        if time.monotonic() >= deadline:
            raise timeout_error(endpoint)
        next(pauses)
    return connection


def try_connect(paths: StatePaths) -> socket | None:
    """Return a connection to the engine, or None where none answers now."""
    try:
        return open_socket(paths)
    # Refused: no process listens on the socket that a dead engine left. Blocking: an engine runs and its queue is full;
    # so it holds its lock, and no client starts a second one.
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BlockingIOError, TimeoutError):
        return None


def start_and_connect(endpoint: EngineEndpoint, deadline: float) -> socket:
    """Start an engine unless one runs and return a connection to it; the caller holds the start lock.

    Args:
        endpoint: How to reach the engine.
        deadline: Reading of the monotonic clock at which waiting ends.

    Raises:
        EngineStartError: The engine ended while starting, or did not listen in time.
        EngineUnreachableError: An engine runs and does not listen.
    """
    started: StartedEngine | None = None
    pauses = _pauses()
    try:
        while (connection := try_connect(endpoint.paths)) is None:
            started = started or _start_where_none_is(endpoint)
            if time.monotonic() >= deadline:
                raise started.failure("does not answer") if started else timeout_error(endpoint)
            if started and not started.alive() and not _engine_is_there(endpoint.paths):
                raise started.failure("ended while it was starting")
            next(pauses)
        return connection
    finally:
        if started:
            started.close()


def _start_where_none_is(endpoint: EngineEndpoint) -> StartedEngine | None:
    # An engine that is starting in the foreground, or exiting, holds its lock and does not answer: a second one would
    # end at once on that lock.
    if _engine_is_there(endpoint.paths):
        return None
    # Imported here: a pump that finds a running engine does without them.
    from server.client.location import original_of
    from server.client.spawn_engine import engine_command, start

    if (original := original_of(endpoint.paths.home)) is not None:
        endpoint.note(
            f"{endpoint.paths.home} is a copy of {original}: jobs that ran or waited there are not started here, and "
            "nothing of the original is touched; `claude-jobs retry ID` runs one here"
        )
    return start(endpoint.paths, endpoint.command or engine_command(), endpoint.environ, for_job=endpoint.for_job)


def await_running(paths: StatePaths) -> socket | None:
    """Return a connection to the engine, without starting one; None where none runs.

    Raises:
        EngineUnreachableError: An engine runs and does not listen within `SOCKET_SECONDS`.
    """
    deadline = time.monotonic() + SOCKET_SECONDS
    pauses = _pauses()
    while (connection := try_connect(paths)) is None and _engine_is_there(paths):
        if time.monotonic() >= deadline:
            raise not_listening(paths)
        next(pauses)
    return connection


def not_listening(paths: StatePaths) -> EngineUnreachableError:
    """Return the error for an engine that holds its lock and cannot be connected to."""
    return EngineUnreachableError(paths, f"does not listen on {paths.socket}", holder_of(paths.engine_lock))


def unanswered(paths: StatePaths, seconds: float) -> EngineUnreachableError:
    """Return the error for an engine that can be connected to and did not answer within `seconds`."""
    return EngineUnreachableError(paths, f"did not answer within {seconds:g} s", holder_of(paths.engine_lock))


def _engine_is_there(paths: StatePaths) -> bool:
    handle = lock(paths.engine_lock)
    if handle is None:
        return True
    os.close(handle)
    return False


def timeout_error(endpoint: EngineEndpoint) -> ClientError:
    """Return the error for an engine that runs, or is being started by another client, and does not answer."""
    if _engine_is_there(endpoint.paths):
        return not_listening(endpoint.paths)
    # Imported here, for this error alone.
    from server.client.spawn_engine import EngineStartError

    pid = holder_of(endpoint.paths.start_lock)
    named = "another client" if pid is None else f"another client (`ps -p {pid}`)"
    problem = f"did not answer within {endpoint.timeout:g} s: {named} is starting it, or hangs and should be ended"
    return EngineStartError(problem, endpoint.paths.log, "")


def _pauses() -> Iterator[None]:
    """Wait at each step, 5 ms at first and up to 100 ms."""
    seconds = 0.005
    # Spread out: fifty that wake together would take the processor from the engine they wait for.
    while True:
        time.sleep(seconds * (0.5 + os.urandom(1)[0] / 512))
        seconds = min(0.1, seconds * 1.5)
        yield
