"""Prompts of an attempt: the briefing before a task, and the message that resumes a session.

They are in the user message and never in the system prompt: siblings then send the model identical tools and
system blocks, and one prompt cache serves the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.ids import subtasks_batch_id
from jobs.model import Attempt, Job, JobStatus, Reason
from jobs.ports import Store
from jobs.prompts import decomposition
from jobs.prompts.dependencies import substitute_results
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


def initial_briefing(job: Job, limits: TreeLimits) -> str:
    """Return the briefing before a job's task: who it is, what it may still spawn and what it may still spend.

    Args:
        job: The job; its spec's budget is what is left for it and everything below it when it is launched.
        limits: Of its tree.
    """
    may = f"{_may_spawn(job, limits)}{_may_spend(job, limits)}"
    return f"[claude-jobs] You are job {job.id}, at depth {job.depth} of a tree of jobs. {may}"


def resume_message(reason: Reason | None, *, was_paused: bool = False) -> str:
    """Return what a resumed session is told in place of its task.

    Args:
        reason: How the last attempt ended.
        was_paused: It was ended for a pause.
    """
    if reason in {Reason.USAGE_LIMIT, Reason.RATE_LIMIT, Reason.OVERLOADED}:
        return "[claude-jobs] You were paused by a limit of the API. Go on with your task where you stopped."
    if reason in _REFUSED:
        return "[claude-jobs] The API refused your last request, so nothing was cut off. Go on with your task."
    what = "paused, and so cut off" if was_paused else "cut off"
    return (
        f"[claude-jobs] You were {what}. The outcome of what you were doing at that moment is unknown: it may have "
        "taken effect or not. Check before you repeat it, then go on with your task."
    )


def _may_spawn(job: Job, limits: TreeLimits) -> str:
    if job.depth >= limits.max_depth:
        return "This is the deepest level: do all of the work yourself."
    if job.spec.max_jobs == 0:
        return "You may not spawn jobs: do all of the work yourself."
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
    alone = job.depth >= limits.max_depth or job.spec.max_jobs == 0
    who = "You" if alone else "You and the jobs below you together"
    return f" {who} may spend {left:.4f} USD."


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The first user message of an attempt.

    Args:
        briefing: Text before the task, or nothing.
        text: The task, or what the resumed session is told.
    """

    briefing: str
    text: str


class Prompts:
    """Composes prompts from what the store knows.

    Args:
        store: Where siblings and subtasks are.
        limits: What a job may still spawn.
    """

    def __init__(self, store: Store, limits: TreeLimits) -> None:
        self._store = store
        self._limits = limits

    async def compose(self, job: Job, resumed: Attempt | None) -> Prompt:
        """Return what the next attempt of a job is told.

        Args:
            job: The job.
            resumed: The attempt whose session goes on, or None for a new session.
        """
        if resumed is None:
            words = initial_briefing(job, self._limits)
            briefing = f"{words}\n{decomposition.INSTRUCTIONS}" if job.spec.can_decompose else words
            return Prompt(briefing=briefing, text=await self._task(job))
        if resumed.asked_for_subtasks:
            return Prompt(briefing="", text=await self._subtasks_are_over(job, resumed))
        return Prompt(briefing="", text=resume_message(resumed.reason, was_paused=resumed.was_paused))

    async def _task(self, job: Job) -> str:
        if not job.spec.depends_on:
            return job.spec.task
        siblings = await self._store.jobs_in_batch(job.batch_id)
        waited = set(job.spec.depends_on)
        results: dict[str, str] = {}
        for position, sibling in enumerate(siblings):
            if sibling.id in waited:
                answer = await self._answer(sibling)
                results[str(position)] = answer
                if sibling.spec.key is not None:
                    results[sibling.spec.key] = answer
        return substitute_results(job.spec.task, results)

    async def _subtasks_are_over(self, job: Job, asked: Attempt) -> str:
        children: Sequence[Job] = await self._store.jobs_in_batch(subtasks_batch_id(job.id, asked.number))
        if not children:
            return decomposition.refusal_message("a limit of the tree would be exceeded.")
        return decomposition.results_message([(child, await self._answer(child)) for child in children])

    async def _answer(self, job: Job) -> str:
        if job.status is not JobStatus.COMPLETED:
            return job.error or "It left no explanation."
        if (short := job.short_result) is not None:
            return short
        attempt = await self._store.attempt(job.id, job.attempt)
        return (attempt.result if attempt else None) or ""
