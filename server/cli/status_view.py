"""Shows one job in a terminal: as a line of a list, and as a status with a line for each field."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.text import Text

from jobs.util.text import strip_terminal_codes
from server.cli.columns import Row
from server.cli.doing import Surroundings, doing, is_for_jobs, waiting
from server.cli.lines import one_line, wrapped
from server.cli.times import age, here, moment, span, told
from server.cli.tree_view import LIVE, STYLES, began, dollars
from server.cli.wording import for_a_person

_LEAST_TASK_WIDTH = 16
_PHRASE_WIDTH = 500
_IN_WORDS = frozenset(
    ("waitingFor", "waitingUntil", "waitingBecause", "liveChildren", "silentSeconds", "activity", "requestId")
)
"""Fields of a status that its first lines say in words."""

_WIDE = 100
"""Columns of a terminal from which on a list has whole ids and times."""


def job_row(
    job: Mapping[str, Any],
    *,
    width: int | None = None,
    now: float | None = None,
    brief: Callable[[str], str] = str,
) -> Row:
    """Return one line of `claude_list_jobs` for a person: mark, id, status, cost, start time, task and what it does.

    Args:
        job: The line.
        width: Columns of the terminal, or None for a file.
        now: The present, in seconds since the epoch, or None for the clock's.
        brief: Shortens ids, where the terminal is narrow.
    """
    now = time.time() if now is None else now
    wide = width is None or width >= _WIDE
    mark, style = STYLES.get(job["status"], ("?", ""))
    then = began(job)
    if wide:
        brief = str
        when = f"{'' if then is None else told(then, now, brief=True):<14}"
    else:
        when = f"{'' if then is None else age(then, now):<7}"
    head = Text.assemble(
        (f"{mark} ", style),
        (strip_terminal_codes(brief(job["jobId"])), "bold"),
        (f"  {'waiting' if is_for_jobs(job) else job['status']:<9}", style),
        f"  {dollars(job.get('costUsd')):>7}  {when}  ",
    )
    does = doing(job, Surroundings(now=now, brief=brief)) if job["status"] in LIVE else ("", "")
    return Row(head=head, task=job["task"], now=Text(*does))


def description(status: Mapping[str, Any], *, width: int | None = None, now: float | None = None) -> list[Text]:
    """Return a reply of `claude_status` for a person: a line for each field.

    Args:
        status: The reply.
        width: Columns at most, or None for as many as a line takes.
        now: The present, in seconds since the epoch, or None for the clock's.
    """
    now = time.time() if now is None else now
    said = {
        _words(key): _phrase(value) for key, value in _in_words(status, now).items() if value not in (None, "", {}, [])
    }
    column = max(map(len, said), default=0) + 2
    lines = []
    for name, phrase in said.items():
        room = None if width is None else max(_LEAST_TASK_WIDTH, width - column)
        for index, part in enumerate(wrapped(here(phrase, now), room)):
            lines.append(Text.assemble((f"{'' if index else name:<{column}}", "dim"), part))
    return lines


def _in_words(status: Mapping[str, Any], now: float) -> Mapping[str, Any]:
    """Rewrite a status for a person: times in this terminal's zone, commands for tools, no name twice."""
    shown: dict[str, Any] = {key: status[key] for key in ("jobId", "batchId", "status") if key in status}
    shown |= _status_in_words(status, now) | {"now": _now(status)}
    shown |= {key: value for key, value in status.items() if key not in shown and key not in _IN_WORDS}
    if moment(shown.get("createdAt")) is not None:
        # The older server's key is in the engine's time zone, and mixes two times.
        shown.pop("startTime", None)
        shown.pop("endTime", None)
    for key in ("createdAt", "startedAt", "endedAt"):
        if (then := moment(shown.pop(key, None))) is not None:
            shown[key.removesuffix("At")] = told(then, now)
    if (seconds := shown.pop("durationSeconds", None)) is not None:
        shown["duration"] = span(seconds)
    shown |= _figures(shown)
    shown["paused"] = str(shown.get("paused") or "").removeprefix("paused ")
    return shown | {key: for_a_person(said) for key in ("error", "note") if (said := shown.get(key))}


def _now(status: Mapping[str, Any]) -> str:
    """Return what a job does, and since when it has been silent."""
    said = str(status.get("activity") or "")
    silent = status.get("silentSeconds") or 0
    return f"{said}; silent for {span(silent)}" if silent and said else said


def _figures(shown: dict[str, Any]) -> dict[str, Any]:
    """Return costs, tokens, times and the model of a status in words, and take them out of it."""
    words: dict[str, Any] = {}
    if (amount := shown.pop("costUsd", None)) is not None:
        most = shown.pop("budgetUsd", None)
        words["cost"] = f"{dollars(amount) or '$0'}{'' if most is None else f' of {dollars(most)}'}"
    read, wrote = (shown.pop(key, None) for key in ("inputTokens", "outputTokens"))
    if read is not None or wrote is not None:
        words["tokens"] = f"{read or 0:,} in, {wrote or 0:,} out"
    if (seconds := shown.pop("elapsedSeconds", None)) is not None:
        words["elapsed"] = span(seconds)
    if said := shown.pop("modelNote", None):
        words["model"] = f"{shown.pop('model', '')} ({said})"
    if isinstance(below := shown.pop("descendants", None), Mapping):
        totals = dict(below)
        counts, figures = totals.pop("counts", {}), _figures(totals)
        words["descendants"] = {**counts, **totals, **figures}
    return words


def _status_in_words(status: Mapping[str, Any], now: float) -> dict[str, str]:
    if status.get("waitingFor") is None:
        return {}
    live = status.get("liveChildren", 0)
    said = waiting(status, Surroundings(now=now, live_children=live, request=status.get("requestId", "")))
    # A job that waits for other jobs is not queued.
    return {"status": said if is_for_jobs(status) else f"{status['status']}, {said}"}


def _words(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", strip_terminal_codes(key)).lower()


def _phrase(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(key))} {_phrase(inner)}" for key, inner in value.items() if inner is not None)
    return one_line(str(value), _PHRASE_WIDTH)
