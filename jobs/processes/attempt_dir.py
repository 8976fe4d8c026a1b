"""Directory of an attempt: its files, and the state of its process that they tell."""

import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from jobs.errors import JobsError
from jobs.processes import fork_server
from jobs.util.text import ending

logger = logging.getLogger(__name__)

STDIN: Final = fork_server.STDIN
STDOUT: Final = fork_server.STDOUT
STDERR: Final = fork_server.STDERR
LOCK: Final = fork_server.LOCK
"""Locked while the process lives. It has a line for the shim's process id, for that of `claude`, and for the exit code:
`shim 12`, `claude 13`, `exit 0`."""
STOP: Final = "stop"
SERVERS: Final = "servers.json"
"""MCP servers of a `claude` that does not take them over stdin."""

_FORMERLY: Final = {"shim": "pid", "claude": "claude", "exit": "rc"}
"""The file that each line of `LOCK` was before the first release that had lines there. Attempts from before an update
of the engine are still to be read."""
_NOTE: Final = re.compile(rb"^(shim|claude|exit) (\d{1,10})\n", re.MULTILINE)
_MOST_NOTES: Final = 4096

_OTHERS: Final = 0o077
_WRITABLE: Final = 0o022
_ELSEWHERE: Final = "Remove it, or choose another state directory, then call again."

STDIN_FILES: Final = (STDIN, f"{STDIN}.part", SERVERS)
"""Files that hold the job's token and the environments of its servers; earlier engines wrote to the second one first.
"""


class UnsafeDirectoryError(JobsError):
    """An attempt's directory is a link, belongs to another user, or stays open to others.

    Args:
        path: The directory.
        problem: What is wrong with it.
        remedy: What to do next, as a sentence.
    """

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path} {problem}. {remedy}")


