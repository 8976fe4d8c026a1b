"""Answers the control request `limits`: limits of a live tree, a part of it or a batch."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from jobs.errors import JobsError
from jobs.limit_changes import AskedLimits, LimitChanges, LimitsInForce, NotConfirmedError
from jobs.limits.throttle import clock_time
from jobs.model import JobStatus
from server.engine.request_errors import problems_of

_ASKED = TypeAdapter(AskedLimits)

_OPTIONS = {
    "budget_usd": "--budget-usd",
    "timeout_seconds": "--timeout",
    "max_jobs": "--max-jobs",
    "max_concurrent": "--max-concurrent",
}


async def answer_limits(limits: LimitChanges, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer with the limits in force, changed where the request has `set`; with `confirm` where that ends jobs.

    Args:
        limits: Reads and changes limits.
        request: `id`; `set`, an object with fields of `AskedLimits`; `confirmed`.
    """
    identity = str(request.get("id"))
    try:
        if not (given := request.get("set")):
            return {"ok": True, **_reply(await limits.in_force(identity))}
        asked = _ASKED.validate_python(given)
        return {"ok": True, **_reply(await limits.change(identity, asked, confirmed=request.get("confirmed") is True))}
    except NotConfirmedError as error:
        return {"ok": True, "confirm": str(error)}
    except ValidationError as error:
        return {"ok": False, "error": problems_of(error, "set", _OPTIONS)}
    except JobsError as error:
        return {"ok": False, "error": str(error)}


def _reply(found: LimitsInForce) -> dict[str, Any]:
    own = found.limits
    return {
        "id": found.id,
        "budgetUsd": own.budget_usd,
        "spentUsd": round(found.spent_usd, 6),
        "leftUsd": None if found.left_usd is None else round(found.left_usd, 6),
        "leftOf": found.above,
        "deadline": None if own.deadline is None else clock_time(own.deadline),
        "maxJobs": own.max_jobs,
        "jobsBelow": found.below,
        "maxConcurrent": own.max_concurrent,
        "running": found.counts.get(JobStatus.RUNNING, 0),
        "queued": found.counts.get(JobStatus.QUEUED, 0),
        "failed": sum(found.counts.get(one, 0) for one in (JobStatus.FAILED, JobStatus.TIMEOUT)),
    }
