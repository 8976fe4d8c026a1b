"""LiveStore: a store that answers from memory about live trees, in front of one that keeps everything."""

import time
from collections.abc import Sequence
from dataclasses import replace

from anyio import CancelScope

from jobs.live_trees import LiveTrees
from jobs.model import Attempt, Batch, DaySpending, Job, JobStatus, Outcome, Rollup, Tree
from jobs.paused import EndedPause, PausedPath, PausedPaths
from jobs.ports import Admission, EndedTree, Limited, LiveRows, NewLimits, SpawnCheck, Store, Submission
from jobs.spending import LOADED_DAYS, Spending, local_day
from jobs.store.rows import ended_attempt
from jobs.util.keyed import KeyedLock
from jobs.waiting_for import WaitingFor


class LiveStore(Store):
    """The store of a running engine, which is the only writer of its database.

    Every write goes through to the store behind it, and its effect is taken into memory once that store has returned.
    A question about a tree in which something is queued or running, or that has just ended, is answered from memory
    without waiting; every other one is passed on.

    Writes are shielded: if a caller is cancelled while its rows are written, memory must still follow the rows. This
    holds off the cancels of anyio; asyncio's own come only where the engine exits, and its memory with it.

    Args:
        behind: Keeps everything. Empty, or as `over` loads it.
        trees: Where the live trees are kept.

    Attributes:
        paused_paths: The paused parts of the trees.
    """

    def __init__(self, behind: Store, trees: LiveTrees | None = None) -> None:
        self.trees = trees or LiveTrees()
        self.paused_paths = PausedPaths(lives=self.trees.lives)
        self.spent = Spending()
        self._behind = behind
        self._attempts: dict[str, Attempt] = {}
        self._tokens: dict[str, str] = {}
        self._loading = KeyedLock()

    @classmethod
    async def over(cls, behind: Store) -> "LiveStore":
        """Return the store in front of one that has a past, every live tree of it in memory.

        Raises:
            StoreError: The trees cannot be read.
        """
        store = cls(behind)
        store.paused_paths.put(await behind.paused())
        rows = await behind.live_rows()
        for attempt in rows.attempts:
            store._remember(attempt)
        by_root: dict[str, list[Job]] = {tree.id: [] for tree in rows.trees}
        for job in rows.jobs:
            by_root[job.root_id].append(job)
        for tree in rows.trees:
            store.trees.enter(tree, by_root[tree.id])
        store.spent.load(await behind.spending(local_day(time.time() - LOADED_DAYS * 86_400)))
        return store

    async def admit(self, submission: Submission, check: SpawnCheck) -> Admission:
        """Write a batch and its jobs."""
        with CancelScope(shield=True):
            admission = await self._behind.admit(submission, check)
        if admission.created and submission.parent_id is None:
            self.trees.enter(submission.new_tree, admission.jobs, admission.batch)
        elif admission.created:
            self.trees.admit(admission.jobs, admission.batch)
        return admission

    async def claim(
        self,
        job_id: str,
        *,
        session_id: str,
        token_hash: str | None,
        at: float,
        setting_sources: str = "user",
        cli: str | None = None,
        cli_version: str | None = None,
    ) -> Attempt | None:
        """Move a queued job to running with a new attempt."""
        with CancelScope(shield=True):
            attempt = await self._behind.claim(
                job_id,
                session_id=session_id,
                token_hash=token_hash,
                at=at,
                setting_sources=setting_sources,
                cli=cli,
                cli_version=cli_version,
            )
        job = self.trees.job(job_id)
        if attempt is not None and job is not None:
            self._remember(attempt)
            self.trees.put(
                replace(
                    job,
                    status=JobStatus.RUNNING,
                    reason=None,
                    error=None,
                    excerpt=None,
                    waiting_for=None,
                    attempt=attempt.number,
                    session_id=attempt.session_id,
                    started_at=attempt.started_at,
                )
            )
        return attempt

    async def record_launch(self, job_id: str, attempt: int, *, pid: int, pid_start: float) -> None:
        """Note which process runs the attempt."""
        await self._behind.record_launch(job_id, attempt, pid=pid, pid_start=pid_start)
        known = self._attempts.get(job_id)
        if known is not None and known.number == attempt:
            self._attempts[job_id] = replace(known, pid=pid, pid_start=pid_start)

    async def settle(self, job_id: str, attempt: int, outcome: Outcome, *, at: float) -> Job:
        """Write how the attempt ended."""
        with CancelScope(shield=True):
            job = await self._behind.settle(job_id, attempt, outcome, at=at)
        self.spent.settle(job_id, outcome.account, outcome.usage.cost_usd, at=at)
        ended = self._attempts.get(job_id)
        self._changed(job)
        if ended is not None and job.status is JobStatus.QUEUED:
            # The next step of its job, and that of its subtasks, is decided from it.
            self._attempts[job_id] = ended_attempt(ended, outcome, at)
        return job

    async def fail_queued(self, job_id: str, outcome: Outcome, *, at: float) -> Job | None:
        """Settle a job that waits."""
        with CancelScope(shield=True):
            job = await self._behind.fail_queued(job_id, outcome, at=at)
        self._changed(job)
        return job

    async def set_waiting_for(
        self, job_id: str, now: WaitingFor | None, *, was: WaitingFor | None = None
    ) -> Job | None:
        """Note what a live job waits for."""
        with CancelScope(shield=True):
            job = await self._behind.set_waiting_for(job_id, now, was=was)
        self._changed(job)
        return job

    async def cancel_under(self, *paths: str, at: float) -> Sequence[Job]:
        """Cancel subtrees in one statement."""
        with CancelScope(shield=True):
            jobs = await self._behind.cancel_under(*paths, at=at)
        for job in jobs:
            self._changed(job)
        return jobs

    async def requeue(self, job_id: str) -> Job | None:
        """Queue a job again."""
        job = await self.job(job_id)
        if job is None:
            return None
        async with self._loading.hold(job.root_id):
            with self.trees.held(job.root_id):
                await self._load(job.root_id)
                with CancelScope(shield=True):
                    queued = await self._behind.requeue(job_id)
                self._changed(queued)
                return queued

    async def pause(self, rows: Sequence[PausedPath]) -> Sequence[PausedPath]:
        """Write pauses."""
        with CancelScope(shield=True):
            written = await self._behind.pause(rows)
        self.paused_paths.put(written)
        return written

    async def unpause(self, paths: Sequence[str], *, at: float) -> None:
        """End pauses."""
        with CancelScope(shield=True):
            await self._behind.unpause(paths, at=at)
        self.paused_paths.drop(paths)

    async def ended_pauses(self, root_id: str) -> Sequence[EndedPause]:
        """Return the ended pauses of a tree, as they are behind."""
        return await self._behind.ended_pauses(root_id)

    async def paused(self) -> Sequence[PausedPath]:
        """Return the pauses, as they are behind."""
        return await self._behind.paused()

    async def set_limits(self, identity: str, limits: NewLimits, *, at: float) -> Limited | None:
        """Set limits of a job or a batch."""
        with CancelScope(shield=True):
            limited = await self._behind.set_limits(identity, limits, at=at)
        if limited is not None:
            self.trees.limit(limited.tree)
            for job in limited.jobs:
                self.trees.put(job)
        return limited

    async def job(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return self.trees.job(job_id) or await self._behind.job(job_id)

    async def task(self, job_id: str) -> str | None:
        """Return the whole text of a job's task, or None."""
        job = self.trees.job(job_id)
        return job.spec.task if job and job.spec.task_chars is None else await self._behind.task(job_id)

    async def jobs(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Return jobs in the order asked."""
        found = {job_id: job for job_id in job_ids if (job := self.trees.job(job_id))}
        if missing := [job_id for job_id in job_ids if job_id not in found]:
            found |= {job.id: job for job in await self._behind.jobs(missing)}
        return [found[job_id] for job_id in job_ids if job_id in found]

    async def jobs_in_batch(self, batch_id: str) -> Sequence[Job]:
        """Return a batch's jobs."""
        known = self.trees.in_batch(batch_id)
        return await self._behind.jobs_in_batch(batch_id) if known is None else known

    async def jobs_under(self, path: str) -> Sequence[Job]:
        """Return a subtree's jobs."""
        known = self.trees.under(path)
        return await self._behind.jobs_under(path) if known is None else known

    async def newest_jobs(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        status: JobStatus | None = None,
        path: str | None = None,
    ) -> Sequence[Job]:
        """Return a page of jobs, newest first."""
        return await self._behind.newest_jobs(limit=limit, before_seq=before_seq, status=status, path=path)

    async def ids_from(self, beginning: str, *, limit: int, path: str | None = None) -> Sequence[str]:
        """Return the ids with this prefix."""
        return await self._behind.ids_from(beginning, limit=limit, path=path)

    async def unfinished(self) -> Sequence[Job]:
        """Return the jobs that are queued or running."""
        return self.trees.live()

    async def live_rows(self) -> LiveRows:
        """Return everything of the trees that live, as they are behind."""
        return await self._behind.live_rows()

    async def has_unfinished(self) -> bool:
        """Tell whether a job is queued or running."""
        return self.trees.any_live()

    async def batch(self, batch_id: str) -> Batch | None:
        """Return a batch, or None."""
        return self.trees.batch(batch_id) or await self._behind.batch(batch_id)

    async def tree(self, root_id: str) -> Tree | None:
        """Return a tree, or None."""
        return self.trees.tree(root_id) or await self._behind.tree(root_id)

    async def rollup_under(self, path: str) -> Rollup:
        """Sum up a subtree."""
        return self.trees.rollup(path) or await self._behind.rollup_under(path)

    async def rollup_batch(self, batch_id: str) -> Rollup:
        """Sum up a batch and everything below it."""
        return self.trees.rollup_batch(batch_id) or await self._behind.rollup_batch(batch_id)

    async def rollup_all(self) -> Rollup:
        """Sum up every job."""
        return replace(await self._behind.rollup_all(), running=self.trees.running_usage())

    async def ended_trees(self, *, before: float) -> Sequence[EndedTree]:
        """Return the trees that ended before this time."""
        return await self._behind.ended_trees(before=before)

    async def delete_tree(self, root_id: str) -> bool:
        """Forget a tree that is over."""
        with CancelScope(shield=True):
            deleted = await self._behind.delete_tree(root_id)
        if deleted:
            self.trees.forget(root_id)
            self.paused_paths.drop([row.path for row in self.paused_paths.under(root_id)])
        return deleted

    async def shrink(self) -> None:
        """Give the space of what has been forgotten back to the disk."""
        await self._behind.shrink()

    async def attempt(self, job_id: str, number: int) -> Attempt | None:
        """Return one attempt, or None."""
        known = self._attempts.get(job_id)
        return known if known and known.number == number else await self._behind.attempt(job_id, number)

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        """Return the last attempts of jobs, as they are behind."""
        return await self._behind.attempts_of(job_ids)

    async def spending(self, since: str) -> Sequence[DaySpending]:
        """Return what accounts have spent, as it is behind."""
        return await self._behind.spending(since)

    async def caller(self, token_hash: str) -> Job | None:
        """Return the running job that holds this token, or None."""
        job_id = self._tokens.get(token_hash)
        return None if job_id is None else self.trees.job(job_id)

    async def _load(self, root_id: str) -> None:
        if root_id in self.trees:
            return
        tree, jobs = await self._behind.tree(root_id), await self._behind.jobs_under(root_id)
        if tree is None:
            return
        for job in jobs:
            if job.status is JobStatus.RUNNING:
                self._remember(await self._behind.attempt(job.id, job.attempt))
        self.trees.enter(tree, jobs)

    def _remember(self, attempt: Attempt | None) -> None:
        if attempt is not None:
            self._attempts[attempt.job_id] = attempt
            if attempt.token_hash is not None:
                self._tokens[attempt.token_hash] = attempt.job_id

    def _changed(self, job: Job | None) -> None:
        if job is None:
            return
        if job.status is not JobStatus.RUNNING and (ended := self._attempts.pop(job.id, None)):
            self._tokens.pop(ended.token_hash or "", None)
        self.trees.put(job)