class AttemptRunningError(JobsError):
    """The attempt's process lives already, so it must be attached to and not launched.

    Args:
        path: The attempt's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"The attempt in {path} runs already. Attach to it instead of launching it.")


class AttemptDirectory:
    """The directory of one attempt, private to the user.

    Its files are opened relative to the directory and never through a link, so that a job that replaces one of them
    cannot make the engine read or write elsewhere.

    A directory that was opened to others, by a person or a tool, is made private again and its files are used: no
    other user can have made a file that belongs to this one, and the state directory above it keeps others out. A file
    that belongs to another user is not read.

    Args:
        path: Absolute path of the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found_open: int | None = None

    @property
    def note(self) -> str:
        """A warning about it for a person, as a sentence, or nothing."""
        if self._found_open is None:
            return ""
        could = "write to" if self._found_open & _WRITABLE else "read"
        return f"Others could {could} {self.path} (mode {self._found_open:04o}); it is private again."

    @classmethod
    def create(cls, path: Path) -> "AttemptDirectory":
        """Make the directory, or accept one that is there and private, and return it.

        Raises:
            UnsafeDirectoryError: It is a link, belongs to another user, or cannot be made private.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        directory = cls(path)
        directory.make_private()
        return directory

    def make_private(self) -> None:
        """Remove the access of other users.

        Raises:
            UnsafeDirectoryError: It is a link, belongs to another user, or cannot be made private.
        """
        os.close(self._open_self())

    def write_note(self, name: str, data: bytes) -> None:
        """Write a file of the engine's own; where the engine dies meanwhile, it may be empty or end early."""
        with os.fdopen(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb", buffering=0) as file:
            fork_server.write_all(file.fileno(), data)

    def add_line(self, name: str, line: bytes) -> None:
        """Add a line to a file of the engine's own, without its newline; where the file is gone, it stays so."""
        with os.fdopen(self._open(name, os.O_RDWR | os.O_APPEND), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            # A full disk may have cut off the line before it.
            cut = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
            fork_server.write_all(file.fileno(), b"%b%b\n" % (b"\n" if cut else b"", line))

    def read_note(self, name: str, limit: int) -> bytes | None:
        """Return a file of the engine's own, or None where there is none or it is longer than `limit` bytes."""
        try:
            with os.fdopen(self._open(name, os.O_RDONLY), "rb") as file:
                data = file.read(limit + 1)
        except OSError:
            return None
        return data if len(data) <= limit else None

    def remove_stdin(self, names: Sequence[str] = (STDIN, SERVERS)) -> None:
        """Remove the files that hold secrets of the job; it may have done so, or put a directory there.

        Args:
            names: Names of the files; `STDIN_FILES` in a directory that an earlier engine may have made.
        """
        for name in names:
            with suppress(OSError):
                os.unlink(f"{self.path}/{name}")  # noqa: PTH108 - on the way of every job: a Path costs as much again

    def note_stop(self, reason: str) -> None:
        """Write down why the engine ends the process, before it does: an engine that dies in between is believed."""
        with suppress(OSError, UnsafeDirectoryError):
            self.write_note(STOP, reason.encode())

    def stop_note(self) -> str | None:
        """Return why an engine wanted to end the process, or None."""
        note = self.read_note(STOP, 64)
        return note.decode("ascii", "replace") if note else None

    def exit_code(self) -> int | None:
        """Return the exit code that the shim wrote, or None while there is none."""
        return self._noted("exit")

    def shim_pid(self) -> int | None:
        """Return the process id that the shim wrote, or None where no shim ever ran here."""
        return self._noted("shim")

    def claude_pid(self) -> int | None:
        """Return the process id of `claude`, which may be over, or None where it was never started."""
        return self._noted("claude")

    def error_tail(self, limit: int = 4096) -> str:
        """Return at most the last `limit` bytes of what the process wrote to stderr, without a line that is cut."""
        try:
            with os.fdopen(self._open(STDERR, os.O_RDONLY), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - limit))
                said = file.read(limit).decode("utf-8", "replace")
                return (ending(said) if size > limit else said).strip()
        except OSError:
            return ""

    def output_size(self) -> int:
        """Return the bytes that the process has written to stdout so far."""
        try:
            return (self.path / STDOUT).lstat().st_size
        except OSError:
            return 0

    def open_written(self, name: str) -> int | None:
        """Return a descriptor of a file that the process writes, good also after the job removed it; None without one.

        Args:
            name: `STDOUT` or `STDERR`.
        """
        try:
            return self._open(name, os.O_RDONLY)
        except OSError:
            return None

    def read_output(self, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of stdout from byte `offset`; empty where there are none."""
        descriptor = self.open_written(STDOUT)
        if descriptor is None:
            return b""
        try:
            return os.pread(descriptor, limit, offset)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def lock_held(self) -> bool:
        """Tell whether the shim or the `claude` below it lives; it may also be that the system does not let us see."""
        try:
            descriptor = self._open(LOCK, os.O_RDWR)
        except OSError as error:
            # Only a missing file means no holder. Taken for gone where too many files are open, a process would be
            # joined by a second one in its session.
            return error.errno not in (errno.ENOENT, errno.ELOOP)
        try:
            # A shared lock, so that two observers at once do not take each other for the process.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _noted(self, what: str) -> int | None:
        notes = self._head(LOCK, _MOST_NOTES) or b"%b %b" % (what.encode(), self._head(_FORMERLY[what], 16))
        # A line is written at once; without its newline the disk was full.
        return next((int(note[2]) for note in _NOTE.finditer(notes) if note[1] == what.encode()), None)

    def _head(self, name: str, limit: int) -> bytes:
        try:
            descriptor = self._open(name, os.O_RDONLY)
        except OSError:
            return b""
        try:
            return os.read(descriptor, limit)
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int) -> int:
        here = self._open_self()
        try:
            return fork_server.open_in(here, name, flags)
        finally:
            os.close(here)

    def _open_self(self) -> int:
        try:
            here = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            # A link is "not a directory" on Linux and "too many links" on macOS.
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise UnsafeDirectoryError(self.path, "is a link or no directory", _ELSEWHERE) from None
        try:
            self._make_private(here)
        except UnsafeDirectoryError:
            os.close(here)
            raise
        return here

    def _make_private(self, here: int) -> None:
        status = os.fstat(here)
        if status.st_uid != os.geteuid():
            raise UnsafeDirectoryError(self.path, f"belongs to user {status.st_uid}", _ELSEWHERE)
        if not status.st_mode & _OTHERS:
            return
        with suppress(OSError):
            os.fchmod(here, 0o700)
        if os.fstat(here).st_mode & _OTHERS:
            raise UnsafeDirectoryError(
                self.path, "is open to others", f"Run `chmod 700 '{self.path}'`, or choose another state directory."
            )
        self._found_open = stat.S_IMODE(status.st_mode)
        logger.warning("%s", self.note)


class AttemptState(StrEnum):
    """State of an attempt, by its files alone."""

    LIVES = "lives"
    """The shim or the `claude` below it holds the lock."""
    ENDED = "ended"
    """The shim wrote how it ended."""
    LOST = "lost"
    """It ran, and is gone without an exit code; what it wrote may still hold its answer."""
    NEVER_RAN = "never ran"
    """The engine ended between the claim and the launch."""


def inspect(directory: AttemptDirectory) -> AttemptState:
    """Return the state of an attempt.

    Args:
        directory: The attempt's files.

    Raises:
        UnsafeDirectoryError: The directory is a link, or belongs to another user.
    """
    # In this order: the exit code is written before the lock is released, and the process id after it was taken.
    if directory.lock_held():
        return AttemptState.LIVES
    if directory.exit_code() is not None:
        return AttemptState.ENDED
    return AttemptState.NEVER_RAN if directory.shim_pid() is None else AttemptState.LOST


def is_alive(directory: AttemptDirectory) -> bool:
    """Tell whether a process of the attempt is there to be ended."""
    try:
        return inspect(directory) is AttemptState.LIVES
    except UnsafeDirectoryError:
        return True  # what its files say cannot be trusted, so it is watched like one that lives


def ever_ran(directory: AttemptDirectory) -> bool:
    """Tell whether a process of the attempt was ever started."""
    try:
        return inspect(directory) is not AttemptState.NEVER_RAN
    except UnsafeDirectoryError:
        return True  # only a process of the attempt could have put a link in its place
