"""When jobs worked, waited and were paused: the attempts of a row of a job, and the pauses of a row of a tree."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from jobs.model import Attempt, Job, JobStatus
from jobs.paused import EndedPause, PausedPath
from jobs.ports import LAST_ATTEMPTS, Store
from jobs.waiting_for import AttemptWait
from server.feed.entries import Entry

MOST_PAUSES: Final = 200
"""Most pauses of a tree; the last ones are shown."""

WaitsOf = Callable[[str], Sequence[AttemptWait]]
"""Returns the waits of the running attempt of a job so far."""


class AttemptTimes:
    """Reads the attempts of jobs. What is over is read once, and what runs is known without reading.

    Args:
        store: Where attempts are kept.
        waits_of: Returns the waits of running attempts.
    """

    def __init__(self, store: Store, waits_of: WaitsOf) -> None:
        self._store = store
        self._waits_of = waits_of

    async def load(self, entries: Iterable[Entry]) -> None:
        """Read those attempts of jobs that ended since this was last called for them: none, or all in one query.

        Raises:
            StoreError: They cannot be read now.
        """
        lacking: dict[str, tuple[Entry, int]] = {}
        for entry in entries:
            if entry.job is not None and entry.ended_attempts < (over := _over(entry.job)):
                lacking[entry.job.id] = (entry, over)
        if not lacking:
            return
        rows: dict[str, list[dict[str, Any]]] = {job_id: [] for job_id in lacking}
        for attempt in await self._store.attempts_of([*lacking]):
            if attempt.ended_at is not None:
                rows[attempt.job_id].append(_ended_row(attempt))
        for job_id, (entry, over) in lacking.items():
            # Also where the store has fewer, as it may after a repair: otherwise it would be asked for each page.
            entry.ended_attempts = max([over, *(row["number"] for row in rows[job_id])])
            entry.attempts, entry.detailed = rows[job_id], None

    def of(self, entry: Entry) -> list[dict[str, Any]]:
        """Return the attempts of a job as a row has them, the last `LAST_ATTEMPTS` of them."""
        job = entry.job
        if job is None or job.status is not JobStatus.RUNNING:
            return entry.attempts
        running = {"number": job.attempt, "from": job.started_at, **waits_row(self._waits_of(job.id))}
        before = [row for row in entry.attempts if row["number"] < job.attempt]
        return [*before, running][-LAST_ATTEMPTS:]


def _over(job: Job) -> int:
    """Return how many attempts of a job are over."""
    return job.attempt - (job.status is JobStatus.RUNNING)


def _ended_row(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "from": attempt.started_at,
        "to": attempt.ended_at,
        "status": attempt.status,
        "reason": attempt.reason,
        **waits_row(attempt.waits),
    }


def waits_row(waits: Sequence[AttemptWait]) -> dict[str, Any]:
    """Return the waits of an attempt as a row has them: `[what, from, to]` each, and without `to` while it lasts."""
    return {"waits": [_wait_row(wait) for wait in waits]} if waits else {}


def _wait_row(wait: AttemptWait) -> list[Any]:
    return [wait.what, wait.since] if wait.until is None else [wait.what, wait.since, wait.until]


def pauses_row(ended: Sequence[EndedPause], lasting: Iterable[PausedPath]) -> list[list[Any]]:
    """Return the pauses of a tree as its row has them: `[from, to, path]` each, null as the end of one that lasts.

    Args:
        ended: Those that were ended, the oldest first.
        lasting: Those that hold now.
    """
    over: list[list[Any]] = [[pause.since, pause.until, pause.path] for pause in ended]
    now: list[list[Any]] = [[pause.since, None, pause.path] for pause in lasting]
    return sorted([*over, *now], key=lambda one: one[0])[-MOST_PAUSES:]
