"""Says in a few words what a job does now, or what it waits for, until when and why."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.util.text import strip_terminal_codes
from jobs.waiting_for import FOR_JOBS, WaitingFor
from server.cli.lines import one_line
from server.cli.times import clock, moment, span

SILENCE_SECONDS: Final = 3
"""Silence of a running job that is shown, in seconds; a model that writes is silent for shorter times."""

_LONG_SILENCE: Final = 60
"""From here on the word says that it is silence: a job may hang."""

_SOON: Final = 120
"""An end of a wait that is nearer, in seconds, is shown with its seconds."""

COMMAND: Final = "claude-jobs"
"""How a person calls this program."""

_LEAST_ID: Final = 6
_ID: Final = re.compile(r"\b[bj][0-9a-z]{16}\b")
_WIDEST: Final = 200
_KNOWN: Final = frozenset(WaitingFor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """Shortens ids of jobs: where a terminal is narrow, the beginning is enough to name one.

    Args:
        length: Characters of each.
    """

    length: int = _LEAST_ID

    def __call__(self, text: str) -> str:
        """Return a text with each id in it shortened."""
        return _ID.sub(lambda found: found[0][: self.length], text)


def ids_apart(ids: Iterable[str]) -> Ids:
    """Return what shortens these ids as much as they stay different from each other."""
    known = set(ids)
    length = _LEAST_ID
    while len({one[:length] for one in known}) < len(known):
        length += 1
    return Ids(length=length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a job's own line does not hold.

    Args:
        now: Seconds since the epoch.
        live_children: How many of its children are not over.
        children: How many it has.
        request: Id of its open permission request, or an empty text where that is not known.
        brief: Shortens ids.
    """

    now: float
    live_children: int = 0
    children: int = 0
    request: str = ""
    brief: Callable[[str], str] = field(default=str)


def doing(job: Mapping[str, Any], where: Surroundings) -> tuple[str, str]:
    """Return what a live job does or waits for, and its style; nothing for one that is over or says nothing.

    Args:
        job: A line of `claude_list_jobs` or a reply of `claude_status`.
        where: What it does not hold.
    """
    if job.get("waitingFor") is not None:
        return waiting(job, where), "dim" if job["waitingFor"] == WaitingFor.SLOT else "yellow"
    return activity(job), "dim"


def activity(job: Mapping[str, Any]) -> str:
    """Return what a job does and for how long it has been silent; an empty text where that is not known."""
    said = one_line(str(job.get("activity") or ""), _WIDEST)
    silent = job.get("silentSeconds") or 0
    if not said or silent < SILENCE_SECONDS:
        return said
    return f"{said} · {'silent ' if silent >= _LONG_SILENCE else ''}{span(silent)}"


def waiting(job: Mapping[str, Any], where: Surroundings) -> str:
    """Return what a job waits for, until when and why."""
    what = str(job["waitingFor"])
    because = one_line(where.brief(str(job.get("waitingBecause") or "")), _WIDEST)
    match what:
        case WaitingFor.PERMISSION if because:
            return f"asks: {because}{f' · claude-jobs approve {where.request}' if where.request else ''}"
        case WaitingFor.CHILDREN if where.live_children:
            return f"waiting for {_children(where.live_children, where.children)}"
        case WaitingFor.PAUSE if because:
            return because
        case WaitingFor.SIBLINGS if because:
            return f"waiting for {because}"
    words = WaitingFor(what).words if what in _KNOWN else strip_terminal_codes(what)
    until = _until(moment(job.get("waitingUntil")), where.now)
    if because or until:
        # The details say it better.
        words = words.removesuffix(" of its account").removesuffix(" after trouble")
    return f"waiting for {words}{until}{f': {because}' if because else ''}"


def asks(job_id: str, request_id: str, call: str, command: str = COMMAND) -> str:
    """Return two lines that say that a job asks for a permission, and how to answer.

    Args:
        job_id: The job.
        request_id: Its request.
        call: The tool and what it is called with.
        command: How the reader calls this program.
    """
    told = f"{job_id} asks for a permission: {one_line(call, _WIDEST)}"
    return f"{told}\n  permit: {command} approve {request_id} · refuse: {command} approve --deny {request_id}"


def state_of(job: Mapping[str, Any]) -> str:
    """Return what a job is in for a person: its status, or `waiting` where it waits for anything but a slot."""
    return str(job["status"]) if job.get("waitingFor") in (None, WaitingFor.SLOT) else "waiting"


def is_for_jobs(job: Mapping[str, Any]) -> bool:
    """Tell whether a job is queued until other jobs end: then it is not called queued."""
    return job["status"] == "queued" and job.get("waitingFor") in FOR_JOBS


def _children(live: int, total: int) -> str:
    if total > 1:
        return f"{live} of {total} children"
    return f"its {live} children" if live > 1 else "its child"


def _until(then: float | None, now: float) -> str:
    if then is None:
        return ""
    told = clock(then, now)
    return f" until {told if then - now < _SOON else told[:-3]}"
