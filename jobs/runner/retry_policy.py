"""Retry policy: decides whether the end of an attempt ends its job, or another attempt follows."""

import logging
from collections.abc import Callable
from dataclasses import replace

from jobs.claude.binary import was_taken_for_newer
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason, Usage
from jobs.ports import Store
from jobs.prompts import decomposition
from jobs.runner.launch_plan import NOT_EXECUTED, resumable_attempt

logger = logging.getLogger(__name__)

LIMITS = frozenset({Reason.USAGE_LIMIT, Reason.RATE_LIMIT, Reason.OVERLOADED})
"""The API's limits: no fault of the job, so it waits and goes on."""

TRANSIENT = frozenset({Reason.SERVER_ERROR, Reason.CONNECTION})
"""Transient errors: the CLI has tried again a few times by itself, and its session goes on where it stopped."""

_OF_A_LATER_VERSION = "unknown option"
"""What the CLI says of an option that came with a later version."""

# Each of these holds for all attempts since the job was submitted, retried on request, or asked for subtasks, no matter
# what came in between: two alternating reasons would otherwise start a job for ever.
MAX_TRANSIENT = 5
"""How often a job may meet them before it fails; the throttle's pauses between double."""

MAX_LIMITED = 20
"""How often a job may meet the API's limits before it fails: the pauses between are the throttle's."""

MAX_REFUSED = 10
"""How often the system may refuse a job its process for now: the throttle's pauses between add up to minutes."""

MAX_NOT_EXECUTED = 5
"""How often a shell may say of a job's `claude` that it is not there or cannot be executed: an update takes seconds."""

MAX_LOST = 1
"""How often a job whose attempt was lost is resumed."""

MAX_LAUNCH_FAILURES = 20
"""How often a job may be claimed without a process: the engine ends, or the disk is full, between the two."""

MAX_FORGOTTEN = 1
"""How often a job may find its session gone and begin a new one."""

MAX_SUBTASK_REQUESTS = 3
"""How often a job may ask for subtasks before what it says is its answer."""


