"""The engine's own account of what running attempts cost, and what that leaves of the budgets above them."""

from collections.abc import Mapping, Sequence

from jobs.limits.budget import CENT_FRACTION, Books, Holder, deadline_of, holders_of, left_for
from jobs.model import Job, JobStatus
from jobs.ports import Store
from jobs.tree import contains


class Ledger:
    """Knows what has been spent and not yet been settled.

    What is settled stands in the store; the two together are what a subtree has cost. The CLI's own total would not do:
    it is checked after a call, and what a killed process spent is missing in it (both measured on 2.1.330).

    Args:
        store: Where the settled part is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._live: dict[tuple[str, int], float] = {}
        self._paths: dict[tuple[str, int], str] = {}

    def note(self, job: Job, attempt: int, cost_usd: float) -> bool:
        """Take down what a running attempt has cost so far, and tell whether that is news.

        Args:
            job: The job.
            attempt: The attempt's number.
            cost_usd: US dollars.
        """
        key = (job.id, attempt)
        news = cost_usd != self._live.get(key, 0.0)
        self._live[key], self._paths[key] = cost_usd, job.path
        return news

    def close(self, job: Job, attempt: int) -> None:
        """Strike out an attempt: it has been settled."""
        self._live.pop((job.id, attempt), None)
        self._paths.pop((job.id, attempt), None)

    def live(self) -> Mapping[tuple[str, int], float]:
        """Return what each running attempt has cost: a copy, which another thread may read."""
        return self._live.copy()

    async def holders(self, job: Job) -> Sequence[Holder]:
        """Return who bounds a job, the tree first and the job itself last."""
        tree = await self._store.tree(job.root_id)
        return holders_of(tree, await self._store.jobs(job.path.split("/")))

    async def left(self, job: Job) -> float | None:
        """Return the US dollars that a job may still spend, 0 at least, or None where nothing bounds it."""
        holders = await self.holders(job)
        first = next((holder for holder in holders if holder.usd is not None), None)
        if first is None:
            return None
        return left_for(holders, Books(await self._store.jobs_under(first.path), self.live()))

    async def deadline(self, job: Job) -> float | None:
        """Return the seconds since the epoch after which a job must not run, or None."""
        return deadline_of(await self.holders(job))

    async def overdrawn(self, holders: Sequence[Holder]) -> Holder | None:
        """Return the first of these whose budget of US dollars is used up, or None."""
        for holder in holders:
            if holder.usd is not None and await self._spent(holder.path) >= holder.usd - CENT_FRACTION:
                return holder
        return None

    async def _spent(self, path: str) -> float:
        settled = (await self._store.rollup_under(path)).usage.cost_usd
        noted = [key for key, place in self._paths.items() if contains(path, place)]
        # Read after the sum: an attempt settled in between is missed until the next look. It must not count twice, as
        # it would while it is settled and not yet struck out: a budget that is not used up would end its jobs.
        jobs = await self._store.jobs([job_id for job_id, _ in noted])
        running = {(job.id, job.attempt) for job in jobs if job.status is JobStatus.RUNNING}
        return settled + sum(self._live.get(key, 0.0) for key in noted if key in running)
