"""Metrics of a set of jobs: mean duration and parallelism."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.model import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetrics:
    """Mean duration and parallelism of some jobs.

    Args:
        average_seconds: Mean time from a job's last claim to its end, over those that are over; 0 where there is none.
        parallelism: How many worked at once on average while at least one did; 0 where none ever did.
    """

    average_seconds: float
    parallelism: float


def job_metrics(jobs: Sequence[Job], *, now: float) -> JobMetrics:
    """Compute the metrics of jobs.

    Args:
        jobs: In any order; those that never started do not count.
        now: Seconds since the epoch, the end of those that still run.
    """
    spans = sorted(
        (job.started_at, max(job.started_at, now if job.ended_at is None else job.ended_at))
        for job in jobs
        if job.started_at is not None
    )
    over = [job.ended_at - job.started_at for job in jobs if job.ended_at is not None and job.started_at is not None]
    worked = sum(end - begin for begin, end in spans)
    busy = _covered(spans)
    return JobMetrics(
        average_seconds=max(0.0, sum(over) / len(over)) if over else 0.0,
        parallelism=worked / busy if busy else 0.0,
    )


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans, sorted by their beginning, lasted."""
    covered, reached = 0.0, float("-inf")
    for begin, end in spans:
        covered += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return covered
