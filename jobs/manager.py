"""EnhancedJobManager: admits batches, runs each through the one recursive graph, and cancels subtrees."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import anyio.to_thread
from anyio.lowlevel import checkpoint

from jobs.assembly import OwnParts, Parts
from jobs.batch_graph import BatchGraph, Next, subtasks_of
from jobs.client_context import ClientContext
from jobs.errors import EngineLeavingError, JobsError, NotFoundError, StoreError
from jobs.ids import subtasks_batch_id
from jobs.model import TERMINAL, Attempt, Job, JobStatus
from jobs.ports import Admission, Submission
from jobs.prompts import decomposition
from jobs.prompts.dependencies import DependencyWaiter
from jobs.runner.launch_plan import resumable_attempt
from jobs.submissions import Submissions, listed
from jobs.util.keyed_lock import KeyedLock
from jobs.util.retrying import retry_while_unavailable
from jobs.validation import TaskRequest, TreeBounds, subtask_request
from jobs.waiting_for import WaitingFor
from orchestration.failures import Failure
from orchestration.isolation import run_isolated
from orchestration.limits import RecursionLimitError

logger = logging.getLogger(__name__)

_LOOK_AGAIN = 0.05
"""Seconds between two looks whether every job is over."""

_PASSES_OF_A_REPLY = 10
"""Passes of the event loop within which the acknowledgement of a submission is on its way to the caller."""


class EnhancedJobManager:
    """Runs batches of jobs, each through one compiled LangGraph graph.

    The graph remembers nothing: the rows of the store do, so a batch can be run again after a crash and finds its jobs
    where they are.

    Made without parts it stands alone, for a program that wants jobs and no engine: see `jobs.assembly.OwnParts`. It
    opens at its first use, or as an `async with`, and closing it cancels what still runs.

    Args:
        parts: An engine's parts.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        self._locks = KeyedLock()
        self._leaving = False
        self._graph = BatchGraph(work=self._run_job, resume=self._go_on, identify=_own_id)
        self._own = OwnParts(self._end_all) if parts is None else None
        if parts is not None:
            self._use(parts)

    def _use(self, parts: Parts) -> None:
        self._store = parts.store
        self._runner = parts.runner
        self._recursion = parts.recursion
        self._spec_builder = parts.spec_builder
        self._client_contexts = parts.client_contexts
        self._event_bus = parts.event_bus
        self._clock = parts.clock
        self._start_soon = parts.start_soon
        self._client_context = parts.client_context
        self._dependencies = DependencyWaiter(parts.store, parts.event_bus, parts.clock)
        self._submissions = Submissions(
            parts.spec_builder, parts.client_contexts, parts.clock, parts.recursion.limits.max_depth
        )

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
            self._use(await self._own.open())

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
            client_context: For a new tree: the client that asked. None is this program where the manager stands alone,
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
            TreeClosedError: The parent is over or being cancelled, or stands below a job that was cancelled.
            RecursionLimitError, BudgetError: A total of the tree would be exceeded, or a budget above has no room.
            EngineLeavingError: The engine was told to leave.
            ClaudeNotFoundError, ClaudeTooOldError: The client's jobs would have no `claude` to run.
            StoreError: The jobs or their environment cannot be written down now; `DiskFullError` on a full disk.
        """
        await self._open()
        if self._leaving:
            raise EngineLeavingError
        parent = None if parent_job_id is None else await self._known(parent_job_id)
        client_context = client_context or self._client_context()
        if parent is None:
            await self._spec_builder.check_claude(client_context.env, client_context.settings)
        # In a thread: the directories that a caller names may be on a file system that does not answer.
        asked: dict[str, Any] = {"as_root": as_root, "idempotency_key": idempotency_key, "bounds": bounds}
        check = partial(self._prepared, tasks, parent, client_context=client_context, **asked)
        submission = await anyio.to_thread.run_sync(check)
        # A request that is cancelled while its rows are written must not leave rows that nobody runs.
        with anyio.CancelScope(shield=True):
            admission = await self._admit(submission)
            if admission.created:
                self._announce(admission.jobs)
                self._start_soon(self.run_batch, admission.jobs)
        return admission

    async def results(self, job_ids: Sequence[str]) -> list[str | Failure]:
        """Wait until jobs are over and return their answers in the order of the ids.

        Returns:
            A text each, or a `Failure` for a job that did not complete: its type is the job's reason.

        Raises:
            NotFoundError: Unknown job.
            BadInputError: It is no list.
        """
        return [await self._result(job_id) for job_id in listed("job_ids", job_ids)]

    async def _result(self, job_id: str) -> str | Failure:
        root_id = (await self._known(job_id)).root_id
        with self._event_bus.subscribe([root_id], lambda changed: changed.id == job_id) as changes:
            job = await self._known(job_id)
            while job.status not in TERMINAL:
                await changes.changes()
                job = await self._store.job(job_id) or job
        if job.status is not JobStatus.COMPLETED:
            return Failure(type=str(job.reason or job.status), message=job.error or "", fields={"jobId": job_id})
        attempt = await self._store.attempt(job_id, job.attempt)
        return (attempt and attempt.result) or ""

    async def run_batch(self, jobs: Sequence[Job]) -> None:
        """Run admitted jobs until each is over; those that are over already stay as they are."""
        # The acknowledgement goes out first: to enter the graph takes the loop for some milliseconds.
        for _ in range(_PASSES_OF_A_REPLY):
            await checkpoint()
        await self._recursion.run(jobs, self._enter)
        await self.close_tree(jobs[0].root_id)

    async def close_tree(self, root_id: str) -> None:
        """Forget a tree's environment where none of its jobs is live."""
        try:
            async with self._client_contexts.hold(root_id):
                if not (await self._store.rollup_under(root_id)).live:
                    self._client_contexts.forget(root_id)
        except (StoreError, OSError):
            # This runs in the engine's own task group, where an error would end every other tree.
            logger.exception("the environment of tree %s could not be cleared away", root_id)

    async def close_ended_trees(self) -> None:
        """Forget the environment of each tree that is over: the engine leaves, and a batch may not get to do so."""
        for root_id in await anyio.to_thread.run_sync(self._client_contexts.kept):
            try:
                # What is not in the store may be admitted at this very moment.
                if (await self._store.rollup_under(root_id)).total:
                    await self.close_tree(root_id)
            except StoreError:
                logger.exception("the environment of tree %s could not be looked at", root_id)

    async def resume(self) -> int:
        """Run every unfinished job again through the graph after a start, and return how many there are.

        Called before clients are: an environment without live jobs is one that an earlier engine did not get to clear.
        """
        by_batch: dict[str, list[Job]] = {}
        for job in await self._store.unfinished():
            by_batch.setdefault(job.batch_id, []).append(job)
            if job.status is JobStatus.RUNNING:
                self._recursion.reserve_adopted(job)
        await self._client_contexts.forget_all_but({jobs[0].root_id for jobs in by_batch.values()})
        for jobs in by_batch.values():
            self._start_soon(self.run_batch, jobs)
        self._start_soon(self._graph.load_soon)
        return sum(map(len, by_batch.values()))

    def stop_admitting(self) -> None:
        """Refuse every submission and start nothing more from now on: the engine leaves."""
        self._leaving = True
        self._recursion.close()

    async def cancel_all(self) -> None:
        """Cancel every live job and return once all of them are over."""
        while live := await self._store.unfinished():
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
        # A request that is cancelled between the transaction and its effects would leave processes that nobody ends.
        with anyio.CancelScope(shield=True):
            cancelled = await self._store.cancel_under(*(job.path for job in jobs), at=self._clock.now())
        for each in cancelled:
            self._recursion.withdraw(each.id)
            if each.cancel_requested:
                self._start_soon(self._runner.cancel, each.id)
        self._announce(cancelled)
        return cancelled

    async def _known(self, job_id: str) -> Job:
        await self._open()
        job = await self._store.job(job_id)
        if job is None:
            raise NotFoundError("Job", job_id)
        return job

    def _prepared(
        self, tasks: Sequence[str | TaskRequest], parent: Job | None, *, client_context: ClientContext, **asked: Any
    ) -> Submission:
        """Check a submission and write down the origin of its new tree, all in one stay in a thread."""
        submission = self._submissions.build(tasks, parent, client_context=client_context, **asked)
        if parent is None:
            # Before the rows: a job on disk whose environment is lost could never be launched.
            self._client_contexts.write(submission.new_root_id, client_context)
        return submission

    async def _admit(self, submission: Submission) -> Admission:
        if submission.parent_id is not None:
            return await self._recursion.admit(submission)
        try:
            admission = await self._recursion.admit(submission)
        except (JobsError, RecursionLimitError):
            self._client_contexts.discard(submission.new_root_id)
            raise
        if not admission.created:
            self._client_contexts.discard(submission.new_root_id)
        return admission

    async def _enter(self, jobs: Sequence[Job]) -> None:
        ids, first = [job.id for job in jobs], jobs[0]
        state = {"tasks": ids, "parent_id": first.parent_id, "depth": first.depth, "root_id": first.root_id}
        await run_isolated(self._graph.ainvoke(state))

    async def _run_job(self, node: Mapping[str, Any]) -> Next:
        """Run one job to its end: the work of a `child` node; a failed job is a status here, never an exception."""
        job_id: str = node["task"]
        # The batch of subtasks is run below its parent's node, and a start or a retry may run it once more.
        async with self._locks.hold(job_id):
            try:
                # Rows and files say where a job is, so its node can begin anew: on a full disk it waits for space here.
                return await retry_while_unavailable(partial(self._advance, job_id), f"running job {job_id}")
            except Exception as error:
                if self._leaving or _is_cancelled():
                    raise
                logger.exception("job %s cannot be followed any more", job_id)
                return await self._abandon(job_id, error)
            finally:
                self._recursion.waves.passed(job_id)

    async def _abandon(self, job_id: str, error: Exception) -> str:
        # Left as it is, it would look as if it ran until the next engine, and nobody would mind its limits.
        why = f"The engine cannot follow it any more ({type(error).__name__}: {error}). Retry it with claude_retry."
        job = await retry_while_unavailable(partial(self._runner.abandon, job_id, why), f"giving job {job_id} up")
        return job.status

    async def _advance(self, job_id: str) -> Next:
        job = await self._store.job(job_id)
        if job is None:
            raise NotFoundError("Job", job_id)
        job = await self._dependencies.wait(job)
        while job.status not in TERMINAL:
            if (children := await self._subtasks(job)) is not None:
                return subtasks_of(children)
            job = await self._run_attempt(job)
        return job.status

    async def _go_on(self, node: Mapping[str, Any], subtasks: object, results: object) -> Next:
        """Go on with a job whose subtasks are over."""
        return await self._run_job(node)

    async def _subtasks(self, job: Job) -> Sequence[Job] | None:
        """Return the live subtasks that the job waits for, admitted if they were not, or None where it may go on."""
        may_wait = job.spec.can_decompose and job.status is JobStatus.QUEUED
        attempt = await resumable_attempt(self._store, job.id, job.attempt) if may_wait else None
        if attempt is None or not attempt.asked_for_subtasks:
            return None
        children = await self._store.jobs_in_batch(subtasks_batch_id(job.id, attempt.number))
        if not children:
            children = await self._admit_subtasks(job, attempt)
        live = any(child.status not in TERMINAL for child in children)
        # After a retry it waits again; otherwise its settlement says that it waits, and this only that it is over.
        now, was = (WaitingFor.CHILDREN, None) if live else (None, WaitingFor.CHILDREN)
        if job.waiting_for is was and (noted := await self._store.set_waiting_for(job.id, now, was=was)):
            self._event_bus.publish(noted)
        return children if live else None

    async def _admit_subtasks(self, job: Job, attempt: Attempt) -> Sequence[Job]:
        wanted = decomposition.read(attempt.frame, attempt.result)
        texts = wanted.tasks if isinstance(wanted, decomposition.SubtaskRequest) else ()
        requests = [subtask_request(text, job) for text in texts]
        batch_id = subtasks_batch_id(job.id, attempt.number)
        try:
            check = partial(
                self._submissions.build, requests, job, client_context=ClientContext(cwd=job.spec.cwd), as_root=False
            )
            submission = await anyio.to_thread.run_sync(check)
            admission = await self._recursion.admit(replace(submission, batch_id=batch_id))
        except (JobsError, RecursionLimitError) as error:
            if isinstance(error, StoreError) and error.transient:
                raise
            logger.info("the subtasks of job %s were refused: %s", job.id, error)
            return ()
        self._announce(admission.jobs)
        return admission.jobs

    async def _run_attempt(self, job: Job) -> Job:
        deadline = self._recursion.deadline(job)
        async with self._recursion.slot(job, deadline=deadline, now=self._clock.now()) as granted:
            if granted:
                await self._runner.start_or_attach(job.id)
                self._recursion.waves.passed(job.id)
            elif (late := await self._recursion.expire(job, deadline, at=self._clock.now())) is not None:
                self._event_bus.publish(late)
            return await self._runner.result(job.id)

    def _announce(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._event_bus.publish(job)


def _is_cancelled() -> bool:
    # What is raised while a cancel passes through belongs to the cancel.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _own_id(task: str, parent_id: str | None, index: int) -> str:
    return task
