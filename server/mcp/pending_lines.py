"""Jobs that are worth a look while others wait for them: what needs an answer first, then what is silent longest."""

from collections.abc import Sequence
from typing import Any, Final

from jobs.model import Job, JobStatus
from jobs.waiting_for import WaitingFor
from server.mcp.fitting import fitted
from server.mcp.job_now import JobNow, NowOf

MOST_LINES: Final = 5
"""Most jobs that a reply of `claude_wait` tells of before they are over."""

LINE_BYTES: Final = 118
"""Most bytes of one of them: all take 600 at most."""

_TEXTS: Final = {"activity": 50, "waitingBecause": 40}
_DROPPABLE: Final = ("waitingUntil", "silentSeconds")


def pending_lines(jobs: Sequence[Job], now_of: NowOf) -> list[dict[str, Any]]:
    """Return a short line for each of the jobs that tell most, what they do or wait for, `MOST_LINES` at most.

    Args:
        jobs: Jobs that are not over.
        now_of: Returns a job as it is now.
    """
    chosen = sorted(map(now_of, jobs), key=_place)[:MOST_LINES]
    return [_line(now) for now in chosen if now.activity is not None or now.wait is not None]


def most_telling(jobs: Sequence[Job], now_of: NowOf) -> JobNow | None:
    """Return the first of them that runs, or None where none does."""
    running = [now_of(job) for job in jobs if job.status is JobStatus.RUNNING]
    return min(running, key=_place, default=None)


def _place(now: JobNow) -> tuple[int, int]:
    """Return the place of a job in the order of what is told first."""
    if now.wait is None:
        return (1, -now.silent_seconds)
    if now.wait.what is WaitingFor.PERMISSION:
        return (0, -now.silent_seconds)
    return (2 if now.job.status is JobStatus.RUNNING else 3, 0)


def _line(now: JobNow) -> dict[str, Any]:
    fields = now.fields()
    if now.wait is not None and now.wait.because:
        # It is the same call, or the call of the wait itself.
        fields.pop("activity", None)
    return fitted({"jobId": now.job.id, **fields}, LINE_BYTES, texts=_TEXTS, droppable=_DROPPABLE)