class RetryPolicy:
    """Decides from an attempt and those before it whether another one follows.

    Args:
        store: Where attempts are.
        max_depth: Deepest level of a tree: a job there asks for no subtasks.
        remaining: Returns the US dollars that a job may still spend, or None without a budget.
    """

    def __init__(self, store: Store, max_depth: int, remaining: Callable[[Job], float | None] = lambda _: 0.0) -> None:
        self._remaining = remaining
        self._store = store
        self._max_depth = max_depth

    async def decide(
        self,
        job: Job,
        attempt: Attempt,
        outcome: Outcome,
        *,
        ran: Callable[[Attempt], bool] = lambda _: True,
        stop_reason: Reason | None = None,
    ) -> Outcome:
        """Return the outcome as it is to be written: with the status `QUEUED` where another attempt follows.

        Args:
            job: The job.
            attempt: The attempt that ended.
            outcome: How it ended.
            ran: Tells whether a process of an attempt of the job was ever started.
            stop_reason: Why we ended the attempt, or None where it ended by itself.
        """
        if outcome.reason is stop_reason is Reason.INTERRUPTED:
            # For a pause, however often: that is nothing of what is counted here. A hook can interrupt a job too.
            return replace(outcome, status=JobStatus.QUEUED)
        if job.spec.can_decompose and outcome.status is JobStatus.COMPLETED:
            return await self._divided(job, attempt, outcome)
        if await self._goes_on(attempt, outcome, ran) or await self._budget_was_raised(job, attempt, outcome):
            logger.info("job %s: attempt %d ended with %s; another follows", job.id, attempt.number, outcome.reason)
            return replace(outcome, status=JobStatus.QUEUED)
        return outcome

    async def _budget_was_raised(self, job: Job, attempt: Attempt, outcome: Outcome) -> bool:
        """Tell whether an attempt ended by the budget that it was launched with, and a person has raised it since."""
        if outcome.reason is not Reason.BUDGET_EXHAUSTED or outcome.status is not JobStatus.FAILED:
            return False
        tree = await self._store.tree(job.root_id)
        if tree is None or tree.limits_at is None or tree.limits_at < attempt.started_at:
            return False
        left = self._remaining(job)
        return left is None or left > 0

    async def of_refusal(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Return the outcome of an attempt whose process the system refused for now, as it is to be written."""
        earlier = await self._followed(attempt)
        if sum(one.reason is Reason.STARTUP for one in earlier) >= MAX_REFUSED:
            return outcome
        return replace(outcome, status=JobStatus.QUEUED)

    async def _goes_on(self, attempt: Attempt, outcome: Outcome, ran: Callable[[Attempt], bool]) -> bool:
        if outcome.status is not JobStatus.FAILED:
            return False
        earlier = await self._followed(attempt)
        match outcome.reason:
            case Reason.LOST if outcome.usage == Usage() and not ran(attempt):
                # One that never ran says nothing about the job.
                return sum(_is_unstarted(one, ran) for one in earlier) < MAX_LAUNCH_FAILURES
            case Reason.LOST:
                lost = [one for one in earlier if one.reason is Reason.LOST and not _is_unstarted(one, ran)]
                return len(lost) < MAX_LOST
            case Reason.NO_SESSION:
                again = sum(one.reason is Reason.NO_SESSION for one in earlier) < MAX_FORGOTTEN
                return again and await resumable_attempt(self._store, attempt.job_id, attempt.number - 1) is not None
            case reason if reason in LIMITS:
                return sum(one.reason in LIMITS for one in earlier) < MAX_LIMITED
            case reason if reason in TRANSIENT:
                return sum(one.reason in TRANSIENT for one in earlier) < MAX_TRANSIENT
            case Reason.STARTUP:
                return sum(one.reason is Reason.STARTUP for one in earlier) < _most_startups(attempt, outcome)
            case _:
                return False

    async def _divided(self, job: Job, attempt: Attempt, outcome: Outcome) -> Outcome:
        match decomposition.read(outcome.frame, outcome.result):
            case decomposition.Answer(text):
                return replace(outcome, result=text)
            case decomposition.SubtaskRequest(tasks) if (
                job.depth < self._max_depth and await self._divisions(attempt) < MAX_SUBTASK_REQUESTS
            ):
                logger.info("job %s asks for %d subtasks", job.id, len(tasks))
                return replace(outcome, status=JobStatus.QUEUED)
            case _:
                return outcome

    async def _divisions(self, attempt: Attempt) -> int:
        earlier = [await self._store.attempt(attempt.job_id, number) for number in range(1, attempt.number)]
        return sum(one is not None and one.asked_for_subtasks for one in earlier)

    async def _followed(self, attempt: Attempt) -> list[Attempt]:
        """Return the attempts before this one that another followed by itself, back to the last request or subtasks."""
        found: list[Attempt] = []
        for number in range(attempt.number - 1, 0, -1):
            previous = await self._store.attempt(attempt.job_id, number)
            if previous is None or previous.status is not JobStatus.QUEUED or previous.asked_for_subtasks:
                break
            found.append(previous)
        return found


def _most_startups(attempt: Attempt, outcome: Outcome) -> int:
    if outcome.exit_code in NOT_EXECUTED:
        return MAX_NOT_EXECUTED
    # A wrapper that was not asked for its version may hide an older one.
    refuses = attempt.cli_version is None and _OF_A_LATER_VERSION in outcome.detail
    return 1 if refuses or was_taken_for_newer(outcome.cli_version, attempt.cli_version) else 0


def _is_unstarted(attempt: Attempt, ran: Callable[[Attempt], bool]) -> bool:
    return attempt.reason is Reason.LOST and attempt.usage == Usage() and not ran(attempt)
