"""Why a live job does no work now, with its details; every reader asks here."""

from collections.abc import Callable
from dataclasses import replace

from jobs.live_trees import LiveTrees
from jobs.model import TERMINAL, Job, JobStatus
from jobs.permissions.approvals import Approvals
from jobs.recursion_manager import RecursionManager
from jobs.waiting_for import FOR_JOBS, Wait, WaitingFor

_MOST_IDS = 3
"""Most siblings that are named."""


class WaitReasons:
    """Tells what jobs wait for, from memory.

    Args:
        recursion: Knows what queued jobs wait for.
        trees: The live trees.
        approvals: The open permission requests.
        now: Returns seconds since the epoch.
    """

    def __init__(
        self, recursion: RecursionManager, trees: LiveTrees, approvals: Approvals, now: Callable[[], float]
    ) -> None:
        self._recursion = recursion
        self._now = now
        self._trees = trees
        self._approvals = approvals

    def of(self, job: Job) -> Wait | None:
        """Return what a job waits for, or None where it works or is over."""
        wait = self._recursion.wait_of(job)
        if wait is None or wait.because:
            return wait
        if wait.what is WaitingFor.PERMISSION:
            return self._permission(job, wait)
        return replace(wait, because=self._because(job, wait.what))

    def hold_of(self, job: Job) -> Wait | None:
        """Return why neither a job nor anything below it goes on, until a time or until a person resumes it.

        None where it works, where it may go on at any moment, and where it is over.
        """
        wait = self._recursion.wait_of(job)
        if wait is None:
            return None
        match wait.what:
            case WaitingFor.CHILDREN:
                return self._hold_of_all(job.path)
            case WaitingFor.SIBLINGS:
                return self._hold_of_all(job.path.rpartition("/")[0] or job.path)
            case _:
                return wait if self._is_hold(job, wait) else None

    def _hold_of_all(self, path: str) -> Wait | None:
        """Return the hold that ends first of all that lives below a path; None where something may go on."""
        first: Wait | None = None
        for job in self._trees.live_under(path):
            wait = self._recursion.wait_of(job)
            if wait is not None and wait.what in FOR_JOBS:
                continue
            if wait is None or not self._is_hold(job, wait):
                return None
            first = wait if first is None else first.earlier(wait)
        return first

    def _is_hold(self, job: Job, wait: Wait) -> bool:
        if wait.what is WaitingFor.PAUSE:
            # A job that paused others may resume them at any moment, and may be the one that waits for them.
            return any(row.by_job is None for row in self._recursion.paused_paths.covering(job.path))
        return wait.what in {WaitingFor.LIMIT, WaitingFor.BACK_OFF} and wait.until is not None

    def _because(self, job: Job, what: WaitingFor) -> str:
        match what:
            case WaitingFor.SIBLINGS:
                return self._open_siblings(job)
            case WaitingFor.CHILDREN:
                return self._live_below(job)
            case _:
                return ""

    def _permission(self, job: Job, wait: Wait) -> Wait:
        request = self._approvals.open_of(job.id)
        if request is None:
            return wait
        return replace(wait, until=self._now() + self._approvals.seconds_left(request), because=request.call)

    def _open_siblings(self, job: Job) -> str:
        siblings = (self._trees.job(one) for one in job.spec.depends_on)
        ids = [one.id for one in siblings if one is not None and one.status not in TERMINAL]
        more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
        return ", ".join(ids[:_MOST_IDS]) + more

    def _live_below(self, job: Job) -> str:
        sums = self._trees.rollup(job.path)
        live = 0 if sums is None else sums.live - (job.status not in TERMINAL)
        running = 0 if sums is None else sums.counts.get(JobStatus.RUNNING, 0) - (job.status is JobStatus.RUNNING)
        return f"{live} live below it, {running} of them running" if live else ""
