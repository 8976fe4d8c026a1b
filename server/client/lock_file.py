"""The holder of a lock file: it writes its process id into the file, and a reader checks that the id is still right.

Standard library only: the pump imports this module.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike


def sign_lock(handle: int) -> None:
    """Write this process's id into a lock file.

    Args:
        handle: The lock file, locked by this process.
    """
    # A full disk: the lock holds without a name in it.
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        return


def holder_of(path: str | PathLike[str]) -> int | None:
    """Return the process id in a lock file, or None where no living process of that id has the file open.

    A number alone is not enough: the holder may have crashed, and its number may be another process's now. A copy of
    the file is another file, so the holder of the original is never returned for it.

    Args:
        path: The lock file. The caller has found that it is locked.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text, status = os.read(handle, 20), os.fstat(handle)
    finally:
        os.close(handle)
    if not text.endswith(b"\n") or not text.strip().isdigit():
        return None
    pid = int(text)
    return pid if _has_open(pid, status) else None


def is_suspended(pid: int) -> bool:
    """Tell whether a process was suspended, by SIGSTOP or Ctrl-Z; False where the system does not tell."""
    try:
        # The name in parentheses may hold blanks and parentheses; the state follows the last one.
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False


def _has_open(pid: int, status: os.stat_result) -> bool:
    if not os.path.exists("/proc/self"):
        return _has_open_elsewhere(pid, status)
    try:
        descriptors = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(_is_same(path, status) for path in descriptors)


def _has_open_elsewhere(pid: int, status: os.stat_result) -> bool:
    # macOS. Imported here, for this error alone; a pump runs without site-packages and does not name the holder.
    try:
        import psutil
    except ImportError:
        return False
    try:
        return any(_is_same(file.path, status) for file in psutil.Process(pid).open_files())
    except psutil.Error:
        return False


def _is_same(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except OSError:
        return False
