"""Holds a job back until the siblings that it depends on have completed."""

from jobs.model import TERMINAL, Job, JobStatus, Outcome, Reason
from jobs.ports import Clock, Store
from jobs.signals import JobSignals


class Siblings:
    """Waits for siblings, and cancels a job whose sibling ended without a result.

    Args:
        store: Where jobs are.
        signals: Where their changes are announced.
        clock: Time.
    """

    def __init__(self, store: Store, signals: JobSignals, clock: Clock) -> None:
        self._store = store
        self._signals = signals
        self._clock = clock

    async def wait_for(self, job: Job) -> Job:
        """Return the job once every sibling it depends on has completed, or once it is over itself."""
        concerned = {job.id, *job.spec.depends_on}
        if not job.spec.depends_on or job.attempt:
            return job
        with self._signals.subscribe((job.root_id,), lambda changed: changed.id in concerned) as changes:
            while True:
                current = await self._store.job(job.id) or job
                if current.status in TERMINAL or await self._completed(current):
                    return await self._store.job(job.id) or current
                await changes.news()

    async def _completed(self, job: Job) -> bool:
        siblings = await self._store.jobs(job.spec.depends_on)
        for sibling in siblings:
            if sibling.status in TERMINAL and sibling.status is not JobStatus.COMPLETED:
                await self._give_up(job, sibling)
                return True
        return all(sibling.status is JobStatus.COMPLETED for sibling in siblings)

    async def _give_up(self, job: Job, sibling: Job) -> None:
        name = sibling.spec.key or sibling.id
        outcome = Outcome(
            reason=Reason.DEPENDENCY_FAILED,
            status=JobStatus.CANCELLED,
            detail=f"It depends on {name} ({sibling.id}), which is {sibling.status} ({sibling.reason}).",
        )
        cancelled = await self._store.fail_queued(job.id, outcome, at=self._clock.now())
        if cancelled is not None:
            self._signals.publish(cancelled)
