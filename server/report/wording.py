"""Words and figures of a report for a person: the same as in the page and in `claude-jobs top`."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

from server.report.job_times import Part

WORDS: Final[Mapping[str, str]] = {
    "asking": "asking",
    "running": "running",
    "waiting": "waiting",
    "paused": "paused",
    "queued": "queued",
    "completed": "done",
    "failed": "failed",
    "timeout": "timed out",
    "cancelled": "cancelled",
}
"""State of a job to the word for it, in the order in which they are counted."""

NOTHING: Final = "\N{EN DASH}"
"""Where there is no figure."""

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LIVE: Final = frozenset(("queued", "running"))
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

_WAITS: Final[Mapping[str, str]] = {
    "children": "waits for its jobs",
    "slot": "waits for a slot",
    "memory": "waits for free memory",
    "back_off": "waits after an error",
}

_WHAT: Final[Mapping[str, str]] = {
    "queued": "queued",
    "paused": "paused",
    "children": "waited for its jobs",
    "permission": "waited for a permission",
    "working": "ran",
}


def money(usd: float) -> str:
    """Return US dollars: "$1.84", "$0.0042" where it is less than a cent; an empty text for nothing."""
    if usd <= 0:
        return ""
    if usd < 0.00005:
        return "<$0.0001"
    if usd < 0.01:
        return f"${usd:.4f}"
    return f"${usd:.2f}" if usd < 1000 else f"${usd:,.0f}"


def tokens(count: int) -> str:
    """Return a number of tokens: "850", "31k", "2.4M"."""
    if count < 1000:
        return str(count)
    thousands = count / 1000
    if count < 9950:
        return f"{thousands:.1f}".removesuffix(".0") + "k"
    if count < 999_500:
        return f"{thousands:.0f}k"
    return f"{count / 1e6:.{1 if count < 9.95e6 else 0}f}".removesuffix(".0") + "M"


def duration(seconds: float) -> str:
    """Return a length of time: "4s", "4:12", "1:04:12", "3d 02h"."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole >= _DAY:
        return f"{whole // _DAY}d {whole % _DAY // _HOUR:02}h"
    minutes, rest = divmod(whole, _MINUTE)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def clock(at: float, zone: tzinfo | None) -> str:
    """Return a time of day with its date: "30 Nov 2026, 18:40:01".

    Args:
        at: Seconds since the epoch.
        zone: The time zone, or None for that of this machine.
    """
    then = datetime.fromtimestamp(at, zone)
    # Not by the locale: the rest is English.
    return f"{then.day} {_MONTHS[then.month - 1]} {then.year}, {then:%H:%M:%S}"


def span(since: float, until: float | None, zone: tzinfo | None) -> str:
    """Return a time from one moment to another, whose date is written once where it is the same."""
    begin = clock(since, zone)
    if until is None:
        return begin
    end = clock(until, zone)
    day, _, time = end.partition(", ")
    return f"{begin} to {time if begin.startswith(day) else end}"


def counted(count: int, word: str) -> str:
    """Return "1 job", "4 jobs"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def state_of(row: Mapping[str, Any]) -> str:
    """Return what a job is in: its status, or why it does no work, one of `WORDS`."""
    status: str = row["status"]
    if status not in _LIVE:
        return status
    waits = row.get("waitingFor")
    if waits == "permission":
        return "asking"
    if waits == "pause" or (row.get("paused") and status == "queued"):
        return "paused"
    return "waiting" if waits and waits != "slot" else status


def name_of(row: Mapping[str, Any]) -> str:
    """Return a job's name: the key of its task, else the first line of its task."""
    return first_line(row.get("key", "")) or first_line(row.get("task", "")) or str(row["jobId"])


def in_words(word: str) -> str:
    """Return a reason as words."""
    return word.replace("_", " ")


def outcome_of(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return in one line what became of a job, or what it does.

    Args:
        row: The job.
        names: Names of jobs by their ids.
    """
    if row["status"] == "completed":
        reason, said = row.get("reason", "completed"), _gist(row.get("answer", ""))
        return said if reason == "completed" else f"{in_words(reason)}: {said}".removesuffix(": ")
    if row["status"] not in _LIVE:
        return first_line(row.get("error", "")) or in_words(row.get("reason") or WORDS[row["status"]])
    if "waitingFor" in row:
        return _waits(row, names)
    return row.get("activity") or WORDS[state_of(row)]


def _waits(row: Mapping[str, Any], names: Mapping[str, str]) -> str:
    because: str = row.get("waitingBecause", "")
    match row["waitingFor"]:
        case "permission":
            return f"asks: {because}" if because else "asks for a permission"
        case "siblings":
            waited = [names[one] for one in row.get("dependsOn", ()) if one in names]
            return f"waits for {', '.join(waited) or 'other tasks'}"
        case "limit" | "pause" as what:
            return because or {"limit": "usage limit", "pause": "paused"}[what]
        case what:
            return _WAITS.get(what, f"waits for {in_words(what)}")


def told(parts: list[Part]) -> str:
    """Return a job's time in one sentence, for those who do not see the bars."""
    said = []
    for place, part in enumerate(parts):
        ends = place + 1 == len(parts) or parts[place + 1].attempt != part.attempt
        end = ""
        if part.attempt and ends and not part.is_open:
            end = f", {part.how}{f': {in_words(part.reason)}' if part.how == 'failed' and part.reason else ''}"
        said.append(f"{_WHAT.get(part.what, part.what)} {duration(part.until - part.since)}{end}")
    return "; ".join(said)


def first_line(text: str) -> str:
    """Return the first line of a text that is not blank, with at most 300 characters."""
    return next((" ".join(line.split())[:300] for line in text.split("\n") if line.strip()), "")


def _gist(answer: str) -> str:
    """Return the line of an answer that says most, without its marks: not its heading, where there is more."""
    lines = [" ".join(line.split()) for line in answer.split("\n", 20) if line.strip()]
    plain = next((line for line in lines if not line.startswith(("#", "```", "---", "|"))), first_line(answer))
    return plain.lstrip("#>*- ").replace("**", "").replace("`", "")[:300]
