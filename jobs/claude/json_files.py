"""Reads JSON files of Claude Code that may be large and seldom change: each is parsed once per change."""

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 16 * 1024 * 1024
"""Bytes of the largest file that is read: `.claude.json` grows with every project that the person ever opened."""

_MOST_KNOWN = 1024
"""Cached values: an account has about five, and in a pause each is looked at every two seconds."""

_known: dict[tuple[Path, Callable[..., Any]], tuple[tuple[int, ...], Any]] = {}


def derived(path: Path, derive: Callable[[Mapping[str, Any]], T], *, own: bool = False, last: bool = False) -> T:
    """Return what a function makes of a file's JSON object, of an empty one where it cannot be read. Blocks.

    What it made is kept, and not the object: 5 MB of text are 30 MB of objects.

    Args:
        path: The file.
        derive: A function of a module, so that it is the same one at each call.
        own: Take a file of another user's for unreadable.
        last: Of a file that holds no JSON now, return what was made of it before, if anything: it is being written.
    """
    try:
        # Not blocking: a named pipe in the file's place must not hold the engine.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return derive({})
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST or (own and status.st_uid != os.geteuid()):
            return derive({})
        state = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        known = _known.get((path, derive))
        if known is not None and known[0] == state:
            made: T = known[1]
            return made
        try:
            values = json.loads(file.read(MOST))
        except (OSError, ValueError, RecursionError):
            if last and known is not None:
                before: T = known[1]
                return before
            values = {}
    made = derive(values if isinstance(values, dict) else {})
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[path, derive] = (state, made)
    return made
