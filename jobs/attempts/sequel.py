"""What follows the end of an attempt: the end of its job, or another attempt."""

import logging
from dataclasses import replace

from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.ports import Store
from jobs.prompts import decomposition

logger = logging.getLogger(__name__)

LIMITS = frozenset({Reason.USAGE_LIMIT, Reason.RATE_LIMIT, Reason.OVERLOADED})
"""The API's limits: the job did nothing wrong, so it waits and goes on."""

TRANSIENT = frozenset({Reason.SERVER_ERROR, Reason.CONNECTION})
"""Errors that pass: the CLI has tried again a few times by itself, and its session goes on where it stopped."""

MOST_TRANSIENT = 5
"""How often in a row a job may meet them before it fails; the throttle's pauses between double."""

MOST_LIMITED = 20
"""How often in a row a job may meet the API's limits before it fails: the pauses between are the throttle's."""

MOST_LOST = 1
"""How often in a row a job whose attempt was lost is resumed."""

MOST_DIVISIONS = 3
"""How often a job may ask for subtasks before what it says is its answer."""

FRESH = frozenset({Reason.NO_SESSION, Reason.STARTUP, Reason.SESSION_IN_USE})
"""Ends after which there is no session to continue."""


class Sequel:
    """Decides from an attempt and those before it.

    Args:
        store: Where attempts are.
        max_depth: Deepest level of a tree: a job there asks for no subtasks.
    """

    def __init__(self, store: Store, max_depth: int) -> None:
        self._store = store
        self._max_depth = max_depth

    async def of(self, job: Job, attempt: Attempt, outcome: Outcome, *, ever_ran: bool = True) -> Outcome:
        """Return the outcome as it is to be written: with the status `QUEUED` where another attempt follows.

        Args:
            job: The job.
            attempt: The attempt that ended.
            outcome: How it ended.
            ever_ran: A process of it was ever started.
        """
        if job.spec.divisible and outcome.status is JobStatus.COMPLETED:
            return await self._divided(job, attempt, outcome)
        if await self._goes_on(job, attempt, outcome, ever_ran=ever_ran):
            logger.info("job %s: attempt %d ended with %s; another follows", job.id, attempt.number, outcome.reason)
            return replace(outcome, status=JobStatus.QUEUED)
        return outcome

    async def _goes_on(self, job: Job, attempt: Attempt, outcome: Outcome, *, ever_ran: bool) -> bool:
        if outcome.status is not JobStatus.FAILED:
            return False
        match outcome.reason:
            case Reason.LOST:
                return not ever_ran or await self._row_of(attempt, frozenset({Reason.LOST})) < MOST_LOST
            case Reason.NO_SESSION:
                return await self._continued_its_own(attempt)
            case reason if reason in LIMITS:
                return await self._row_of(attempt, LIMITS) < MOST_LIMITED
            case reason if reason in TRANSIENT:
                return await self._row_of(attempt, TRANSIENT) < MOST_TRANSIENT
            case _:
                return False

    async def _divided(self, job: Job, attempt: Attempt, outcome: Outcome) -> Outcome:
        match decomposition.read(outcome.frame, outcome.result):
            case decomposition.Answer(text):
                return replace(outcome, result=text)
            case decomposition.Division(tasks) if (
                job.depth < self._max_depth and await self._divisions(attempt) < MOST_DIVISIONS
            ):
                logger.info("job %s asks for %d subtasks", job.id, len(tasks))
                return replace(outcome, status=JobStatus.QUEUED)
            case _:
                return outcome

    async def _divisions(self, attempt: Attempt) -> int:
        return await self._row_of(attempt, frozenset({Reason.COMPLETED, Reason.COMPLETED_WITH_DENIALS}))

    async def _continued_its_own(self, attempt: Attempt) -> bool:
        previous = await self._store.attempt(attempt.job_id, attempt.number - 1)
        return previous is not None and previous.session_id == attempt.session_id

    async def _row_of(self, attempt: Attempt, reasons: frozenset[Reason]) -> int:
        """Count the attempts right before this one that ended for one of these reasons and were followed by another."""
        count = 0
        for number in range(attempt.number - 1, 0, -1):
            previous = await self._store.attempt(attempt.job_id, number)
            if previous is None or previous.reason not in reasons:
                break
            count += 1
        return count
