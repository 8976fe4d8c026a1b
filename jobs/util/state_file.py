"""Small files of the state directory: replaced as a whole, and read without trust in what lies in their place."""

import os
import stat
from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """Replace a file of mode 0600 as a whole, flushed to the disk: a crash leaves the old one or the new one. Blocks.

    Args:
        path: The file.
        text: What it says from now on.

    Raises:
        OSError: The disk refused it; what was there before stays.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_file(path: Path, most: int) -> bytes | None:
    """Return what a file holds; None where it is no regular file or is longer. Blocks for a short read alone.

    Args:
        path: The file.
        most: Most bytes.

    Raises:
        OSError: It cannot be read, is a link, or is not there.
    """
    # Not blocking: a named pipe in the file's place must not hold the engine.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        text = file.read(most + 1)
    return text if len(text) <= most else None
