"""Starts the engine as a detached process, which is in no client's process tree, and tells whether it still lives."""

import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from server.client.state_dir import StatePaths
from server.client.wire import JOB_MARKERS, STARTED_BY, ClientError, setting_variables

_TAIL_BYTES = 4096
_TAIL_LINES = 12

_SYSTEM = "PATH HOME LANG TMPDIR TZ USER"
# What a hook, or a notice on the desktop, needs to be seen.
_DESKTOP = "DISPLAY WAYLAND_DISPLAY XAUTHORITY DBUS_SESSION_BUS_ADDRESS"
_ALLOWED = frozenset(f"{_SYSTEM} {_DESKTOP}".split())
_ALLOWED_PREFIX = "XDG_"

A_JOB = "a job"
"""What `STARTED_BY` holds where a job's client started the engine."""

# The second of two forks: its process leads no session, so it can never take a terminal, and its parent is gone before
# it can be ended through the client's process tree. It runs in a fresh interpreter because a caller with threads
# must not fork by itself.
_DAEMONIZE = "import os, sys; os.fork() and os._exit(0); os.execv(sys.argv[1], sys.argv[1:])"


SETTINGS_REFUSED = "The settings cannot be used: "
"""Prefix of the line in which an engine says which setting keeps it from starting."""


class EngineStartError(ClientError):
    """The engine could not be started, or was started and does not answer.

    Args:
        problem: What happened, as a clause.
        log: The engine's log.
        tail: Last lines of what this start wrote there.
    """

    def __init__(self, problem: str, log: Path, tail: str) -> None:
        self.problem = problem
        self.log = log
        self.tail = tail
        # Another start would end on the same settings.
        self.transient = SETTINGS_REFUSED not in tail
        said = f" Its last lines:\n{tail}" if tail else ""
        super().__init__(
            f"The engine {problem}. Run `claude-jobs doctor`, or `claude-jobs engine` to see it start; "
            f"its log is {log}.{said}"
        )


class StartedEngine(NamedTuple):
    """An engine that was started here, before it can be reached.

    The engine's stdout and stderr share one open log file that carries a `flock`; the kernel drops it with the last
    process that holds them, so a death is noticed although the engine is not a child of this process.

    Args:
        log: The log's path.
        handle: A second open file on the log, to ask for that lock and to read.
        offset: Size of the log in bytes before this start.
    """

    log: Path
    handle: int
    offset: int

    def alive(self) -> bool:
        """Whether any process of this start still lives."""
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.handle, fcntl.LOCK_UN)
        return False

    def failure(self, problem: str) -> EngineStartError:
        """Return the error with the problem and the last lines that the engine wrote."""
        size = os.fstat(self.handle).st_size
        # A log that was rotated since is shorter than it was.
        begin = max(self.offset if self.offset <= size else 0, size - _TAIL_BYTES)
        written = os.pread(self.handle, _TAIL_BYTES, begin).decode(errors="replace")
        return EngineStartError(problem, self.log, "\n".join(written.splitlines()[-_TAIL_LINES:]))

    def close(self) -> None:
        """Close the log; the engine goes on."""
        os.close(self.handle)


def engine_command() -> tuple[str, ...]:
    """Return the command that runs this installation's engine.

    It names the package's file and not `-m server`: the interpreter then finds this very package from a source tree,
    a wheel, an editable or a per-user installation, and never another package of that name. `-I` keeps the working
    directory and PYTHON* variables out; without `-S` the installed dependencies are there.
    """
    main = Path(__file__).resolve().parents[1] / "__main__.py"
    return (sys.executable, "-I", str(main), "engine", "--detached")


def engine_environment(environ: Mapping[str, str], home: Path, *, for_job: bool = False) -> dict[str, str]:
    """Return the environment in which an engine starts: settings, no client's account, and no job's marker.

    A job's client gives the engine no setting at all: the limits are the person's.

    Args:
        environ: Environment of the client that starts it.
        home: The state directory that the engine serves.
        for_job: The client belongs to a job; a client with a job's marker does in any case.
    """
    for_job = for_job or not JOB_MARKERS.isdisjoint(environ)
    system = {name: value for name, value in environ.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIX)}
    settings = {} if for_job else setting_variables(environ)
    return system | settings | {"CLAUDE_JOBS_HOME": str(home), STARTED_BY: A_JOB if for_job else _client_of(environ)}


def _client_of(environ: Mapping[str, str]) -> str:
    session = environ.get("CLAUDE_CODE_SESSION_ID")
    command = next((word for word in sys.argv[1:2] if not word.startswith("-")), "mcp")
    name = f"Claude Code session {session}" if session else f"claude-jobs {command}"
    return f"{name}, pid {os.getpid()}"


def start(
    paths: StatePaths, command: Sequence[str], environ: Mapping[str, str], *, for_job: bool = False
) -> StartedEngine:
    """Start a detached engine and return at once; the caller holds the start lock.

    The engine gets its own session and process group, the root directory, stdin from the null device, and no
    open file but its log. It leaves the control group itself, if a job's pump started it.

    Args:
        paths: A prepared state directory.
        command: Absolute program and its arguments.
        environ: Environment of the client; `engine_environment` picks from it.
        for_job: The client belongs to a job.

    Raises:
        EngineStartError: The command could not be run.
    """
    shared = _open_log(paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        fcntl.flock(shared, fcntl.LOCK_SH)
        engine = StartedEngine(log=paths.log, handle=_open_log(paths.log, os.O_RDONLY), offset=os.fstat(shared).st_size)
        try:
            _run_detached(command, engine_environment(environ, paths.home, for_job=for_job), shared)
        except OSError as error:
            engine.close()
            raise EngineStartError(f"cannot be started ({error})", paths.log, "") from error
        return engine
    finally:
        # From here on only the engine holds the lock on its log.
        os.close(shared)


def _run_detached(command: Sequence[str], environ: Mapping[str, str], log: int) -> None:
    # Imported here: a pump that finds a running engine does without it.
    import subprocess

    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _DAEMONIZE, *command],
        env=dict(environ),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        check=False,
    )


def _open_log(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
