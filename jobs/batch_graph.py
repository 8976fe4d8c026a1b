"""The LangGraph graph that runs every batch, and a job as its node: attempts and subtasks until the job is over."""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.to_thread

from jobs.assembly import Parts
from jobs.errors import JobsError, NotFoundError, StoreError
from jobs.ids import subtasks_batch_id
from jobs.model import TERMINAL, Attempt, Job, JobStatus
from jobs.prompts import decomposition
from jobs.prompts.dependencies import DependencyWaiter
from jobs.runner.launch_plan import resumable_attempt
from jobs.submissions import Submissions
from jobs.util.keyed import KeyedLock
from jobs.util.retrying import retry_while_unavailable
from jobs.waiting_for import WaitingFor
from orchestration.isolation import run_isolated
from orchestration.limits import RecursionLimitError

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from orchestration.patterns import Subtasks

logger = logging.getLogger(__name__)

Next: TypeAlias = "str | Subtasks"
"""Result of a node of the graph: a job's status, or the jobs that must run before it goes on."""

HEAD_START = 0.5
"""Seconds that an engine has for its first clients before it loads the graph unasked: the import takes a second of a
core (measured), as long as all else of a start."""

_PATTERNS = "orchestration.patterns"


class JobNode:
    """Runs one job as a node of the graph, and goes on with it when its subtasks are over.

    It keeps no state between two calls: the rows of the store say where a job is.

    Args:
        parts: The parts of the manager.
        submissions: Admits the subtasks that a job asks for.
        is_stopping: Tells whether the engine is stopping, so that what fails now fails for that reason.
    """

    def __init__(self, parts: Parts, submissions: Submissions, is_stopping: Callable[[], bool]) -> None:
        self._store = parts.store
        self._runner = parts.runner
        self._recursion = parts.recursion
        self._event_bus = parts.event_bus
        self._clock = parts.clock
        self._submissions = submissions
        self._is_stopping = is_stopping
        self._dependencies = DependencyWaiter(parts.store, parts.event_bus, parts.clock)
        self._locks = KeyedLock()

    async def run(self, node: Mapping[str, Any], *_: object) -> Next:
        """Run one job on to its end: the work of a `child` node; a failed job is a status here, never an exception."""
        job_id: str = node["task"]
        # The batch of subtasks runs below its parent's node, and a start or a retry may run it once more.
        async with self._locks.hold(job_id):
            try:
                # Rows and files hold a job's state, so its node can start again; on a full disk it waits here.
                return await retry_while_unavailable(partial(self._advance, job_id), f"running job {job_id}")
            except Exception as error:
                if self._is_stopping() or _is_cancelled():
                    raise
                logger.exception("job %s cannot be followed any more", job_id)
                return await self._abandon(job_id, error)
            finally:
                self._recursion.waves.left_queue(job_id)

    async def _abandon(self, job_id: str, error: Exception) -> str:
        # Left as it is, it would count as running until the next engine, and its limits would not be enforced.
        why = f"The engine cannot follow it any more ({type(error).__name__}: {error}). Retry it with claude_retry."
        job = await retry_while_unavailable(partial(self._runner.abandon, job_id, why), f"giving job {job_id} up")
        return job.status

    async def _advance(self, job_id: str) -> Next:
        job = await self._dependencies.wait(await self._job(job_id))
        while job.status not in TERMINAL:
            if (children := await self._subtasks(job)) is not None:
                # Imported here: it is loaded already where a node runs.
                from orchestration.patterns import Subtasks

                return Subtasks(tasks=[child.id for child in children])
            job = await self._run_attempt(job)
        return job.status

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
        # After a retry it waits again; otherwise settling the attempt has set the wait, and this only ends it.
        now, was = (WaitingFor.CHILDREN, None) if live else (None, WaitingFor.CHILDREN)
        if job.waiting_for is was and (noted := await self._store.set_waiting_for(job.id, now, was=was)):
            self._event_bus.publish(noted)
        return children if live else None

    async def _admit_subtasks(self, job: Job, attempt: Attempt) -> Sequence[Job]:
        wanted = decomposition.read(attempt.frame, attempt.result)
        texts = wanted.tasks if isinstance(wanted, decomposition.SubtaskRequest) else ()
        try:
            admission = await self._submissions.submit_subtasks(job, subtasks_batch_id(job.id, attempt.number), texts)
        except (JobsError, RecursionLimitError) as error:
            if isinstance(error, StoreError) and error.transient:
                raise
            logger.info("the subtasks of job %s were refused: %s", job.id, error)
            return ()
        for child in admission.jobs:
            self._event_bus.publish(child)
        return admission.jobs

    async def _run_attempt(self, job: Job) -> Job:
        deadline = self._recursion.ledger.deadline(job)
        async with self._recursion.slot(job, deadline=deadline, now=self._clock.now()) as granted:
            if granted:
                return await self._runner.run(job.id, partial(self._recursion.waves.left_queue, job.id))
            if (late := await self._recursion.expire(job, deadline, at=self._clock.now())) is not None:
                self._event_bus.publish(late)
        return await self._job(job.id)

    async def _job(self, job_id: str) -> Job:
        job = await self._store.job(job_id)
        if job is None:
            raise NotFoundError("Job", job_id)
        return job


class BatchGraph:
    """A recursive graph that is compiled at its first use.

    Args:
        node: Runs each job.
    """

    def __init__(self, node: JobNode) -> None:
        self._node = node
        self._loading = anyio.Lock()
        self._compiled: CompiledStateGraph[Any] | None = None

    async def run(self, jobs: Sequence[Job]) -> None:
        """Run jobs of one batch until each is over."""
        graph, first = await self._load(), jobs[0]
        ids = [job.id for job in jobs]
        await run_isolated(
            graph.ainvoke({"tasks": ids, "parent_id": first.parent_id, "depth": first.depth, "root_id": first.root_id})
        )

    async def load_soon(self) -> None:
        """Load the graph after `HEAD_START`, so that a later batch does not wait for it."""
        await anyio.sleep(HEAD_START)
        await self._load()

    async def _load(self) -> "CompiledStateGraph[Any]":
        if self._compiled is None:
            async with self._loading:
                if self._compiled is None:
                    patterns: Any = sys.modules.get(_PATTERNS)
                    # A module that another thread is importing is listed already, but lacks some of its names.
                    if not hasattr(patterns, "RecursiveOrchestrationPattern"):
                        patterns = await anyio.to_thread.run_sync(_import_patterns)
                    self._compiled = patterns.RecursiveOrchestrationPattern.create_recursive_graph(
                        work=self._node.run, resume=self._node.run, identify=lambda task, parent_id, index: task
                    )
        return self._compiled


def _import_patterns() -> Any:
    patterns = import_module(_PATTERNS)
    # Imported modules are never garbage; each full collection would walk through them.
    gc.freeze()
    return patterns


def _is_cancelled() -> bool:
    # What is raised while a cancel propagates belongs to the cancel.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
