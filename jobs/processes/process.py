"""Process of an attempt: launched so that it outlives the engine, waited for, and adopted after a restart."""

import errno
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import anyio
import anyio.to_thread

from jobs.claude.command import MARKER, Command
from jobs.errors import ClaudeNotFoundError, JobsError
from jobs.processes import cgroup, kill_children
from jobs.processes.attempt_dir import SERVERS, AttemptDirectory, AttemptRunningError
from jobs.processes.fork_server import RUNS, RefusedError
from jobs.processes.process_table import ProcessIdentity, pidfd, process_table
from jobs.processes.spawning import Order, Spawner, SpawnerDiedError

_POLL = 0.1
_PASSING: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})

_SPAWNERS = 3
"""How many spawners in a row may die before a launch counts as refused."""

_SPAWNER_SECONDS = 10.0
"""Most seconds until a shim has noted its id, where the spawner died before its answer."""

_SPAWNER_PAUSE = 0.005

SHIM_NAME: Final = "claude-jobs"
"""Name of a shim in the process list: the name that its shell is given."""

SHIM: Final = """\
umask 077
CLAUDE_JOBS_DIR=$1 CLAUDE_JOBS_CWD=$2 CLAUDE_JOBS_GROUP=$3 CLAUDE_JOBS_CLEANER=$4 CLAUDE_JOBS_UMASK=$5
shift 5
exec 2>>"$CLAUDE_JOBS_DIR/err" 9>>"$CLAUDE_JOBS_DIR/lock"
[ ! -d "$CLAUDE_JOBS_GROUP" ] || echo $$ >"$CLAUDE_JOBS_GROUP/cgroup.procs"
echo shim $$ >&9
trap : HUP INT TERM
{
cd "$CLAUDE_JOBS_CWD" 2>/dev/null || {
echo "The directory $CLAUDE_JOBS_CWD is gone or cannot be entered. Make it again and retry, or give another cwd." >&2
false
}
} && (
umask $CLAUDE_JOBS_UMASK
for CLAUDE_JOBS_PID in /proc/self/task/*; do CLAUDE_JOBS_PID=${CLAUDE_JOBS_PID##*/}; done
case $CLAUDE_JOBS_PID in $$|'*') exec /bin/sh -c 'echo claude $$ >&9; exec "$@" 9>&-' "$0" "$@" ;; esac
echo claude $CLAUDE_JOBS_PID >&9
exec "$@" 9>&-
) <"$CLAUDE_JOBS_DIR/in" >>"$CLAUDE_JOBS_DIR/out"
echo exit $? >&9
[ -n "$CLAUDE_JOBS_CLEANER" ] || exit
CLAUDE_JOBS_LEFT=unknown
{ read -r CLAUDE_JOBS_LEFT <"/proc/$$/task/$$/children"; } 2>/dev/null
[ -n "$CLAUDE_JOBS_LEFT" ] || exit
trap '' HUP INT TERM
IFS='
'
set -f
exec $CLAUDE_JOBS_CLEANER 9>&-
"""
# Variables of our own prefix: a shell exports what it sets under a name that came with its environment, so any other
# would replace what the client has under that name.
# The inner shell becomes `claude`, whose id names the socket and the keys that it leaves when it is killed. `$$` is the
# shim's there too. Its own id is the name of its only thread; where /proc does not tell, one more shell does.
# The trap: a signal to the whole group must not end the shim before it has written how `claude` ended; a shell gives a
# trapped signal its default back in the program that it starts. A line is one write, so it is there as a whole or not
# at all.
# Once the exit code is written, a shim with children that are left becomes the program that ends them, the cleaner,
# one word a line. A kernel that does not list children leaves `CLAUDE_JOBS_LEFT` as it is: then the program looks.


class LaunchError(JobsError):
    """The operating system refused to start a process.

    Args:
        cause: What it said.
        transient: It refuses for now: too many processes or open files, no memory, no space.
    """

    def __init__(self, cause: str, *, transient: bool = False) -> None:
        self.cause = cause
        self.transient = transient
        super().__init__(f"No process could be started: {cause}. Free disk space or processes, then retry the job.")


