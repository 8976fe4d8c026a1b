"""The time of a job in parts: queued, at work, waiting, paused. What the page and the trace draw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_ENDED_WELL: Final = frozenset(("completed", "completed_with_denials"))
_CUT_OFF: Final = frozenset(("cancelled", "interrupted", "dependency_failed"))
_LIVE: Final = frozenset(("queued", "running"))

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a job's time.

    Args:
        what: `queued`, `paused`, `working`, `children` or `permission`: what it waits for, where it does.
        how: What became of its attempt: `running`, `completed`, `failed` or `cancelled`; empty outside of attempts.
        since: Seconds since the epoch.
        until: Seconds since the epoch; for what goes on, when the record was made.
        attempt: Number of its attempt; 0 outside of attempts.
        reason: Why the attempt ended, or empty.
        is_open: Whether it goes on.
    """

    what: str
    since: float
    until: float
    how: str = ""
    attempt: int = 0
    reason: str = ""
    is_open: bool = False


def parts_of(row: Row, pauses: Sequence[tuple[float, float]], now: float) -> list[Part]:
    """Return the parts of a job's time, in their order.

    Args:
        row: The job.
        pauses: The pauses that held it, as `pauses_of` returns them.
        now: Seconds since the epoch at which the record was made.
    """
    attempts = attempts_of(row)
    reached = row.get("createdAt", attempts[0]["from"] if attempts else now)
    parts: list[Part] = []
    last: Row | None = None
    for attempt in attempts:
        parts += _idle(reached, attempt["from"], last, pauses, is_open=False)
        parts += _of_attempt(attempt, now, row)
        reached, last = attempt.get("to", now), attempt
    if row["status"] == "queued":
        parts += _idle(reached, now, last, pauses, is_open=True)
    elif not attempts and "endedAt" in row:
        parts += _idle(reached, row["endedAt"], None, pauses, is_open=False)
    return [part for part in parts if part.until > part.since or part.is_open]


def attempts_of(row: Row) -> Sequence[Row]:
    """Return the attempts of a job; where it names none, the one that its own times tell of."""
    found: Sequence[Row] = row.get("attempts", ())
    if found or "startedAt" not in row:
        return found
    times = {"from": row["startedAt"], "to": row.get("endedAt"), "reason": row.get("reason"), "status": row["status"]}
    return [{"number": row.get("attempt", 1), **{name: value for name, value in times.items() if value is not None}}]


def fate(attempt: Row) -> str:
    """Return what became of an attempt that is over: `completed`, `failed` or `cancelled`."""
    if attempt.get("reason") in _ENDED_WELL or attempt.get("status") == "completed":
        return "completed"
    return "cancelled" if attempt.get("reason") in _CUT_OFF or attempt.get("status") == "cancelled" else "failed"


def pauses_of(ids: Sequence[str], pauses: Sequence[Sequence[Any]], now: float) -> list[tuple[float, float]]:
    """Return the pauses of a job and of what is above it, joined and in their order.

    Args:
        ids: Its id and those of what is above it.
        pauses: Those of the tree: from, to or None, path.
        now: The end of those that last, in seconds since the epoch.
    """
    above = {"", *ids}
    held = sorted((since, now if until is None else until) for since, until, path in pauses if _end_of(path) in above)
    joined: list[tuple[float, float]] = []
    for since, until in held:
        if joined and since <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], until))
        else:
            joined.append((since, until))
    return joined


def _end_of(path: str) -> str:
    return path.rpartition("/")[2]


def _of_attempt(attempt: Row, now: float, row: Row) -> Iterator[Part]:
    is_open = "to" not in attempt and row["status"] in _LIVE
    until = attempt.get("to", now if is_open else row.get("endedAt", now))
    how = "running" if is_open else fate(attempt)
    number, reason = attempt["number"], attempt.get("reason", "")
    reached = attempt["from"]
    waits_on = False
    for what, since, *ends in attempt.get("waits", ()):
        begin, end = max(reached, since), min(until, ends[0] if ends else until)
        waits_on = is_open and not ends
        if end <= begin and not waits_on:
            continue
        yield Part(what="working", how=how, since=reached, until=begin, attempt=number, reason=reason)
        yield Part(what=what, how=how, since=begin, until=end, attempt=number, reason=reason, is_open=waits_on)
        reached = end
    goes_on = is_open and not waits_on
    yield Part(what="working", how=how, since=reached, until=until, attempt=number, reason=reason, is_open=goes_on)


def _idle(
    since: float, until: float, last: Row | None, pauses: Sequence[tuple[float, float]], *, is_open: bool
) -> Iterator[Part]:
    """Yield the parts of a time in which a job waits for its next attempt."""
    # After an answer that asks for subtasks a job is queued until these are over.
    what = "children" if last is not None and last.get("reason") in _ENDED_WELL else "queued"
    reached = since
    for paused, resumed in pauses:
        if resumed <= reached or paused >= until:
            continue
        begin, end = max(paused, reached), min(resumed, until)
        yield Part(what=what, since=reached, until=begin)
        yield Part(what="paused", since=begin, until=end, is_open=is_open and end >= until)
        reached = end
    yield Part(what=what, since=reached, until=until, is_open=is_open and (reached < until or not pauses))
