"""Size limits of replies: what a client passes on to its model inline, and how many lines fit."""

import json
from collections.abc import Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

MAX_REPLY_CHARS: Final = 40_000
"""Most characters of a reply that lists jobs.

Claude Code 2.1.330 saves a reply of more than 50,000 characters or 25,000 tokens to a file, and shows its model 2 KB of
it (measured). Ids and JSON have about two characters per token.
"""

MAX_REQUESTS_CHARS: Final = 12_000
"""Most characters of the permission requests in one reply."""


def fitting(lines: Iterable[T], room: int) -> list[T]:
    """Return as many of the first lines as fit into `room` characters of JSON, and at least one where there is any."""
    shown: list[T] = []
    for line in lines:
        room -= len(json.dumps(line, ensure_ascii=False)) + 1
        if room < 0 and shown:
            break
        shown.append(line)
    return shown


def within(pretty: str, compact: str) -> str:
    """Return the indented JSON where it is short enough, and otherwise the compact one."""
    return pretty if len(pretty) <= MAX_REPLY_CHARS else compact


def rest(count: int, how: str) -> dict[str, Any]:
    """Return the field that reports the omitted lines, or nothing where none were.

    Args:
        count: How many.
        how: The call that gets them.
    """
    return {"left": count, "next": how} if count > 0 else {}
