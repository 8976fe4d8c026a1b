"""What the page shows of one job besides its transcript."""

from collections.abc import Awaitable, Callable
from typing import Any

from jobs.errors import NotFoundError
from jobs.ids import is_batch_id
from jobs.model import LIVE, Job, Rollup, Usage
from server.feed.job_details import JobDetails, resume_line
from server.mcp.connection_state import Services

LimitsOf = Callable[[str], Awaitable[dict[str, Any]]]
"""Answers the control request `limits` about a job, a batch or a tree."""


class JobViews:
    """Reads them.

    Args:
        services: What the tools call.
        details: Reads everything about one job.
        limits_of: Reads limits of what lives.
    """

    def __init__(self, services: Services, details: JobDetails, limits_of: LimitsOf) -> None:
        self._services = services
        self._details = details
        self._limits_of = limits_of

    async def of(self, identity: str) -> dict[str, Any]:
        """Return everything about a job, or what there is to say of a batch.

        Raises:
            NotFoundError: There is no such job or batch.
            StoreError: It cannot be read now.
        """
        details = await self._details.of(identity)
        store = self._services.store
        if is_batch_id(identity):
            sums = await store.rollup_batch(identity)
            return {**details, **_sums(sums), **(await self._limits(identity) if sums.live else {})}
        job = await store.job(identity)
        if job is None:
            return details
        activity = self._services.activity_of(job)
        own = job.usage if activity is None else job.usage + activity.usage
        if job.status in LIVE:
            more = await self._limits(identity)
        else:
            line = resume_line(details)
            more = {} if line is None else {"resume": line}
        return {**details, "own": _usage(own), **_sums(await store.rollup_under(job.path)), **more}

    async def job(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises:
            NotFoundError: There is no such job.
            StoreError: It cannot be read now.
        """
        job = await self._services.store.job(job_id)
        if job is None:
            raise NotFoundError("Job", job_id)
        return job

    async def _limits(self, identity: str) -> dict[str, Any]:
        answer = await self._limits_of(identity)
        # It has just ended: there are no limits of it any more.
        return {"limits": answer} if answer["ok"] else {}


def _sums(sums: Rollup) -> dict[str, Any]:
    counts = {str(status): count for status, count in sorted(sums.counts.items())}
    return {"subtree": {**_usage(sums.usage_so_far), "jobs": sums.total, "counts": counts}}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "costUsd": round(usage.cost_usd, 6),
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
    }
