"""Reads rate limits and usage limits from frames, so that all jobs of an account slow down together."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from jobs.claude.cli_messages import may_be_the_clis_own, reason_in, reset_in, time_of
from jobs.claude.last_message import words_of
from jobs.model import Reason
from jobs.util.json_values import mapping, number, text

_BUSY: Final = frozenset({429, 529})
_LIMITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "five_hour": "the five-hour limit",
        "seven_day": "the weekly limit",
        "seven_day_opus": "the weekly limit of Opus",
        "seven_day_sonnet": "the weekly limit of Sonnet",
        "overage": "the limit of extra usage",
    }
)
"""Names for a person of the limits that the API names."""
_IN_USE: Final = frozenset({"allowed", "allowed_warning"})


@dataclass(frozen=True, slots=True)
class RateLimited:
    """The API refused or delayed a request: 429 or 529."""


@dataclass(frozen=True, slots=True)
class UsageLimitReached:
    """A usage limit is reached.

    Args:
        resets_at: Seconds since the epoch at which it ends, or None where the frame does not say.
        because: Which limit, for a person.
    """

    resets_at: float | None
    because: str


@dataclass(frozen=True, slots=True)
class ExtraUsage:
    """A usage limit is reached, and requests go on, on usage that is paid for beyond it.

    Args:
        resets_at: Seconds since the epoch at which the limit ends, or None where the frame does not say.
        because: Which limit, for a person.
    """

    resets_at: float | None
    because: str


@dataclass(frozen=True, slots=True)
class NeedsCredits:
    """The account must buy credits or raise its spend limit: no time ends it, and other accounts do not feel it."""


RateLimitSignal: TypeAlias = RateLimited | UsageLimitReached | ExtraUsage | NeedsCredits


def rate_limit_signal(frame: Mapping[str, Any]) -> RateLimitSignal | None:
    """Return what a frame says about limits, or None; never raises."""
    match frame.get("type"), frame.get("subtype"):
        case "system", "api_retry":
            return RateLimited() if number(frame.get("error_status")) in _BUSY else None
        case "rate_limit_event", _:
            return limit_of(mapping(frame.get("rate_limit_info")))
        case "assistant", _ if may_be_the_clis_own(frame):
            refused = mapping(mapping(frame.get("api_error_params")).get("rate_limit_info"))
            sign = limit_of(refused)
            is_said = sign is None or isinstance(sign, ExtraUsage)
            return (_message_sign(words_of(frame), frame) or sign) if is_said else sign
        case "result", _:
            return _result_sign(frame)
        case _:
            return None


def limit_of(info: Mapping[str, Any]) -> UsageLimitReached | ExtraUsage | NeedsCredits | None:
    """Return what a `rate_limit_info` says: None where requests go on within the limit."""
    if info.get("status") != "rejected":
        return None
    resets_at, kind = number(info.get("resetsAt")), text(info.get("rateLimitType"))
    because = f"{_LIMITS.get(kind, f'the limit {kind}') if kind else 'a usage limit'} is reached"
    if info.get("isUsingOverage") is True or text(info.get("overageStatus")) in _IN_USE:
        return ExtraUsage(resets_at=resets_at, because=because)
    # As the CLI itself tells them apart: a plan's limit ends by itself, even if more could be bought meanwhile.
    if info.get("errorCode") == "credits_required" and (resets_at is None or info.get("rateLimitType") == "overage"):
        return NeedsCredits()
    return UsageLimitReached(resets_at=resets_at, because=because)


def _result_sign(frame: Mapping[str, Any]) -> RateLimited | UsageLimitReached | NeedsCredits | None:
    if number(frame.get("api_error_status")) not in _BUSY:
        return None
    # The frames before it have said when it ends; here it must not be taken for a transient refusal.
    said = _message_sign(text(frame.get("result")), frame)
    return said if isinstance(said, NeedsCredits) else RateLimited()


def _message_sign(said: str, frame: Mapping[str, Any]) -> UsageLimitReached | NeedsCredits | None:
    match reason_in(said):
        case Reason.BILLING:
            return NeedsCredits()
        case Reason.USAGE_LIMIT:
            resets_at = reset_in(said, written_at=time_of(frame), now=time.time())
            return UsageLimitReached(resets_at=resets_at, because=said.strip())
        case _:
            return None
