"""Formats times for a person: in the time zone of the terminal, with their age."""

import re
from datetime import UTC, datetime

_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d:\d\d|Z)")
"""A time with its offset from UTC, as in replies and reasons of pauses."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

_AGE = re.compile(r"(\d{1,6}(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": _MINUTE, "h": _HOUR, "d": _DAY, "w": 7 * _DAY}


def moment(written: str | None) -> float | None:
    """Return the seconds since the epoch of a time in ISO 8601, or None where it is not one.

    A time without an offset is in the time zone of this process, as `startTime` of an older engine is.
    """
    try:
        return datetime.fromisoformat(written or "").timestamp()
    except ValueError:
        return None


def clock(seconds: float, now: float, *, brief: bool = False) -> str:
    """Return a time in the time zone of this terminal; with its date unless it is today.

    Args:
        seconds: Since the epoch.
        now: The present, in seconds since the epoch.
        brief: Without seconds, and on another day the date only.
    """
    # The time zone of the process: that of its TZ, which is the terminal's.
    then, today = (datetime.fromtimestamp(one, UTC).astimezone() for one in (seconds, now))
    if then.date() == today.date():
        return then.strftime("%H:%M" if brief else "%H:%M:%S")
    date = f"{then.day} {then:%b}" if then.year == today.year else f"{then:%Y-%m-%d}"
    return date if brief else f"{date} {then:%H:%M:%S}"


def age(seconds: float, now: float) -> str:
    """Return how long ago a time was, or how far ahead it is, in its largest unit."""
    away = abs(now - seconds)
    size, unit = next((one for one in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")) if away >= one[0]), (1, "s"))
    words = f"{int(away // size)}{unit}"
    return f"in {words}" if seconds > now else f"{words} ago"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: "0.4s", "12s", "1m 05s", "3h 02m", "2d 04h"."""
    if seconds < 10 and seconds != int(seconds):
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02}h"


def told(seconds: float, now: float, *, brief: bool = False) -> str:
    """Return a time with its age: "14:03:12, 5m ago"."""
    return f"{clock(seconds, now, brief=brief)}, {age(seconds, now)}"


def here(text: str, now: float) -> str:
    """Return a text with each time that has a UTC offset in the time zone of this terminal."""

    def spelled(found: re.Match[str]) -> str:
        seconds = moment(found[0])
        return found[0] if seconds is None else f"{clock(seconds, now)} ({age(seconds, now)})"

    return _MOMENT.sub(spelled, text)


def age_seconds(text: str) -> float:
    """Return the seconds of an age as a person writes it: "90s", "30m", "2h", "3d", "1w".

    Raises:
        ValueError: It is written in another way.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text[:40]!r} is not an age; write a number and a unit, such as 30m, 2h, 3d or 1w")
    return float(found[1]) * _UNITS[found[2]]
