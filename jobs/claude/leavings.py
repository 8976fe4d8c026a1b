"""What a `claude` that was killed leaves in the file system: the socket and the keys that others would try."""

import os
import stat
from contextlib import suppress
from pathlib import Path

SOCKETS = Path("/tmp/cc-socks")  # noqa: S108 - the CLI's own choice (2.1.330, measured); only sockets of ours are removed
"""Where the CLI puts one socket a process."""


def sweep(pid: int, config: Path | None, sockets: Path = SOCKETS) -> int:
    """Remove the socket and the keys of a `claude` of ours that is dead, and return how many files that were.

    Args:
        pid: Its process id; the caller has made sure that no process has it now.
        config: Its configuration directory, or None where that is not known.
        sockets: Where sockets are.
    """
    keys = sorted((config / "sessions").glob(f"{pid}.*.key")) if config else []
    return sum(_removed(path) for path in [sockets / f"{pid}.sock", *keys])


def _removed(path: Path) -> bool:
    with suppress(OSError):
        status = path.lstat()
        if status.st_uid == os.geteuid() and (stat.S_ISSOCK(status.st_mode) or stat.S_ISREG(status.st_mode)):
            path.unlink()
            return True
    return False
