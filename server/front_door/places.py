"""The state directory: where it is, what lies in it, and whether it is safe to use."""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from server.front_door.hello import FrontDoorError

_SOCKET_BYTES = 100
"""Most bytes of a socket's path: macOS allows 104 with the closing NUL, Linux 108."""

_SHARED_TEMP = Path("/tmp")  # noqa: S108 - sticky, and the directory below it is checked for its owner and mode
"""Where short socket directories stand. Not TMPDIR or XDG_RUNTIME_DIR: a client that runs under cron or in a job has
other values than the engine, and both must come to the same path."""


class StateDirError(FrontDoorError):
    """A directory that holds state cannot be trusted or cannot be made.

    Args:
        path: The directory.
        problem: What is wrong with it, in a few words.
        remedy: What to do next, as a sentence.
    """

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path}: {problem}. {remedy}")


class Places(NamedTuple):
    """Every path in a state directory.

    Args:
        home: The state directory, absolute.
    """

    home: Path

    @property
    def socket(self) -> Path:
        """The engine's unix socket; outside of `home` where that path would be too long for one."""
        direct = self.home / "engine.sock"
        return direct if len(os.fsencode(direct)) < _SOCKET_BYTES else self._short_directory / "engine.sock"

    @property
    def engine_lock(self) -> Path:
        """The file on which a running engine holds an exclusive `flock` for as long as it lives."""
        return self.home / "engine.lock"

    @property
    def start_lock(self) -> Path:
        """The file on which a client holds an exclusive `flock` while it starts or replaces the engine."""
        return self.home / "start.lock"

    @property
    def log(self) -> Path:
        """What a detached engine writes to stdout and stderr."""
        return self.home / "engine.log"

    @property
    def database(self) -> Path:
        """The job store."""
        return self.home / "jobs.db"

    @property
    def trees(self) -> Path:
        """The directory of job directories and client environments, one directory a tree."""
        return self.home / "trees"

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.home / "config.toml"

    @property
    def _short_directory(self) -> Path:
        # Imported here: few state directories are this long.
        import hashlib

        key = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return _SHARED_TEMP / f"claude-jobs-{os.geteuid()}-{key}"


def state_dir(environ: Mapping[str, str]) -> Path:
    """Return the absolute state directory: `CLAUDE_JOBS_HOME`, else the platform's directory for user state.

    Raises:
        StateDirError: The user's home directory is needed and not known.
    """
    named = environ.get("CLAUDE_JOBS_HOME")
    try:
        if named:
            return Path(named).expanduser().absolute()
        # Imported here: a pump that is told its directory runs without site-packages.
        from platformdirs import user_state_path

        path = user_state_path("claude-jobs")
        if not path.is_absolute():
            raise RuntimeError  # noqa: TRY301 - what later versions of platformdirs raise themselves
    except RuntimeError as error:
        raise StateDirError(
            Path(named or "~"),
            "there is no home directory for it: HOME is not set, or there is no such user",
            "Set HOME, or set CLAUDE_JOBS_HOME to an absolute path.",
        ) from error
    return path


def prepare(home: Path) -> Places:
    """Make the state directory, and the socket's where that is another, for this user alone.

    Raises:
        StateDirError: One of them is a symbolic link, belongs to somebody else, can be written by others, or cannot
            be made.
    """
    places = Places(home.absolute())
    _own_directory(places.home)
    if places.socket.parent != places.home:
        _own_directory(places.socket.parent)
    return places


def _own_directory(path: Path) -> None:
    try:
        _make_private(path)
        # Judged through one descriptor that follows no link: the path may be exchanged between two looks at it.
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _check_and_close_to_others(path, handle)
    finally:
        os.close(handle)


def _make_private(path: Path) -> None:
    """Make a directory and those above it that are missing, each for this user alone whatever the umask is."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_private(path.parent)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    # A umask can take bits of the owner's too.
    path.chmod(0o700)


def _check_and_close_to_others(path: Path, handle: int) -> None:
    status = os.fstat(handle)
    if status.st_uid != os.geteuid():
        raise StateDirError(
            path,
            f"it belongs to user {status.st_uid}, not to you (user {os.geteuid()})",
            "Set CLAUDE_JOBS_HOME to a directory of your own.",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateDirError(
            path,
            f"others can write to it (mode {stat.S_IMODE(status.st_mode):04o})",
            f"Look whether its files are yours, then run `chmod 700 '{path}'`.",
        )
    if status.st_mode & 0o077:
        os.fchmod(handle, 0o700)


def _unusable(path: Path, error: OSError) -> StateDirError:
    if error.errno == errno.ENAMETOOLONG:
        return StateDirError(path, "the path is too long", "Set CLAUDE_JOBS_HOME to a shorter path.")
    if path.is_symlink():
        return StateDirError(
            path, "it is a symbolic link", "Set CLAUDE_JOBS_HOME to the directory that it points to, or remove it."
        )
    return StateDirError(
        path,
        f"it cannot be made or opened ({error.strerror})",
        "Set CLAUDE_JOBS_HOME to a directory that you can write to.",
    )
