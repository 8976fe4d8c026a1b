"""Times at which running attempts did no work, in memory until the attempt is settled."""

from collections.abc import Callable, Sequence
from typing import Final

from jobs.waiting_for import AttemptWait, WaitingFor

MOST_WAITS: Final = 100
"""Most waits of an attempt; the longest ones are kept."""

JOINED_SECONDS: Final = 1.0
"""Seconds between two waits of a kind below which they count as one: a job calls again as soon as a call returns."""


class WaitHistory:
    """Waits of the attempts that run. An engine that takes an attempt over knows only what comes after that.

    Args:
        now: Returns seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._over: dict[str, list[AttemptWait]] = {}
        self._open: dict[str, dict[WaitingFor, float]] = {}

    def begin(self, job_id: str, what: WaitingFor) -> None:
        """Note that a running job begins to wait; a second note changes nothing."""
        self._open.setdefault(job_id, {}).setdefault(what, self._now())

    def end(self, job_id: str, what: WaitingFor) -> None:
        """Note that it waits no more for that; do nothing where it did not."""
        kinds = self._open.get(job_id, {})
        since = kinds.pop(what, None)
        if since is None:
            return
        if not kinds:
            del self._open[job_id]
        over = self._over.setdefault(job_id, [])
        over.append(AttemptWait(what=what, since=since, until=max(since, self._now())))
        # Not at each one: sorting a hundred for every call of a job that waits all the time would be work.
        if len(over) > 2 * MOST_WAITS:
            self._over[job_id] = list(kept_waits(over))

    def note_parked(self, job_id: str, parked: bool) -> None:
        """Note that a job gives its slot back while it waits for its own jobs, or takes it again."""
        if parked:
            self.begin(job_id, WaitingFor.CHILDREN)
        else:
            self.end(job_id, WaitingFor.CHILDREN)

    def of(self, job_id: str) -> Sequence[AttemptWait]:
        """Return the waits of a job's running attempt, the earliest first; one that lasts has no end."""
        opened = self._open.get(job_id)
        over = self._over.get(job_id, ())
        if not opened and not over:
            return ()
        lasting = (AttemptWait(what=what, since=since) for what, since in (opened or {}).items())
        return kept_waits((*over, *lasting))

    def ended_at(self, job_id: str, at: float) -> tuple[AttemptWait, ...]:
        """Return the waits of an attempt that is over at a time, in seconds since the epoch."""
        if job_id not in self._open and job_id not in self._over:
            return ()
        ended = (AttemptWait(what=one.what, since=one.since, until=one.end_or(at)) for one in self.of(job_id))
        return tuple(ended)

    def forget(self, job_id: str) -> None:
        """Forget the waits of an attempt that has been settled."""
        self._open.pop(job_id, None)
        self._over.pop(job_id, None)


def kept_waits(waits: Sequence[AttemptWait]) -> tuple[AttemptWait, ...]:
    """Return waits in order, those of a kind joined that touch, and of more than `MOST_WAITS` the longest."""
    joined: list[AttemptWait] = []
    last: dict[WaitingFor, int] = {}
    for wait in sorted(waits, key=lambda one: one.since):
        place = last.get(wait.what)
        before = None if place is None else joined[place]
        if place is not None and before is not None and before.touches(wait, JOINED_SECONDS):
            joined[place] = before.joined(wait)
        else:
            last[wait.what] = len(joined)
            joined.append(wait)
    longest = sorted(joined, key=lambda one: one.length, reverse=True)[:MOST_WAITS]
    return tuple(sorted(longest, key=lambda one: one.since))
