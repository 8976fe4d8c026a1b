"""What an attempt is told: the task with what its siblings said, or how to go on where it was."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.model import Attempt, Job, JobStatus
from jobs.ports import Store
from jobs.prompts import decomposition
from jobs.prompts.briefing import first_words, next_words
from jobs.prompts.dependencies import fill
from jobs.tree import subtasks_batch_id
from orchestration.limits import TreeLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The first user message of an attempt.

    Args:
        briefing: What stands before the text, or nothing.
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
            return Prompt(briefing=self._briefing(job), text=await self._task(job))
        if divides(job, resumed):
            return Prompt(briefing="", text=await self._subtasks_are_over(job, resumed))
        return Prompt(briefing="", text=next_words(resumed.reason))

    def _briefing(self, job: Job) -> str:
        words = first_words(job, self._limits)
        return f"{words}\n{decomposition.INSTRUCTIONS}" if job.spec.divisible else words

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
        return fill(job.spec.task, results)

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


def divides(job: Job, attempt: Attempt) -> bool:
    """Tell whether an attempt of a divisible job ended by asking for subtasks."""
    return (
        job.spec.divisible
        and attempt.status is JobStatus.QUEUED
        and isinstance(decomposition.read(attempt.frame, attempt.result), decomposition.Division)
    )
