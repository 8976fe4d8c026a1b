"""What a frame says about the API's limits, so that one job's trouble slows the whole machine down."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobs.claude.shapes import mapping, number, text

_BUSY: Final = frozenset({429, 529})


@dataclass(frozen=True, slots=True)
class Busy:
    """The API refused or delayed a request: 429 or 529."""


@dataclass(frozen=True, slots=True)
class UsedUp:
    """A usage limit is reached.

    Args:
        resets_at: Seconds since the epoch at which it ends, or None where the frame does not say.
        because: Which limit, for a person.
    """

    resets_at: float | None
    because: str


def sign_of(frame: Mapping[str, Any]) -> Busy | UsedUp | None:
    """Return what a frame says about limits, or None; never raises."""
    match frame.get("type"), frame.get("subtype"):
        case "system", "api_retry":
            return Busy() if number(frame.get("error_status")) in _BUSY else None
        case "rate_limit_event", _:
            return _event(mapping(frame.get("rate_limit_info")))
        case "result", _:
            return Busy() if number(frame.get("api_error_status")) in _BUSY else None
        case _:
            return None


def _event(info: Mapping[str, Any]) -> UsedUp | None:
    if info.get("status") != "rejected":
        return None
    return UsedUp(resets_at=number(info.get("resetsAt")), because=text(info.get("rateLimitType")) or "a usage limit")
