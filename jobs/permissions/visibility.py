"""Visibility of jobs: a job sees its own subtree, a person or a program everything; the rest is "not found"."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from jobs.errors import NotFoundError, OwnJobError
from jobs.ids import contains, is_batch_id
from jobs.live_trees import BatchJobs
from jobs.model import LIVE, Batch, Job, JobStatus, Rollup
from jobs.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSelection:
    """A set of jobs that a caller asks about.

    Args:
        jobs: The jobs, in order of admission; for named jobs in the order asked. `BatchJobs` for a live batch.
        path: For a subtree or a tree, which may still grow: the path it lies under. Otherwise None.
        without: Id of a job of that subtree that is not asked about, or None.
    """

    jobs: Sequence[Job]
    path: str | None = None
    without: str | None = None

    @property
    def batch(self) -> BatchJobs | None:
        """The batch, where the jobs are those of a live one."""
        return self.jobs if isinstance(self.jobs, BatchJobs) else None

    @property
    def root_ids(self) -> frozenset[str]:
        """The trees that the jobs belong to."""
        if self.batch is not None:
            return frozenset((self.batch.root_id,))
        from_path = {self.path.partition("/")[0]} if self.path else set()
        return frozenset({job.root_id for job in self.jobs} | from_path)

    @property
    def paths(self) -> Sequence[str]:
        """Paths of the jobs, or of the subtree."""
        if self.batch is not None and self.batch.id == self.batch.root_id:
            return (self.batch.id,)
        return (self.path,) if self.path else tuple(job.path for job in self.jobs)

    def membership(self) -> Callable[[Job], bool]:
        """Return a test that tells whether a changed job belongs to this set."""
        path, without, batch = self.path, self.without, self.batch
        if batch is not None:
            return lambda job: job.batch_id == batch.id
        if path is not None:
            return lambda job: contains(path, job.path) and job.id != without
        ids = frozenset(job.id for job in self.jobs)
        return lambda job: job.id in ids


class Visibility:
    """Reads the store as one caller may.

    Args:
        store: Where the trees are.
        caller: The job that asks, or None for a person or a program outside every tree.
    """

    def __init__(self, store: Store, caller: Job | None) -> None:
        self._store = store
        self._caller = caller

    async def job(self, job_id: str) -> Job:
        """Return a job of the caller's.

        Raises:
            NotFoundError: There is none, or it is not the caller's.
        """
        job = await self._store.job(job_id)
        if job is None or not self._sees(job.path):
            raise NotFoundError("Job", job_id)
        return job

    async def jobs(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Return jobs of the caller's in the order asked, each once.

        Raises:
            NotFoundError: One of them is not there, or not the caller's.
        """
        asked = tuple(dict.fromkeys(job_ids))
        found = {job.id: job for job in await self._store.jobs(asked) if self._sees(job.path)}
        for job_id in asked:
            if job_id not in found:
                raise NotFoundError("Job", job_id)
        return [found[job_id] for job_id in asked]

    async def batch(self, batch_id: str) -> Batch:
        """Return a batch of the caller's.

        Raises:
            NotFoundError: There is none, or it is not the caller's.
        """
        batch = await self._store.batch(batch_id)
        if batch is None or not await self._sees_batch(batch):
            raise NotFoundError("Batch", batch_id)
        return batch

    async def batch_selection(self, batch_id: str) -> JobSelection:
        """Return a batch's own jobs.

        Raises:
            NotFoundError: As `batch`.
        """
        await self.batch(batch_id)
        return JobSelection(jobs=await self._store.jobs_in_batch(batch_id))

    async def subtree_selection(self, root: str) -> JobSelection:
        """Return everything below a job or, for a batch that began a tree, the whole tree; the job itself included.

        Raises:
            NotFoundError: As `job` and `batch`.
        """
        if is_batch_id(root):
            batch = await self.batch(root)
            if batch.root_id != batch.id:
                return await self.batch_selection(root)
            path = batch.id
        else:
            path = (await self.job(root)).path
        return JobSelection(jobs=await self._store.jobs_under(path), path=path)

    async def rollup(self, root: str) -> Rollup:
        """Sum up a batch with everything below it, or a job with its subtree.

        Raises:
            NotFoundError: As `job` and `batch`.
        """
        if is_batch_id(root):
            await self.batch(root)
            return await self._store.rollup_batch(root)
        return await self._store.rollup_under((await self.job(root)).path)

    async def live_children(self, job: Job) -> int:
        """Return how many children of a job are not over."""
        return sum(one.parent_id == job.id and one.status in LIVE for one in await self._store.jobs_under(job.path))

    async def newest(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        status: JobStatus | None = None,
        under: str | None = None,
    ) -> Sequence[Job]:
        """Return at most `limit` of the caller's jobs, newest first.

        Args:
            limit: Most jobs.
            before_seq: Only jobs that were admitted before the one of this `seq`, or None.
            status: Only jobs of this status, or None.
            under: Only a job of this id and what is below it, or a batch's jobs and, where it began a tree, all of
                that; None for all that the caller sees.

        Raises:
            NotFoundError: As `job` and `batch`, of `under`.
        """
        path = None if self._caller is None else self._caller.path
        if under is not None and is_batch_id(under):
            batch = await self.batch(under)
            if batch.id != batch.root_id:
                jobs = reversed(await self._store.jobs_in_batch(batch.id))
                older = [job for job in jobs if before_seq is None or job.seq < before_seq]
                return [job for job in older if status in {None, job.status}][:limit]
            path = batch.id
        elif under is not None:
            path = (await self.job(under)).path
        return await self._store.newest_jobs(limit=limit, before_seq=before_seq, status=status, path=path)

    async def ids_from(self, beginning: str, *, limit: int) -> Sequence[str]:
        """Return at most `limit` ids of the caller's jobs and of their batches with this prefix, the newest first."""
        path = None if self._caller is None else self._caller.path
        return await self._store.ids_from(beginning, limit=limit, path=path)

    def refuse_self(
        self, what: str, remedy: str, *, jobs: Collection[str | None] = (), batches: Collection[str | None] = ()
    ) -> None:
        """Refuse a job what is known only after its own end; other callers may ask.

        Args:
            what: What is asked for, as an infinitive.
            remedy: What to do instead, as a sentence.
            jobs: Ids of the jobs that are asked about.
            batches: Ids of the batches that are asked about.

        Raises:
            OwnJobError: The caller is one of the jobs, or belongs to one of the batches.
        """
        if self._caller is not None and (self._caller.id in jobs or self._caller.batch_id in batches):
            raise OwnJobError(self._caller.id, what, remedy)

    def _sees(self, path: str) -> bool:
        return self._caller is None or contains(self._caller.path, path)

    async def _sees_batch(self, batch: Batch) -> bool:
        if self._caller is None:
            return True
        if batch.parent_id is None:
            return False
        parent = await self._store.job(batch.parent_id)
        return parent is not None and self._sees(parent.path)
