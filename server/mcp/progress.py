"""Progress messages for a waiting caller: the state of the jobs, and why they wait."""

from collections.abc import Sequence

from jobs.limits.throttle import Pause
from jobs.model import Job
from jobs.waiting import Progress
from server.mcp.replies import paused


def progress(where: Progress, now: float) -> str:
    """Describe the progress of a wait: one job's state and its time, or how many of several are in each state.

    Args:
        where: The wait.
        now: Seconds since the epoch.
    """
    if where.only is None:
        return going_on(where.over, where.running, where.total, where.pauses, for_jobs=where.for_jobs)
    job = where.only
    seconds = max(0.0, now - (job.started_at or job.created_at))
    return "; ".join((f"{state(job)}, {seconds:.0f} s", *paused(where.pauses).values()))


def state(job: Job) -> str:
    """Return a job's status, or what it waits for where that is stored."""
    return job.status if job.waiting_for is None else f"waiting for {job.waiting_for.words}"


def going_on(over: int, running: int, total: int, pauses: Sequence[Pause], *, for_jobs: int = 0) -> str:
    """Say how many jobs are over, run, wait for other jobs and wait for their turn, and why they wait."""
    queued = total - over - running - for_jobs
    counts = [f"{over} of {total} over", f"{running} running"]
    counts += [f"{for_jobs} waiting for other jobs"] if for_jobs else []
    counts += [f"{queued} queued"] if queued else []
    return "; ".join((", ".join(counts), *paused(pauses).values()))
