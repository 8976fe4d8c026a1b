"""Who may use the page: one-time codes, kept in memory alone, and the sessions that they are exchanged for."""

import hashlib
import json
import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from jobs.errors import JobsError
from jobs.ports import Clock
from jobs.util.state_file import read_file, replace_file
from server.mcp.connection_state import Caller

logger = logging.getLogger(__name__)

CODE_SECONDS: Final = 600.0
"""Seconds for which a code can be exchanged."""

MOST_CODES: Final = 20
"""Most codes that are open at once; the oldest one is dropped."""

WRONG_CODES: Final = 20
"""Most wrong codes within `WRONG_SECONDS`; then no code is looked at until the time is over."""

WRONG_SECONDS: Final = 60.0

MOST_SESSIONS: Final = 50
"""Most sessions; the one that was used longest ago is dropped."""

SESSION_SECONDS: Final = 30 * 86_400.0
"""Seconds without a request after which a session is over."""

NOTE_SECONDS: Final = 3600.0
"""Least seconds between two times that the last use of a session is written to the disk."""

LOWEST_PORT: Final = 1024
HIGHEST_PORT: Final = 65_535

_FORMAT: Final = 1
_MOST_BYTES: Final = 64 * 1024
"""Bytes above which the file is not ours."""


class TooManyCodesError(JobsError):
    """So many codes were wrong that none is looked at for a while."""

    def __init__(self) -> None:
        super().__init__("Too many wrong codes. Wait for a minute, then run `claude-jobs web` again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenCode:
    made_at: float
    caller: Caller


class Codes:
    """One-time codes: each is good once, for ten minutes, and in this engine alone.

    A job runs as the same user and can read every file: a code is in memory, and in the answer to the person.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: OrderedDict[str, _OpenCode] = OrderedDict()
        self._wrong = 0
        self._wrong_since = 0.0

    def make(self, caller: Caller) -> str:
        """Return a new code.

        Args:
            caller: The person's client that asks: jobs of the page run in its environment where their tree has none.
        """
        code = secrets.token_urlsafe(32)
        self._open[_digest(code)] = _OpenCode(made_at=self._clock.monotonic(), caller=caller)
        while len(self._open) > MOST_CODES:
            self._open.popitem(last=False)
        return code

    def take(self, code: str) -> Caller | None:
        """Use up a code and return what it was made with; None where it is wrong, was used, or is too old.

        Raises:
            TooManyCodesError: It was not looked at, and can be used later.
        """
        now = self._clock.monotonic()
        if now - self._wrong_since > WRONG_SECONDS:
            self._wrong, self._wrong_since = 0, now
        if self._wrong >= WRONG_CODES:
            raise TooManyCodesError
        found = self._open.pop(_digest(code), None)
        if found is None or now - found.made_at > CODE_SECONDS:
            self._wrong += 1
            return None
        return found.caller

    def clear(self) -> None:
        """Forget all codes."""
        self._open.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser that was let in.

    Args:
        digest: SHA-256 of the token in its cookie, as hexadecimal text.
        made_at: When it began, in seconds since the epoch.
        used_at: Its last request that was noted, likewise.
    """

    digest: str
    made_at: float
    used_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPage:
    """What the next engine has to know to serve the same page.

    Args:
        port: The port.
        sessions: Digest to session.
    """

    port: int
    sessions: Mapping[str, Session] = field(default_factory=dict)


class Sessions:
    """The browsers that were let in; the disk has digests of their tokens alone.

    Args:
        path: The file, of mode 0600.
        clock: Time.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._port: int | None = None
        self._sessions: dict[str, Session] = {}
        # Of sessions that began in this engine. They hold secrets, so no file has them.
        self._callers: dict[str, Caller] = {}
        self._writing = anyio.Lock()

    async def restore(self) -> int | None:
        """Take over the sessions that an earlier engine kept, and return its port; None where it served no page."""
        kept = await anyio.to_thread.run_sync(read_kept, self._path)
        if kept is None:
            return None
        self._port, self._sessions = kept.port, dict(kept.sessions)
        self._drop_old()
        return kept.port

    async def serve_at(self, port: int) -> None:
        """Note the port on the disk; sessions go on, though the name of their cookie has the port in it."""
        self._port = port
        await self._note()

    async def begin(self, caller: Caller) -> str:
        """Begin a session and return the token for its cookie."""
        token, now = secrets.token_urlsafe(32), self._clock.now()
        digest = _digest(token)
        self._sessions[digest] = Session(digest=digest, made_at=now, used_at=now)
        self._callers[digest] = caller
        self._drop_old()
        await self._note()
        return token

    async def find(self, token: str) -> Session | None:
        """Return the session of a token and note its use, or None where there is none."""
        now = self._clock.now()
        found = self._sessions.get(_digest(token))
        if found is None or now - found.used_at > SESSION_SECONDS:
            return None
        if now - found.used_at > NOTE_SECONDS:
            self._sessions[found.digest] = found = replace(found, used_at=now)
            await self._note()
        return found

    def caller_of(self, session: Session) -> Caller | None:
        """Return the client that asked for a session, or None where an earlier engine let it in."""
        return self._callers.get(session.digest)

    def note_caller(self, session: Session, caller: Caller) -> None:
        """Take the client that asked for the page once more as that of a session."""
        self._callers[session.digest] = caller

    async def end_all(self) -> None:
        """End all sessions, and forget the port: the next engine serves no page unasked.

        Raises:
            OSError: The disk refused it.
        """
        self._port = None
        self._sessions.clear()
        self._callers.clear()
        await self._write()

    def _drop_old(self) -> None:
        now = self._clock.now()
        newest_first = sorted(self._sessions.values(), key=lambda one: one.used_at, reverse=True)
        kept = [one for one in newest_first[:MOST_SESSIONS] if now - one.used_at <= SESSION_SECONDS]
        self._sessions = {one.digest: one for one in kept}
        self._callers = {name: one for name, one in self._callers.items() if name in self._sessions}

    async def _note(self) -> None:
        try:
            await self._write()
        except OSError:
            # The page is worth most on a full disk. Only the next engine will know less.
            logger.warning("who uses the page could not be noted in %s", self._path, exc_info=True)

    async def _write(self) -> None:
        # One after the other: the last one that asks finds everything in memory.
        async with self._writing:
            kept = None if self._port is None else KeptPage(port=self._port, sessions=dict(self._sessions))
            await anyio.to_thread.run_sync(write_kept, self._path, kept)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def write_kept(path: Path, kept: KeptPage | None) -> None:
    """Replace the file as a whole, flushed to the disk, or remove it. Blocks.

    Args:
        path: The file.
        kept: What it says; None removes it.

    Raises:
        OSError: The disk refused it; what was there before stays.
    """
    if kept is None:
        path.unlink(missing_ok=True)
        return
    rows = [{"digest": one.digest, "made": one.made_at, "used": one.used_at} for one in kept.sessions.values()]
    text = json.dumps({"format": _FORMAT, "port": kept.port, "sessions": rows}, indent=2)
    replace_file(path, text + "\n")


def read_kept(path: Path) -> KeptPage | None:
    """Return what an earlier engine kept, or None where there is nothing that can be read. Blocks."""
    try:
        text = read_file(path, _MOST_BYTES)
        if text is None:
            return None
        return _kept_of(json.loads(text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        logger.warning("what an earlier engine kept of the page in %s cannot be read", path, exc_info=True)
        return None


def _kept_of(found: Any) -> KeptPage:
    """Return what the file says; raises where that is nothing that an engine wrote."""
    port = int(found["port"])
    if not LOWEST_PORT <= port <= HIGHEST_PORT:
        raise ValueError(f"no port of a page: {port}")
    sessions = [
        Session(digest=str(one["digest"]), made_at=_time(one["made"]), used_at=_time(one["used"]))
        for one in found["sessions"]
    ]
    return KeptPage(port=port, sessions={one.digest: one for one in sessions})


def _time(given: Any) -> float:
    seconds = float(given)
    if not math.isfinite(seconds):
        raise ValueError(f"no time: {seconds}")
    return seconds
