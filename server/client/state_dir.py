"""The state directory: where it is, the paths in it, and whether it is safe to use."""

from __future__ import annotations

import errno
import os
import stat
import sys

from server.client.wire import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from pathlib import Path

_NAME = "claude-jobs"

_OWN_FILES = frozenset({"config.toml", "engine.lock", "engine.sock", "jobs.db", "start.lock"})
"""Files of which one is in every state directory that has been used or prepared."""

_SOCKET_BYTES = 100
"""Most bytes of a socket's path: macOS allows 104 with the closing NUL, Linux 108."""

_SHARED_TEMP = "/tmp"  # noqa: S108 - sticky, and the directory below it is checked for its owner and mode
"""Where short socket directories are. Not TMPDIR or XDG_RUNTIME_DIR: a client that runs under cron or in a job has
other values than the engine, and both must get the same path."""


class StateDirError(ClientError):
    """A state or socket directory cannot be trusted or cannot be created.

    Args:
        path: The directory.
        problem: What is wrong with it, in a few words.
        remedy: What to do next, as a sentence.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path}: {problem}. {remedy}")


class StatePaths:
    """Every path in a state directory.

    The two that each start of a pump needs are texts; the others are made on first use, because importing
    `pathlib` takes as long as starting Python.

    Args:
        home: The state directory, absolute.
    """

    __slots__ = ("directory",)

    def __init__(self, home: str | PathLike[str]) -> None:
        self.directory = absolute(home)
        """The state directory as text."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StatePaths) and self.directory == other.directory

    def __hash__(self) -> int:
        return hash(self.directory)

    @property
    def address(self) -> str:
        """The path of the engine's unix socket; outside of `home` where that path would be too long for one."""
        direct = f"{self.directory}/engine.sock"
        return direct if len(os.fsencode(direct)) < _SOCKET_BYTES else f"{self._short_directory}/engine.sock"

    @property
    def home(self) -> Path:
        """The state directory."""
        return _path(self.directory)

    @property
    def socket(self) -> Path:
        """The engine's unix socket, at `address`."""
        return _path(self.address)

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
    def search_index(self) -> Path:
        """Index of `claude-jobs search`, made from the database."""
        return self.home / "search.db"

    @property
    def pauses(self) -> Path:
        """The usage limits that an engine keeps for the one after it; `engine stop` removes them."""
        return self.home / "pauses.json"

    @property
    def page(self) -> Path:
        """The port and the sessions of the page, for the next engine."""
        return self.home / "page.json"

    @property
    def trees(self) -> Path:
        """The directory of job directories and client environments, one directory a tree."""
        return self.home / "trees"

    @property
    def config(self) -> Path:
        """The settings file."""
        return self.home / "config.toml"

    @property
    def _short_directory(self) -> str:
        # Imported here: few state directories are this long.
        import hashlib

        key = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return f"{_SHARED_TEMP}/{_NAME}-{os.geteuid()}-{key}"


def _path(text: str) -> Path:
    # Imported here: the pump's first reply does without it.
    from pathlib import Path

    return Path(text)


def absolute(path: str | PathLike[str]) -> str:
    """Return an absolute path, spelled as `Path.absolute` spells it: every process gets the same text.

    Raises:
        FileNotFoundError: The path is relative, and the working directory has been removed.
    """
    text = os.fspath(path)
    whole = text if text.startswith("/") else f"{os.getcwd()}/{text}"
    return "/" + "/".join(part for part in whole.split("/") if part not in {"", "."})


def state_dir(environ: Mapping[str, str]) -> str:
    """Return the absolute state directory: `CLAUDE_JOBS_HOME`, else the platform's directory for user state.

    Raises:
        StateDirError: `CLAUDE_JOBS_HOME` is relative, or the user's home directory is needed and not known.
    """
    if named := environ.get("CLAUDE_JOBS_HOME"):
        path = os.path.expanduser(named)
        if path.startswith("~"):
            raise _homeless(named)
        if not os.path.isabs(path):
            raise StateDirError(
                named,
                "it is a relative path, so it would be another directory in each working directory",
                "Set CLAUDE_JOBS_HOME to an absolute path.",
            )
        return absolute(path)
    # As `platformdirs.user_state_path` answers: importing it takes three times as long as starting Python.
    state = environ.get("XDG_STATE_HOME", "").strip()
    if os.path.isabs(state):
        return absolute(f"{state}/{_NAME}")
    below = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
    return absolute(f"{_home_directory(environ)}/{below}/{_NAME}")


def _home_directory(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    # Imported here: HOME is hardly ever missing.
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError as error:
        raise _homeless("~") from error


def _homeless(path: str) -> StateDirError:
    return StateDirError(
        path,
        "there is no home directory for it: HOME is not set, or there is no such user",
        "Set HOME, or set CLAUDE_JOBS_HOME to an absolute path.",
    )


def prepare(home: str | PathLike[str]) -> StatePaths:
    """Create the state directory, and the socket's where that is another, for this user alone.

    Raises:
        StateDirError: One of them is a symbolic link, belongs to another user, can be written by others, or cannot
            be made; or others can read it, and it holds files of another kind.
    """
    paths = StatePaths(home)
    _own_directory(paths.directory)
    beside = os.path.dirname(paths.address)
    if beside != paths.directory:
        _own_directory(beside)
    return paths


def _own_directory(path: str) -> None:
    try:
        _make_private(path)
        # Checked through one descriptor that follows no link: the path may be replaced between two checks.
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _check_and_close_to_others(path, handle)
    finally:
        os.close(handle)


def _make_private(path: str) -> None:
    """Create a directory and its missing parents, each for this user alone under any umask."""
    if _is_directory(path):
        return
    above = os.path.dirname(path)
    if not _is_directory(above):
        _make_private(above)
    try:
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        return
    # A umask can take bits of the owner's too.
    os.chmod(path, 0o700)


def _is_directory(path: str) -> bool:
    # Not `os.path.isdir`: it is also false where a path is too long, and its parents would be created.
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _check_and_close_to_others(path: str, handle: int) -> None:
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
            f"Check that its files are yours, then run `chmod 700 '{path}'`.",
        )
    if status.st_mode & 0o077:
        _check_nothing_else_is_there(path, handle)
        os.fchmod(handle, 0o700)


def _check_nothing_else_is_there(path: str, handle: int) -> None:
    # A home directory or "/" must not be closed to all other users, by root above all.
    found = os.listdir(handle)
    if found and _OWN_FILES.isdisjoint(found):
        raise StateDirError(
            path,
            "others can read it, and it holds other files",
            "Set CLAUDE_JOBS_HOME to a directory that holds nothing else.",
        )


def _unusable(path: str, error: OSError) -> StateDirError:
    if error.errno == errno.ENAMETOOLONG:
        return StateDirError(path, "the path is too long", "Set CLAUDE_JOBS_HOME to a shorter path.")
    if os.path.islink(path):
        return StateDirError(
            path, "it is a symbolic link", "Set CLAUDE_JOBS_HOME to the directory that it points to, or remove it."
        )
    return StateDirError(
        path,
        f"it cannot be made or opened ({error.strerror})",
        "Set CLAUDE_JOBS_HOME to a directory that you can write to.",
    )