def refused_for_now(error: Exception) -> bool:
    """Tell whether a launch failed for something that may be there a little later: memory, or a binary in an update."""
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, LaunchError | ClaudeNotFoundError) and error.transient


class Process:
    """A process that runs an attempt, ours or one that an earlier engine started.

    Args:
        directory: The attempt's files.
        identity: The shim, or None where it ended before its identity was noted.
        child: It is a child of this process, so this process must collect it.
        written: Descriptors of its stdout and its stderr, where its start brought them.
        watch: Descriptor of the shim, where its start brought one.
    """

    def __init__(
        self,
        directory: AttemptDirectory,
        identity: ProcessIdentity | None,
        *,
        child: bool,
        written: Sequence[int] = (),
        watch: int | None = None,
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.written = written
        self._child = child
        self._watch = watch

    def close(self) -> None:
        """Close the descriptor of the shim, once nothing waits for it any more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            os.close(watch)

    async def wait(self) -> int | None:
        """Wait until the process is over and return its exit code, or None where none was written.

        It is over when the shim wrote the exit code, or when neither the shim nor `claude` holds the lock: a killed
        shim leaves a `claude` that works on.
        """
        await self._wait_for_shim()
        # A shim writes it just before its end.
        if (exit_code := self.directory.exit_code()) is not None:
            self.reap()
            return exit_code
        while True:
            over, exit_code = await anyio.to_thread.run_sync(self._look)
            if over:
                return exit_code
            # The lock's holder may be no child of ours, and nothing reports that a lock became free.
            await anyio.sleep(_POLL)

    def age(self) -> float | None:
        """Return the age of the process in seconds, unmoved by changes of the time of day, or None if unknown."""
        return None if self.identity is None else process_table().age(self.identity)

    def lives(self) -> bool:
        """Tell whether the recorded process is there, even if its files are gone."""
        return self.identity is not None and process_table().identify(self.identity.pid) == self.identity

    def freeze(self) -> None:
        """Stop `claude` where it is until it is ended: it begins no further call and writes nothing more."""
        if self.lives() and self.identity is not None:
            with suppress(ProcessLookupError, PermissionError):
                # The shim leads the group; what is in sessions of its own is ended with the rest.
                os.killpg(self.identity.pid, signal.SIGSTOP)

    def reap(self) -> None:
        """Collect the shim if it is an ended child of ours; otherwise do nothing."""
        if self._child and self.identity is not None:
            with suppress(ChildProcessError):
                os.waitpid(self.identity.pid, os.WNOHANG)

    async def _wait_for_shim(self) -> None:
        with self._shim_descriptor() as descriptor:
            if descriptor is not None:
                await anyio.wait_readable(descriptor)

    @contextmanager
    def _shim_descriptor(self) -> Iterator[int | None]:
        """Hold a descriptor of the shim, a new one for each task that waits.

        On a shared one anyio removes the waiter that comes just as another is woken, and that one waits for ever.
        """
        try:
            watch = None if self._watch is None else os.dup(self._watch)
        except OSError:
            watch = None
        if watch is not None:
            try:
                yield watch
            finally:
                os.close(watch)
        elif self.identity is not None:
            with pidfd(self.identity) as descriptor:
                yield descriptor
        else:
            yield None

    def _look(self) -> tuple[bool, int | None]:
        """Return whether the process is over, and its exit code."""
        self.reap()
        exit_code = self.directory.exit_code()
        if exit_code is not None:
            return True, exit_code
        if self.directory.lock_held():
            return False, None
        # It may have ended between the two looks.
        return True, self.directory.exit_code()


async def launch(
    directory: AttemptDirectory,
    command: Command,
    cwd: str,
    spawner: Spawner,
    *,
    record: bytes = b"",
    keep: Collection[str] = (),
) -> Process:
    """Start the command in its own session and return it; it does not end when this process ends.

    A program that cannot be executed, or a working directory that is not there, shows as an exit code and a line on
    stderr, like any other failure of the attempt.

    Args:
        directory: The attempt's files; it is made where there is none.
        command: What to start.
        cwd: Absolute path of the working directory.
        spawner: Starts processes.
        record: What the attempt is, written down before its process exists.
        keep: Names of programs that may go on after the attempt.

    Raises:
        AttemptRunningError: The attempt has a process already.
        UnsafeDirectoryError: The directory is a link, belongs to another user, or cannot be made private.
        LaunchError: The operating system refused: no memory, no space, too many processes, too long an argument.
    """
    order = _order(directory, command, cwd, record, keep if spawner.subreapers else None)
    try:
        if command.servers is not None:
            await anyio.to_thread.run_sync(_write_servers, directory, command.servers)
        return await _start(directory, command.env[MARKER], order, spawner)
    except OSError as error:
        raise LaunchError(error.strerror or str(error), transient=refused_for_now(error)) from error


async def _start(directory: AttemptDirectory, marker: str, order: Order, spawner: Spawner) -> Process:
    for _ in range(_SPAWNERS):
        try:
            started = await spawner.start(order)
        except SpawnerDiedError:
            if await anyio.to_thread.run_sync(_was_started, directory):
                return attach(directory, marker=marker)
        except RefusedError as refusal:
            if refusal.number == RUNS:
                raise AttemptRunningError(directory.path) from refusal
            await anyio.to_thread.run_sync(directory.make_private)
        else:
            return Process(
                directory, started.identity, child=spawner.children, written=started.written, watch=started.watch
            )
    raise LaunchError("the process that starts others died several times in a row", transient=True)


def attach(directory: AttemptDirectory, *, marker: str, identity: ProcessIdentity | None = None) -> Process:
    """Return the attempt's process without starting one; it may be over already.

    Args:
        directory: The attempt's files.
        marker: The job marker of the attempt's processes.
        identity: The shim as it was recorded, or None where the engine ended before it could record it.
    """
    return Process(directory, identity or _noted(directory, marker), child=False)


def _noted(directory: AttemptDirectory, marker: str) -> ProcessIdentity | None:
    pid = directory.shim_pid()
    if pid is None:
        return None
    table = process_table()
    # Only the job marker tells whether the number still means our shim.
    return table.identify(pid) if table.job_marker(pid) == marker else None


def _write_servers(directory: AttemptDirectory, servers: bytes) -> None:
    AttemptDirectory.create(directory.path).write_note(SERVERS, servers)


def _order(
    directory: AttemptDirectory, command: Command, cwd: str, record: bytes, keep: Collection[str] | None
) -> Order:
    group = str(cgroup.path_of(command.env[MARKER]) or "")
    # None: nothing tells the shim what its command left running.
    cleaner = [] if keep is None else [sys.executable, "-I", "-S", kill_children.__file__, str(directory.path), *keep]
    mask = f"{command.umask:03o}"
    shim = ["/bin/sh", "-c", SHIM, SHIM_NAME, str(directory.path), cwd, group, "\n".join(cleaner), mask]
    return Order(
        directory=str(directory.path),
        argv=[*shim, *command.argv],
        env=command.env,
        record=record,
        stdin=command.stdin,
        group=group,
    )


def _was_started(directory: AttemptDirectory) -> bool:
    """Tell whether the shim was started that a spawner was asked for before it died.

    The spawner and what it forked hold the attempt's lock. Once it is free, either no shim came to run, or its id
    is written; a shim that runs writes it first of all.
    """
    until = time.monotonic() + _SPAWNER_SECONDS
    while directory.shim_pid() is None and directory.lock_held():
        if time.monotonic() > until:
            raise AttemptRunningError(directory.path)
        time.sleep(_SPAWNER_PAUSE)
    return directory.shim_pid() is not None
