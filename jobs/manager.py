"""EnhancedJobManager: admits batches, runs each through the one recursive graph, and cancels subtrees."""

from collections.abc import Sequence
from typing import Self

import anyio.to_thread
from anyio.lowlevel import checkpoint

from jobs.assembly import Parts, StandaloneParts
from jobs.batch_graph import BatchGraph, JobNode
from jobs.client_context import ClientContext
from jobs.errors import EngineStoppingError, NotFoundError
from jobs.event_bus import JobEventBus
from jobs.model import TERMINAL, Job, JobStatus
from jobs.ports import Admission, Store
from jobs.spec import TaskRequest
from jobs.submissions import Submissions, listed
from jobs.validation import TreeBounds
from orchestration.failures import Failure

_LOOK_AGAIN = 0.05
"""Seconds between two looks whether every job is over."""

_PASSES_OF_A_REPLY = 10
"""Passes of the event loop after which the reply to a submission is on its way to the caller."""


class EnhancedJobManager:
    """Runs batches of jobs, each through one compiled LangGraph graph.

    The graph keeps no state: the rows of the store do, so a batch can be run again after a crash and finds its jobs
    where they are.

    Made without parts it works without an engine, for a program that embeds jobs: see `jobs.assembly.StandaloneParts`.
    It opens at its first use, or as an `async with`, and closing it cancels what still runs.

    Args:
        parts: An engine's parts.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        self._stopping = False
        self._own = StandaloneParts(self._use, self._end_all) if parts is None else None
        if parts is not None:
            self._use(parts)

    def _use(self, parts: Parts) -> None:
        self._parts = parts
        self._submissions = Submissions(parts.spec_builder, parts.client_contexts, parts.clock, parts.recursion)
        self._graph = BatchGraph(JobNode(parts, self._submissions, lambda: self._stopping))

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what was made without parts: cancels its live jobs and removes their files; else does nothing."""
        if self._own is not None:
            await self._own.close()

    async def _open(self) -> None:
        if self._own is not None:
            await self._own.open()

    async def _end_all(self) -> None:
        self.stop_admitting()
        await self.cancel_all()

    async def execute_batch_async(
        self,
        tasks: Sequence[str | TaskRequest],
        parent_job_id: str | None = None,
        *,
        client_context: ClientContext | None = None,
    ) -> list[str]:
        """Start a batch and return its job ids, in the order of the tasks, once they are on disk.

        Args:
            tasks: At least one; a string is a task with every default.
            parent_job_id: The job that spawns them, or None for a new tree.
            client_context: For a new tree: the client that asked. None is this program for a manager without parts,
                else an empty environment and the root directory.

        Raises:
            JobsError, RecursionLimitError: As `submit`; nothing was started.
        """
        admission = await self.submit(tasks, parent_job_id, client_context=client_context)
        return [job.id for job in admission.jobs]

    async def submit(
        self,
        tasks: Sequence[str | TaskRequest],
        parent_job_id: str | None = None,
        *,
        client_context: ClientContext | None = None,
        as_root: bool = False,
        idempotency_key: str | None = None,
        bounds: TreeBounds | None = None,
    ) -> Admission:
        """Admit tasks as one batch and start it, all or none; returns everything that was written.

        Args:
            tasks: At least one.
            parent_job_id: The job that spawns them, or None for a new tree.
            client_context: For a new tree: the client that asked.
            as_root: The one task without parent is to be the root itself.
            idempotency_key: A second submission of the same caller with this key returns the first one's jobs.
            bounds: For a new tree: what the whole of it may cost and take.

        Raises:
            BadInputError: A task cannot be used.
            IdempotencyKeyError: The key was used for a different request.
            RightsError: A task asks for more than its parent may do.
            NotFoundError: Unknown parent.
            TreeClosedError: The parent is over or being cancelled, or is below a job that was cancelled.
            RecursionLimitError, BudgetError: A total of the tree would be exceeded, or a budget above has no room.
            EngineStoppingError: The engine is stopping.
            ClaudeNotFoundError, ClaudeTooOldError: The client's jobs would have no `claude` to run.
            StoreError: The jobs or their environment cannot be written down now; `DiskFullError` on a full disk.
        """
        await self._open()
        if self._stopping:
            raise EngineStoppingError
        parent = None if parent_job_id is None else await self._known(parent_job_id)
        return await self._submissions.submit(
            tasks,
            parent,
            client_context=client_context or self._parts.client_context(),
            on_admitted=self._start,
            as_root=as_root,
            idempotency_key=idempotency_key,
            bounds=bounds,
        )

    async def results(self, job_ids: Sequence[str]) -> list[str | Failure]:
        """Wait until jobs are over and return their answers in the order of the ids.

        Returns:
            A text each, or a `Failure` for a job that did not complete: its type is the job's reason.

        Raises:
            NotFoundError: Unknown job.
            BadInputError: It is no list.
        """
        jobs = [await self._known(job_id) for job_id in listed("job_ids", job_ids)]
        return [await _answer(job, self._parts.store, self._parts.event_bus) for job in jobs]

    async def run_batch(self, jobs: Sequence[Job]) -> None:
        """Run admitted jobs until each is over; jobs that are over already stay as they are."""
        # The reply goes out first: entering the graph takes the loop for some milliseconds.
        for _ in range(_PASSES_OF_A_REPLY):
            await checkpoint()
        await self._parts.recursion.run_batch(jobs, self._graph.run, self._parts.clock.now)
        await self._parts.client_contexts.forget_if_ended(self._parts.store, jobs[0].root_id)

    async def resume(self) -> int:
        """Run every unfinished job again through the graph after a start, and return how many there are.

        Call it before clients connect: it also forgets client contexts that an earlier engine did not get to forget.
        """
        by_batch: dict[str, list[Job]] = {}
        for job in await self._parts.store.unfinished():
            by_batch.setdefault(job.batch_id, []).append(job)
            if job.status is JobStatus.RUNNING:
                self._parts.recursion.scheduler.reserve_adopted(job)
        await self._parts.client_contexts.forget_all_but({jobs[0].root_id for jobs in by_batch.values()})
        for jobs in by_batch.values():
            self._parts.start_soon(self.run_batch, jobs)
        self._parts.start_soon(self._graph.load_soon)
        return sum(map(len, by_batch.values()))

    async def forget_ended_trees(self) -> None:
        """Forget the client context of each tree that is over, as the engine exits: a batch may not get to do so."""
        await self._parts.client_contexts.forget_ended(self._parts.store)

    def stop_admitting(self) -> None:
        """Refuse every submission and start nothing more from now on: the engine is stopping."""
        self._stopping = True
        self._parts.recursion.scheduler.close()

    async def cancel_all(self) -> None:
        """Cancel every live job and return once all of them are over."""
        while live := await self._parts.store.unfinished():
            if running := [job for job in live if not job.cancel_requested]:
                await self.cancel_subtrees(running)
            await anyio.sleep(_LOOK_AGAIN)

    async def cancel(self, job_id: str) -> Sequence[Job]:
        """Cancel a job and everything below it; return the jobs that were still live.

        Raises:
            NotFoundError: Unknown job.
        """
        return await self.cancel_subtrees([await self._known(job_id)])

    async def cancel_subtrees(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Cancel jobs and everything below them in one transaction; return the jobs that were still live.

        From the transaction on nothing new can be spawned or started there. The processes are ended side by side and
        for the engine, not for the request: one that ignores its end delays neither the others nor the caller.
        """
        # A request that is cancelled between the transaction and its effects would leave processes running.
        with anyio.CancelScope(shield=True):
            cancelled = await self._parts.store.cancel_under(*(job.path for job in jobs), at=self._parts.clock.now())
        for each in cancelled:
            self._parts.recursion.scheduler.withdraw(each.id)
            if each.cancel_requested:
                self._parts.start_soon(self._parts.runner.cancel, each.id)
            self._parts.event_bus.publish(each)
        self._parts.recursion.waves.recheck()
        return cancelled

    async def _known(self, job_id: str) -> Job:
        await self._open()
        job = await self._parts.store.job(job_id)
        if job is None:
            raise NotFoundError("Job", job_id)
        return job

    def _start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._parts.event_bus.publish(job)
        self._parts.start_soon(self.run_batch, jobs)


async def _answer(job: Job, store: Store, event_bus: JobEventBus) -> str | Failure:
    with event_bus.subscribe([job.root_id], lambda changed: changed.id == job.id) as changed:
        job = await store.job(job.id) or job
        while job.status not in TERMINAL:
            await changed.changes()
            job = await store.job(job.id) or job
    if job.status is not JobStatus.COMPLETED:
        return Failure(type=str(job.reason or job.status), message=job.error or "", fields={"jobId": job.id})
    attempt = await store.attempt(job.id, job.attempt)
    return (attempt and attempt.result) or ""
