"""Fits the fields of a reply into a number of bytes: texts are cut first, then what matters least is left out."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_LEAST_TEXT = 30
"""Bytes of a text below which it is not cut any more."""


def fitted(
    fields: Mapping[str, Any], room: int, *, texts: Mapping[str, int], droppable: Sequence[str]
) -> dict[str, Any]:
    """Return the fields, in their order, in at most `room` bytes of JSON without blanks.

    Args:
        fields: All of them.
        room: The bytes.
        texts: Fields that may be cut, with the bytes that each keeps for as long as another field can go instead;
            the first one gets the bytes that are left in the end.
        droppable: Fields that may be left out, the least important first.
    """
    kept = dict(fields)
    if size_of(kept) <= room:
        return kept
    cuttable = [name for name in texts if isinstance(fields.get(name), str)]
    kept |= {name: cut(fields[name], texts[name]) for name in cuttable}
    for name in droppable:
        if size_of(kept) > room:
            kept.pop(name, None)
    for name in reversed(cuttable):
        _resize(kept, fields, name, room, grow=False)
    for name in cuttable:
        _resize(kept, fields, name, room, grow=True)
    return kept


def _resize(kept: dict[str, Any], fields: Mapping[str, Any], name: str, room: int, *, grow: bool) -> None:
    free = room - size_of(kept)
    if name in kept and free and (free > 0) is grow:
        kept[name] = cut(fields[name], max(_LEAST_TEXT, size_of(kept[name]) + free))


def cut(text: str, room: int) -> str:
    """Return a text that takes at most `room` bytes as JSON with its quotation marks; a mark shows where it is cut."""
    if size_of(text) <= room:
        return text
    # A character takes one byte at least, and the mark three.
    text, room = text[:room], max(0, room - len("…".encode()))
    while text and (over := size_of(text) - room) > 0:
        # The longest way to spell a character is an escape of six bytes.
        text = text[: -max(1, over // 6)]
    return f"{text}…"


def size_of(value: Any) -> int:
    """Return the bytes of a value as JSON without blanks."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))


def without_empty(fields: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the fields without those of these names that are None."""
    return {name: value for name, value in fields.items() if value is not None or name not in names}
