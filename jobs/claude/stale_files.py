"""Removes the files that a killed `claude` leaves: its socket, and its keys, which others would try."""

import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.claude.account import config_directory

_SESSION = re.compile(rb'"sessionId":"([0-9a-f-]{36})"')
_HEAD = 4096
"""Bytes of a session's file that are read; its id is among the first hundred (measured on 2.1.332)."""

_SHARED = "/tmp"  # noqa: S108 - the CLI's own choice; only files of ours are removed there


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDirectories:
    """Directories in which a killed `claude` leaves files.

    Args:
        config: Its configuration directory, or None where that is not known.
        sockets: Directories in which its socket may be.
    """

    config: Path | None = None
    sockets: Sequence[Path] = ()

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "ClientDirectories":
        """Return the directories of a `claude` in this environment (measured on 2.1.332)."""
        directories = (env.get(name) for name in ("XDG_RUNTIME_DIR", "CLAUDE_CODE_TMPDIR", "TMPDIR"))
        chosen = next((place for place in directories if place), _SHARED)
        # The second where the path of the first would be too long for a socket.
        sockets = (Path(chosen) / "cc-socks", Path(f"{_SHARED}/cc-socks-{os.geteuid()}"))
        return cls(config=config_directory(env), sockets=sockets)


def remove_stale_files(pid: int, directories: ClientDirectories) -> int:
    """Remove the socket and the keys of a `claude` of ours that is dead, and return how many files that were.

    Args:
        pid: Its process id; the caller has made sure that no process has it now.
        directories: Where they are.
    """
    config = directories.config
    keys = sorted((config / "sessions").glob(f"{pid}.*.key")) if config else []
    return sum(_removed(path) for path in [*(place / f"{pid}.sock" for place in directories.sockets), *keys])


def sessions(directories: ClientDirectories) -> Mapping[str, int]:
    """Return the process id of each `claude` that is noted there, by its session: a wrapper may have started it."""
    files = (directories.config / "sessions").glob("*.json") if directories.config else ()
    found = {_SESSION.search(_head(path)): path.stem for path in files if path.stem.isdecimal()}
    return {session[1].decode(): int(pid) for session, pid in found.items() if session}


def _head(path: Path) -> bytes:
    try:
        # Never through a link, and a named pipe in the place of a file would keep this thread for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _HEAD)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _removed(path: Path) -> bool:
    with suppress(OSError):
        status = path.lstat()
        if status.st_uid == os.geteuid() and (stat.S_ISSOCK(status.st_mode) or stat.S_ISREG(status.st_mode)):
            path.unlink()
            return True
    return False
