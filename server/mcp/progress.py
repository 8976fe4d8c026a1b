"""Progress messages for a waiting caller: the state of the jobs, and why they wait."""

from collections.abc import Sequence

from jobs.limits.throttle import Pause, clock_time
from jobs.model import Job
from jobs.paused import PausedPath
from jobs.waiting import Progress
from server.mcp.job_now import JobNow, NowOf
from server.mcp.pending_lines import most_telling
from server.mcp.replies import paused


def progress(where: Progress, now_of: NowOf) -> str:
    """Describe the progress of a wait: what one job does, or how many of several are in each state and what tells most.

    Args:
        where: The wait.
        now_of: Returns a job as it is now.
    """
    if where.only is not None:
        return "; ".join((doing(now_of(where.only)), *paused(where.pauses).values()))
    counts = going_on(where.over, where.running, where.total, where.pauses, for_jobs=where.for_jobs)
    return "; ".join((counts, *telling(where.live, now_of)))


def telling(live: Sequence[Job], now_of: NowOf) -> tuple[str, ...]:
    """Return what the job does that tells most of some live ones, or nothing where none runs."""
    now = most_telling(live, now_of)
    return () if now is None else (f"{now.job.id}: {doing(now)}",)


def doing(now: JobNow) -> str:
    """Return what a job does and for how long it has been silent, or what it waits for."""
    if now.wait is not None:
        because = f" ({now.wait.because})" if now.wait.because else ""
        until = "" if now.wait.until is None else f" until {clock_time(now.wait.until)}"
        return f"waiting for {now.wait.what.words}{because}{until}"
    if now.activity is not None:
        return f"{now.activity.doing}, {now.silent_seconds} s"
    return f"{now.job.status}, {max(0.0, now.at - (now.job.started_at or now.job.created_at)):.0f} s"


def going_on(over: int, running: int, total: int, pauses: Sequence[Pause | PausedPath], *, for_jobs: int = 0) -> str:
    """Say how many jobs are over, run, wait for other jobs and wait for their turn, and why they wait."""
    queued = total - over - running - for_jobs
    counts = [f"{over} of {total} over", f"{running} running"]
    counts += [f"{for_jobs} waiting for other jobs"] if for_jobs else []
    counts += [f"{queued} queued"] if queued else []
    return "; ".join((", ".join(counts), *paused(pauses).values()))
