"""Tells the CLI's own messages from a model's answers, and reads the reason and the reset time in them.

The CLI puts its own messages where answers are: as an assistant frame, and as the text of a result. It marks them as
errors, but older versions and some paths of newer ones do not (seen as completed jobs that answered "Credit balance is
too low"). A text counts as such a message only as a whole, and only in a frame that is not visibly the model's: an
answer that talks about a credit balance stays an answer.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from jobs.model import Reason
from jobs.util.json_values import mapping, text

_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OF_A_MODEL: Final = re.compile(rf"(?!{_UUID}$)(?:[A-Za-z]+[-_].*|.{{8,}})")
"""Ids of a model's messages: `msg_…` of the API, `chatcmpl-…` or `gen-…` of gateways. The CLI's own have a UUID.
With a shorter id than any API gives, or none, nothing says who wrote a message."""

_SYNTHETIC: Final = "<synthetic>"

_LONGEST: Final = 1000
"""Characters; the longest of these messages has about 400."""

_MESSAGES: Final = tuple(
    (re.compile(rf"(?:API Error: )?(?:\d{{3}} |Request rejected \(\d{{3}}\) · )?(?:{pattern})"), reason)
    for pattern, reason in (
        (r"(?:Your )?[Cc]redit balance (?:is )?too low(?: · .*| to access .*)?", Reason.BILLING),
        (r"You've (?:hit|reached) your (?:[\w' -]{1,30} )?spend limit\b.*", Reason.BILLING),
        (r"You're out of (?:usage credits|extra usage)\b.*", Reason.BILLING),
        (r"You've used your included usage\b.*", Reason.BILLING),
        (r"Your org is out of usage · .*", Reason.BILLING),
        (r"Your seat type doesn't include (?:extra )?usage\b.*", Reason.BILLING),
        (r"Your usage allocation has been disabled by your admin\b.*", Reason.BILLING),
        (r"Your group's usage limit is set to \$0\b.*", Reason.BILLING),
        (r"(?:Fable|Haiku|Mythos|Opus|Sonnet)(?: [^·\n]{1,40})? requires usage credits\b.*", Reason.BILLING),
        (r"(?:Usage credits|Extra usage is) required for .*", Reason.BILLING),
        # A limit that an organisation has set itself for a month; the date is not that of a plan's limit.
        (r"You have reached your specified API usage limits\b.*", Reason.BILLING),
        (
            r"You've (?:hit|reached) your [\w' -]{1,60}limit(?: for this week)?(?:\.| [·∙] .*|\. .*)?",
            Reason.USAGE_LIMIT,
        ),
        (r"(?:[\w-]+ ){1,3}limit reached(?: [·∙] resets .*|\|\d+)", Reason.USAGE_LIMIT),
        (r"Claude(?: AI)? usage limit reached\. Your limit will reset at .*", Reason.USAGE_LIMIT),
        (r"Prompt is too long(?:\.|: .*| · .*)?", Reason.PROMPT_TOO_LONG),
        (r"The model has reached its context window limit\..*", Reason.PROMPT_TOO_LONG),
        (r"Output blocked by content filtering policy\b.*", Reason.REFUSAL),
        (r"Autocompact is thrashing: (?:.|\n)*", Reason.PROMPT_TOO_LONG),
    )
)
"""Whole messages, read off the strings of Claude Code 2.1.332 and off public reports of older versions."""

_HINT: Final = re.compile(r"limit|usage|credit|too l|thrash|filter")
"""Each of these messages holds one of them, and few answers do."""

_PASSED: Final = timedelta(hours=1)
"""A message names an hour of the day. One that had passed so recently when it was written is the one that is meant."""

_HALF_A_YEAR: Final = timedelta(days=183)

_RESET: Final = re.compile(
    r"\bresets? (?:at )?(?:(?P<month>[A-Z][a-z]{2}) (?P<day>\d{1,2})(?:, (?P<year>\d{4}))?(?:,| at) )?"
    r"(?P<hour>1[0-2]|0?[1-9])(?::(?P<minute>\d\d))? ?(?P<half>[ap]m)(?: \((?P<zone>[^)]+)\))?"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RESET_IN_SECONDS: Final = re.compile(r"\|(\d{10})\b")


def may_be_the_clis_own(frame: Mapping[str, Any]) -> bool:
    """Tell whether an assistant frame may hold a message of the CLI: nothing says that a model wrote it."""
    message = mapping(frame.get("message"))
    return is_marked_as_the_clis_own(frame) or not _OF_A_MODEL.fullmatch(text(message.get("id")))


def is_marked_as_the_clis_own(frame: Mapping[str, Any]) -> bool:
    """Tell whether the CLI marks an assistant frame as its own message."""
    is_error = bool(frame.get("error")) or frame.get("is_api_error_message") is True
    return is_error or mapping(frame.get("message")).get("model") == _SYNTHETIC


def reason_in(said: str) -> Reason | None:
    """Return what a message of the CLI says about the end of its work, or None for any other text."""
    said = said.strip()
    if len(said) > _LONGEST or not _HINT.search(said):
        return None
    found = next((reason for pattern, reason in _MESSAGES if pattern.fullmatch(said)), None)
    # What is out of credits until a limit resets goes on by itself then.
    return Reason.USAGE_LIMIT if found is Reason.BILLING and _RESET.search(said) else found


def reset_in(said: str, *, written_at: float | None, now: float) -> float | None:
    """Return the time that a message names as the end of a usage limit, in seconds since the epoch, or None.

    A message of unknown age may be a day old. If it names an hour that is over today, the limit may have ended, so
    nothing is known: no job waits until tomorrow for an hour of today.

    Args:
        said: The message.
        written_at: When it was written, in seconds since the epoch; None where that is not known.
        now: The present time, in seconds since the epoch.
    """
    if seconds := _RESET_IN_SECONDS.search(said):
        return float(seconds[1])
    if (found := _RESET.search(said)) is None:
        return None
    # A zone that is none or not known here, or the 31st of a short month.
    with suppress(ValueError, KeyError, OSError, OverflowError):
        seen = datetime.fromtimestamp(now if written_at is None else written_at, UTC)
        local = seen.astimezone(ZoneInfo(found["zone"]) if found["zone"] else None)
        at = _nearest_date(found, local) if found["month"] else _next_hour(found, local)
        is_known = found["month"] or written_at is not None or at.date() <= local.date()
        return at.timestamp() if is_known else None
    return None


def time_of(frame: Mapping[str, Any]) -> float | None:
    """Return when a frame was written, in seconds since the epoch, or None where it does not say."""
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text(frame.get("timestamp"))).timestamp()
    return None


def _next_hour(found: re.Match[str], local: datetime) -> datetime:
    today = _at_hour(found, local)
    days = (today + timedelta(days=days) for days in (-1, 0, 1))
    return next(at for at in days if at > local - _PASSED)


def _nearest_date(found: re.Match[str], local: datetime) -> datetime:
    year, month = int(found["year"] or local.year), _MONTHS.index(found["month"]) + 1
    at = _at_hour(found, local).replace(year=year, month=month, day=int(found["day"]))
    # In December "Jan 2" is one of the next year, and on January 1 "Dec 31" one of the last.
    if found["year"] or abs(at - local) < _HALF_A_YEAR:
        return at
    return at.replace(year=year + 1 if at < local else year - 1)


def _at_hour(found: re.Match[str], local: datetime) -> datetime:
    hour = int(found["hour"]) % 12 + 12 * (found["half"] == "pm")
    return local.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
