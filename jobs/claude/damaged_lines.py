"""Reads what is left of a line of output that is no frame as a whole, because something was written into it.

Seen of released CLIs: two objects on a line, a `rate_limit_event` or a log line in the middle of another frame, text or
an escape sequence in front of one. A frame is cut out where it is whole; the beginning of a torn one is kept, since its
end may follow.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

MOST_TRIES: Final = 32
"""How many places of one line are tried as the beginning of a frame: a line of 16 MB of brackets must not cost more."""

_BEGINNING: Final = re.compile(r'\{\s*"')
# Quotation marks inside a frame's texts are escaped, so these match nothing that a model or a tool wrote.
_OF_A_RESULT: Final = re.compile(r'"type"\s*:\s*"result"')
_OF_A_SUCCESS: Final = (re.compile(r'"subtype"\s*:\s*"success"'), re.compile(r'"is_error"\s*:\s*false'))


class Lost(StrEnum):
    """What was on a line that cannot be read."""

    FRAME = "frame"
    ANSWER = "answer"
    """A result that said of itself that it is no error: the answer is in the frames before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
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


def remains_of(line: str) -> Remains:
    """Cut the whole frames out of a line."""
    frames: list[Mapping[str, Any]] = []
    rest, at, torn, tries = "", 0, -1, 0
    for match in _BEGINNING.finditer(line):
        if match.start() < at:
            continue
        found = _frame_at(line, match.start())
        # Inside a torn frame an object that merely looks like one may stand: in the arguments of a tool, for example.
        if found is not None and (torn < 0 or "session_id" in found[0]):
            frames.append(found[0])
            rest += line[at : match.start()]
            at = found[1]
        elif (tries := tries + 1) == MOST_TRIES:
            break
        elif torn < 0:
            torn = len(rest) + match.start() - at
    rest += line[at:]
    if torn >= 0 and (whole := _frame(rest[torn:])) is not None:
        return Remains(frames=[*frames, whole], text=rest[:torn], torn="")
    return Remains(frames=frames, text=rest, torn=rest[torn:] if torn >= 0 else "")


def joined(torn: str, line: str) -> Mapping[str, Any] | None:
    """Return the frame whose beginning and end are given, or None; what was between them may have ended the line."""
    return _frame(torn + line) or _frame(f"{torn}\n{line}")


def lost_with(torn: str) -> Lost | None:
    """Say what cannot be read where so much of a line is known."""
    if not _BEGINNING.match(torn):
        return None
    is_answer = _OF_A_RESULT.search(torn) and all(sign.search(torn) for sign in _OF_A_SUCCESS)
    return Lost.ANSWER if is_answer else Lost.FRAME


def _frame(text: str) -> Mapping[str, Any] | None:
    value = decoded(text.strip())
    return value if value is not None and isinstance(value.get("type"), str) else None


def _frame_at(line: str, begin: int) -> tuple[Mapping[str, Any], int] | None:
    try:
        value, end = _DECODER.raw_decode(line, begin)
    except (ValueError, RecursionError):
        return None
    return (value, end) if isinstance(value.get("type"), str) else None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


# Python alone reads and writes NaN and Infinity: whoever got them in a reply could not read it. Not strict: a control
# character within a text is no reason to lose a frame.
_DECODER: Final = json.JSONDecoder(strict=False, parse_constant=lambda _: None, parse_float=_finite)
