"""What a job is told about itself before its task, and what it is told when it is started again.

It stands in the first user message and never in the system prompt: siblings then send the model identical tools and
system blocks, and one prompt cache serves the whole batch.
"""

from jobs.model import Job, Reason
from orchestration.limits import TreeLimits

_REFUSED = frozenset(
    (
        Reason.AUTH,
        Reason.BILLING,
        Reason.MODEL_NOT_FOUND,
        Reason.INVALID_REQUEST,
        Reason.REQUEST_TOO_LARGE,
        Reason.PROMPT_TOO_LONG,
    )
)
"""Ends at which no tool was at work: the API had answered the request with an error."""


def first_words(job: Job, limits: TreeLimits) -> str:
    """Return what stands before a job's task: who it is, what it may still spawn and what it may still spend.

    Args:
        job: The job; its spec's budget is what is left for it and everything below it when it is launched.
        limits: Of its tree.
    """
    may = f"{_may_spawn(job, limits)}{_may_spend(job, limits)}"
    return f"[claude-jobs] You are job {job.id}, at depth {job.depth} of a tree of jobs. {may}"


def next_words(reason: Reason | None) -> str:
    """Return what a resumed session is told in place of its task.

    Args:
        reason: How the last attempt ended.
    """
    if reason in {Reason.USAGE_LIMIT, Reason.RATE_LIMIT, Reason.OVERLOADED}:
        return "[claude-jobs] You were paused by a limit of the API. Go on with your task where you stopped."
    if reason in _REFUSED:
        return "[claude-jobs] The API refused your last request, so nothing was cut off. Go on with your task."
    return (
        "[claude-jobs] You were cut off. The outcome of what you were doing at that moment is unknown: it may have "
        "taken effect or not. Check before you repeat it, then go on with your task."
    )


def _may_spawn(job: Job, limits: TreeLimits) -> str:
    if job.depth >= limits.max_depth:
        return "This is the deepest level: do all of the work yourself."
    levels = limits.max_depth - job.depth
    below = "" if job.spec.max_jobs is None else f", {job.spec.max_jobs} jobs in all below you"
    children = f"at most {limits.max_children} children{below}"
    return (
        f"You may spawn jobs ({levels} more level{'s' if levels > 1 else ''}, {children}) "
        "with the claude-jobs tools, but do small tasks yourself."
    )


def _may_spend(job: Job, limits: TreeLimits) -> str:
    left = job.spec.max_budget_usd
    if left is None:
        return ""
    who = "You" if job.depth >= limits.max_depth else "You and the jobs below you together"
    return f" {who} may spend {left:.4f} USD."
