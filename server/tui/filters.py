"""The filter of the list: words, `status:failed`, `cost>0.5`."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from jobs.model import LIVE, JobStatus

Matches = Callable[[Mapping[str, Any], float], bool]
"""Tells whether a row is meant, given the row and what its job cost in US dollars."""

_COST: Final = re.compile(r"cost([<>])\$?(\d*\.?\d+)")
_SEARCHED: Final = ("jobId", "key", "task", "activity", "error", "excerpt", "waitingBecause", "reason")
_WAITS: Final = frozenset({"waiting", "waits"})


def parsed(text: str) -> Matches | None:
    """Return the filter that a text means, or None where it means no filter: all of its words must fit.

    Args:
        text: Words to be found in a row; `status:` with the beginning of a status, `waiting` or `live`; `cost>` or
            `cost<` with US dollars.
    """
    terms = [_term(word) for word in text.lower().split()]
    if not terms:
        return None
    return lambda row, cost: all(term(row, cost) for term in terms)


def _term(word: str) -> Matches:
    if found := _COST.fullmatch(word):
        limit = float(found[2])
        return (lambda _, cost: cost > limit) if found[1] == ">" else (lambda _, cost: cost < limit)
    name, colon, value = word.partition(":")
    if name == "status" and colon:
        return _with_status(value)
    return lambda row, _: any(word in str(row[field]).lower() for field in _SEARCHED if field in row)


def _with_status(value: str) -> Matches:
    if value in _WAITS:
        return lambda row, _: "waitingFor" in row
    if value == "live":
        return lambda row, _: row["status"] in LIVE
    meant = frozenset(status for status in JobStatus if status.startswith(value))
    return lambda row, _: row["status"] in meant
