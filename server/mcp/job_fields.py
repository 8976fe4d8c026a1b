"""The fields of a job in replies: all of them, and those that fit into the bytes that a model is given."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Final

from jobs.model import Attempt, Job, JobStatus, Rollup
from server.mcp.fitting import fitted, size_of, without_empty
from server.mcp.job_now import JobNow, utc

STATUS_BYTES: Final = 700
"""Most bytes of `claude_status` for a model. The older server took 649 for a short task."""

ROW_BYTES: Final = 275
"""Most bytes of a job in a list for a model: thirty rows take 8.5 KB. The older server took 20 KB for thirty jobs."""

LISTED_CHARS: Final = 120
"""Characters of a task and of an answer in a list for a person."""

_ROW_TASK_CHARS: Final = 80

_STATUS_TEXTS: Final = {
    "error": 220,
    "task": 90,
    "note": 220,
    "activity": 100,
    "waitingBecause": 100,
    "paused": 120,
    "model": 60,
    "modelNote": 60,
}
"""Texts of a status that may be cut, and the bytes that each keeps for as long as another field can go instead."""

_STATUS_DROPPABLE: Final = (
    *("settingSources", "cli", "createdAt", "liveChildren", "durationSeconds", "endedAt", "startedAt", "sessionId"),
    *("cliVersion", "rootId", "attempt", "batchId", "paused", "note", "turns", "outputTokens", "inputTokens"),
    *("modelNote", "model", "budgetUsd"),
)
_ROW_TEXTS: Final = {"error": 70, "activity": 70, "excerpt": 50, "task": 60, "waitingBecause": 40}
_ROW_DROPPABLE: Final = (
    *("createdAt", "durationSeconds", "endedAt", "startedAt", "batchId", "waitingBecause", "excerpt"),
    *("waitingUntil", "costUsd", "silentSeconds", "attempt"),
)
_ROW_EMPTY: Final = ("endTime", "error", "parentJobId", "reason")
"""Fields of a row that are left out where they are null. The older server had the first three also then."""


def status_fields(now: JobNow, *, timespec: str = "seconds") -> dict[str, Any]:
    """Return the fields of `claude_status`, the older server's first; no text is cut.

    Args:
        now: The job as it is now.
        timespec: How exact times are, as `datetime.isoformat` takes it.
    """
    job = now.job
    status: dict[str, Any] = {
        "jobId": job.id,
        "status": job.status,
        "task": _task(job),
        "startTime": _older_time(job.started_at or job.created_at, timespec),
        "endTime": _older_time(job.ended_at, timespec),
        "error": None if job.status is JobStatus.COMPLETED else job.error,
        "recursionDepth": job.depth,
        "parentJobId": job.parent_id,
        "batchId": job.batch_id,
        "rootId": job.root_id,
        "reason": job.reason,
        "attempt": job.attempt,
        "sessionId": job.session_id,
        "costUsd": round(now.usage.cost_usd, 6),
    }
    return status | note(job) | now.fields() | _times(job, timespec)


def short_status(fields: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Return a status in at most `STATUS_BYTES`: `taskChars` is the length of a task that is cut."""
    whole = {**fields, "task": job.spec.task}
    shown = _fitted_status(whole)
    if shown["task"] == job.spec.task and job.spec.task_chars is None:
        return shown
    return _fitted_status({**whole, "taskChars": job.spec.task_chars or len(job.spec.task)})


def _fitted_status(fields: Mapping[str, Any]) -> dict[str, Any]:
    empty = [name for name in ("reason", "sessionId") if fields.get(name) is None]
    if "cli" in fields and size_of(fields) > STATUS_BYTES:
        # A long path would cost two other fields.
        fields = {**fields, "cli": PurePath(fields["cli"]).name}
    return fitted(fields, STATUS_BYTES, texts=_STATUS_TEXTS, droppable=[*empty, *_STATUS_DROPPABLE])


def row_fields(now: JobNow, excerpt_chars: int) -> dict[str, Any]:
    """Return a job's status without the details of `claude_status`, and with task and answer cut to a line."""
    job = now.job
    status = status_fields(now) | {"task": line(job.spec.task, LISTED_CHARS)}
    row = {name: value for name, value in status.items() if name not in {"rootId", "sessionId", "note"}}
    if job.reason is None:
        del row["reason"]
    return row | ({"excerpt": line(job.excerpt, min(excerpt_chars, LISTED_CHARS))} if job.excerpt else {})


def short_row(now: JobNow, excerpt_chars: int) -> dict[str, Any]:
    """Return a row in at most `ROW_BYTES`."""
    job, fields = now.job, row_fields(now, excerpt_chars)
    fields["task"] = line(" ".join(fields["task"].split()), _ROW_TASK_CHARS)
    fields = without_empty(fields, _ROW_EMPTY)
    if job.attempt <= 1:
        # Only a further attempt says something.
        del fields["attempt"]
    return fitted(fields, ROW_BYTES, texts=_ROW_TEXTS, droppable=_ROW_DROPPABLE)


def how_it_ran(attempt: Attempt) -> dict[str, str]:
    """Return the settings sources, the binary, its version and the model of an attempt, as far as known."""
    known = {
        "settingSources": attempt.setting_sources,
        "cli": attempt.cli,
        "cliVersion": attempt.cli_version,
        "model": attempt.model,
    }
    return {name: value for name, value in known.items() if value}


def totals(rollup: Rollup, seconds: float | None = None) -> dict[str, Any]:
    """Return the sums of several jobs, running attempts included.

    Args:
        rollup: The sums.
        seconds: Since the first of them began, until now or their end; None where that is not known.
    """
    used = rollup.usage_so_far
    return {
        "counts": dict(sorted(rollup.counts.items())),
        "total": rollup.total,
        "costUsd": round(used.cost_usd, 6),
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
        "deepest": rollup.deepest,
        **({} if seconds is None else {"elapsedSeconds": max(0, round(seconds))}),
    }


def note(job: Job) -> dict[str, str]:
    """Return the remark on a completed job's answer as a field of a reply; nothing for other jobs."""
    return {"note": job.error} if job.status is JobStatus.COMPLETED and job.error else {}


def line(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, with a mark where it is cut."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


def _task(job: Job) -> str:
    spec = job.spec
    return spec.task if spec.task_chars is None else f"{spec.task}… [{spec.task_chars} characters in all]"


def _times(job: Job, timespec: str) -> dict[str, Any]:
    """Return when a job was admitted, started and ended, and the time since its last start, as far as known; in UTC."""
    known = {"createdAt": job.created_at, "startedAt": job.started_at, "endedAt": job.ended_at}
    times: dict[str, Any] = {name: utc(seconds, timespec) for name, seconds in known.items() if seconds is not None}
    if job.started_at is not None and job.ended_at is not None:
        times["durationSeconds"] = round(max(0.0, job.ended_at - job.started_at), 3)
    return times


def _older_time(seconds: float | None, timespec: str) -> str | None:
    """Return a time in the older server's form: ISO 8601, local and without a zone."""
    return None if seconds is None else datetime.fromtimestamp(seconds).isoformat(timespec=timespec)  # noqa: DTZ006
