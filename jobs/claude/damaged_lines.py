"""Recovers frames from damaged lines of output: lines into which something else was written.

Seen of released CLIs: two objects on a line, a `rate_limit_event` or a log line in the middle of another frame, text or
an escape sequence in front of one. A frame is cut out where it is whole; the beginning of a torn one is kept, since its
end may follow. A frame that is cut out or put together counts only with the id of the session, which every frame of the
CLI has: a log, a hook or the arguments of a tool may hold objects that look like frames.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from jobs.util.json_values import text

MOST_TRIES: Final = 4
"""How many places of one line are tried in vain as the beginning of a frame: each try may read the rest of the line."""

_MOST_BEFORE: Final = 4096
"""Characters of a long line within which its first frame must begin."""

PASSING: Final = "stream_event"
"""Type of the frames that hold a part of a message, which another frame holds as a whole."""

# Quotation marks inside a frame's texts are escaped, so this matches nothing within them.
_BEGINNING: Final = re.compile(r'\{\s*"')
_MEMBER: Final = re.compile(r'\s*[{,]\s*"(\w+)"\s*:\s*')


class UnreadableKind(StrEnum):
    """Kind of frame that a damaged line held and that cannot be read."""

    FRAME = "frame"
    ANSWER = "answer"
    """A result that said of itself that it is no error: the answer is in the frames before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What a damaged line holds.

    Args:
        frames: The whole frames on it, in order.
        text: The rest of it.
        torn: That part of the rest that is the beginning of a frame, or empty.
    """

    frames: Sequence[Mapping[str, Any]]
    text: str
    torn: str


def decoded(line: str) -> Mapping[str, Any] | None:
    """Return a line as a JSON object, or None where it is none; numbers that JSON does not know become null."""
    if not line.startswith("{"):
        return None
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError):
        # RecursionError: nesting of 100,000 brackets; ValueError: broken JSON, or an integer of 5,000 digits.
        return None
    return value if isinstance(value, dict) else None


def salvaged(line: str, session: str) -> Salvage:
    """Cut the whole frames of a session out of a line.

    Args:
        line: The line.
        session: The session's id; empty where it is not known yet. The `init` frame is the first that counts then.
    """
    frames: list[Mapping[str, Any]] = []
    rest, at, end, torn, tries = "", 0, 0, -1, 0
    for match in _BEGINNING.finditer(line):
        if match.start() < end:
            continue
        if (found := _object_at(line, match.start())) is not None:
            frame, end = found
            if _is_of(frame, session):
                frames.append(frame)
                session = text(frame.get("session_id"))
                rest += line[at : match.start()]
                at = end
        elif (tries := tries + 1) == MOST_TRIES:
            break
        elif torn < 0:
            torn = len(rest) + match.start() - at
    rest += line[at:]
    if torn >= 0 and (whole := _frame(rest[torn:], session)) is not None:
        return Salvage(frames=[*frames, whole], text=rest[:torn], torn="")
    return Salvage(frames=frames, text=rest, torn=rest[torn:] if torn >= 0 else "")


def first_frame(line: str, session: str) -> Mapping[str, Any] | None:
    """Return the first object of a long line where it is a frame of the session, or None; one place is tried.

    Args:
        line: The line.
        session: The session's id.
    """
    begins = _BEGINNING.search(line, 0, _MOST_BEFORE)
    found = _object_at(line, begins.start()) if begins else None
    return found[0] if found is not None and _is_of(found[0], session) else None


def joined(torn: str, line: str, session: str) -> Mapping[str, Any] | None:
    """Return the frame of a session whose beginning and end are given, or None."""
    return _frame(torn + line, session) if line.rstrip().endswith("}") else None


def kind_of_unreadable(beginning: str, session: str) -> UnreadableKind | None:
    """Say what cannot be read where no more than the beginning of a line is known."""
    if not _BEGINNING.match(beginning):
        return None
    known = _members(beginning)
    if known.get("type") == PASSING:
        return None
    # In frames of 2.1.330 the type of a result comes after its text; no other frame has these two.
    is_success = known.get("subtype") == "success" and known.get("is_error") is False
    is_ours = known.get("type", "result") == "result" and known.get("session_id", session) == session
    return UnreadableKind.ANSWER if is_success and is_ours else UnreadableKind.FRAME


def _members(beginning: str) -> Mapping[str, Any]:
    """Return the members of a torn object that are whole."""
    known: dict[str, Any] = {}
    at = 0
    while name := _MEMBER.match(beginning, at):
        try:
            known[name[1]], at = _DECODER.raw_decode(beginning, name.end())
        except (ValueError, RecursionError):
            break
    return known


def _frame(line: str, session: str) -> Mapping[str, Any] | None:
    value = decoded(line.strip())
    return value if value is not None and _is_of(value, session) else None


def _is_of(frame: Mapping[str, Any], session: str) -> bool:
    if not session:
        return (frame.get("type"), frame.get("subtype")) == ("system", "init")
    return isinstance(frame.get("type"), str) and frame.get("session_id") == session


def _object_at(line: str, begin: int) -> tuple[Mapping[str, Any], int] | None:
    try:
        return _DECODER.raw_decode(line, begin)
    except (ValueError, RecursionError):
        return None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


# Python alone reads and writes NaN and Infinity: a client that got them in a reply could not read it. Not strict: a
# control character within a text is no reason to lose a frame.
_DECODER: Final = json.JSONDecoder(strict=False, parse_constant=lambda _: None, parse_float=_finite)
