"""File of the usage limits, so that a pause of an account outlives the engine."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
from pydantic import TypeAdapter, ValidationError

from jobs.limits.throttle import Throttle, UsageLimit
from jobs.util.state_file import read_file

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024
"""Bytes above which the file is not ours."""

_LIMITS = TypeAdapter(dict[str, list[UsageLimit]])


class PauseFile:
    """Writes the limits of a throttle to a file of mode 0600 whenever they change; accounts are in it by digest alone.

    Args:
        path: The file.
        throttle: Whose limits they are.
    """

    def __init__(self, path: Path, throttle: Throttle) -> None:
        self._path = path
        self._throttle = throttle
        self._changed = anyio.Event()
        self._is_closed = False

    def restore(self) -> None:
        """Take over what an earlier engine kept. Blocks for a short read."""
        for account, limit in _read(self._path):
            self._throttle.of(account).restore(limit)
        self._throttle.observe(self._note)

    async def keep(self) -> None:
        """Write each change, for as long as the engine runs."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            if not self._is_closed:
                await anyio.to_thread.run_sync(self._write, self._text())
            if self._is_closed:
                # Changes that came while it was being written.
                self._remove()

    def end(self) -> None:
        """Empty the file: the person who asked the engine to stop wants jobs to be tried again."""
        self._is_closed = True
        self._changed.set()
        # In the loop: a client that is told that the engine stops must not find the file there.
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _note(self) -> None:
        self._changed.set()

    def _text(self) -> bytes:
        limits: dict[str, list[UsageLimit]] = {}
        for account, limit in self._throttle.usage_limits():
            if limit.is_known:
                limits.setdefault(account, []).append(limit)
        return _LIMITS.dump_json(limits) if limits else b""

    def _write(self, text: bytes) -> None:
        draft = self._path.with_suffix(".new")
        try:
            if not text or len(text) > MOST_BYTES:
                self._path.unlink(missing_ok=True)
                return
            draft.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(text + b"\n")
            if not self._is_closed:
                draft.replace(self._path)
        except OSError:
            # The next engine then finds the limit by a job that meets it.
            logger.warning("usage limits could not be kept in %s", self._path, exc_info=True)


def _read(path: Path) -> Iterator[tuple[str, UsageLimit]]:
    try:
        text = read_file(path, MOST_BYTES)
        found = {} if text is None else _LIMITS.validate_json(text)
    except (OSError, ValidationError):
        return
    for account, limits in found.items():
        for limit in limits:
            yield account, limit
