"""Which of a job's attempts the next one goes on from: its session, and the words that fit how it ended."""

from jobs.model import Attempt, Reason, Usage
from jobs.ports import Store

UNHEARD = frozenset({Reason.STARTUP, Reason.SESSION_IN_USE})
"""Ends of attempts that were told nothing: their session is as the attempts before them left it."""


async def continued(store: Store, job_id: str, number: int) -> Attempt | None:
    """Return the latest of a job's first attempts that the model answered, or None where a new session is to begin.

    An attempt that never ran, or was gone before the model said anything, did no work, and what it was told may not
    stand in its session: the CLI writes that down after its first frame (measured on 2.1.332). It is told again, and
    what an attempt before it did is not lost.

    Args:
        store: Where attempts are.
        job_id: The job.
        number: How many attempts there are to look at.
    """
    for earlier in range(number, 0, -1):
        attempt = await store.attempt(job_id, earlier)
        if attempt is None or attempt.reason is Reason.NO_SESSION:
            return None
        if attempt.reason not in UNHEARD and _was_answered(attempt):
            return attempt
    return None


def _was_answered(attempt: Attempt) -> bool:
    return attempt.frame is not None or attempt.usage != Usage()
