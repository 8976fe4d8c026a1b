"""Readers for values of untrusted JSON: each returns its type for any input."""

import math
import re
from collections.abc import Mapping
from typing import Any

_TERMINAL_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor and the like
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, clipboard and the like
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON array, or none for anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return a text that can be encoded, or an empty one for anything else."""
    # JSON can spell half a character, which no database and no socket would take.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def texts(value: Any) -> list[str]:
    """Return the texts of a JSON array, or none for anything else."""
    return [text(one) for one in value if isinstance(one, str)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        real = float(value)
    except OverflowError:
        return None
    return real if math.isfinite(real) else None


def plain(value: str, limit: int) -> str:
    """Return a text in one line, at most `limit` characters long, without what a terminal would act on."""
    # Four times the limit is enough to fill it unless most of the text is removed, and bounds the work.
    cleaned = _CONTROLS.sub(" ", _TERMINAL_SEQUENCES.sub("", text(value[: 4 * limit]))).strip()
    return cleaned if len(cleaned) <= limit else f"{cleaned[: limit - 1]}…"
