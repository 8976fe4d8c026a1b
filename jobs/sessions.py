"""Continues jobs that are over: sends a message to a job's session, or retries jobs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio

from jobs.client_context import ClientContext, ClientContextStore
from jobs.errors import BadInputError, NotFinishedError, StoreError
from jobs.event_bus import JobEventBus
from jobs.manager import EnhancedJobManager
from jobs.model import LIVE, Job, JobStatus
from jobs.ports import Admission, Store
from jobs.spec import RIGHTS, SESSION_OPTIONS, TaskRequest, values

_KEPT = (*RIGHTS, *SESSION_OPTIONS)
"""Fields that a further message to a session takes from the job before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryResult:
    """Result of a retry.

    Args:
        restarted: Jobs that this call queued again, in order of admission.
        live: Jobs that were queued or running already.
        busy: Ids of jobs that were left as they are, with the id of the live job that goes on with the session of each.
    """

    restarted: tuple[Job, ...]
    live: tuple[Job, ...]
    busy: Mapping[str, str] = field(default_factory=dict)


class SessionService:
    """Continues sessions and retries jobs.

    Args:
        store: Where trees are kept.
        manager: Admits and runs.
        client_contexts: Where each tree's client environment is kept.
        event_bus: Where changes of jobs are announced.
        start_soon: Starts a coroutine function in the engine's task group.
    """

    def __init__(
        self,
        *,
        store: Store,
        manager: EnhancedJobManager,
        client_contexts: ClientContextStore,
        event_bus: JobEventBus,
        start_soon: Callable[..., object],
    ) -> None:
        self._store = store
        self._manager = manager
        self._client_contexts = client_contexts
        self._event_bus = event_bus
        self._start_soon = start_soon
        # Two messages to one session must not both find it free.
        self._sending = anyio.Lock()

    async def send(
        self,
        job: Job,
        message: TaskRequest,
        *,
        parent_id: str | None,
        client_context: ClientContext,
        idempotency_key: str | None = None,
    ) -> Admission:
        """Start a new job that goes on with the session of one that is over, in its directory and with its rights.

        Args:
            job: Whose session.
            message: What it is told; its rights and the options that belong to a session are those of the job. With
                `fork_session` it is told to a copy, and the session itself stays as it is.
            parent_id: The calling job, below which the new one will be, or None for a new tree.
            client_context: For a new tree: the client that asks.
            idempotency_key: A second message of the same caller with this key is the first one, or None.

        Raises:
            NotFinishedError: The job is not over.
            BadInputError: It never had a session, or another live job goes on with it, or the message cannot be used.
            RightsError: It has wider rights than the calling job.
            RecursionLimitError: A total of the tree would be exceeded.
            BudgetError: A budget above has no room.
            TreeClosedError: The calling job is over or being cancelled, or is below one that was cancelled.
            EngineStoppingError: The engine is stopping.
            StoreError: It cannot be written down now; nothing was started.
        """
        async with self._sending:
            session = await self._free_session(job, message, idempotency_key)
            return await self._manager.submit(
                [replace(message, **values(job.spec, _KEPT), resume_session=session)],
                parent_id,
                client_context=replace(client_context, cwd=job.spec.cwd),
                as_root=True,
                idempotency_key=idempotency_key,
            )

    async def retry(self, jobs: Sequence[Job], *, client_context: ClientContext) -> RetryResult:
        """Queue those of the jobs again that failed, timed out or were cancelled, and run them.

        Args:
            jobs: One job, or all of a subtree or batch.
            client_context: The client that asks: a tree that was over gets its environment.

        Raises:
            BadInputError: Each of them has completed, or other jobs go on with their sessions, or a job above them is
                being cancelled.
            StoreError: The client context could not be kept, or a job not be queued; what was queued by then runs.
        """
        # A request that is cancelled half-way must not leave queued jobs that never run.
        with anyio.CancelScope(shield=True):
            async with self._sending:
                retried = await self._retried(await self._store.jobs([job.id for job in jobs]), client_context)
        return retried

    async def _retried(self, jobs: Sequence[Job], client_context: ClientContext) -> RetryResult:
        live = tuple(job for job in jobs if job.status in LIVE)
        ended = [job for job in jobs if job.status not in LIVE and job.status is not JobStatus.COMPLETED]
        if not ended and not live:
            raise BadInputError(
                "jobId", "nothing there has failed", "Read it with claude_result, or go on with claude_send."
            )
        free, busy = await self._sorted_by_session(ended)
        again: list[Job] = []
        for root_id in dict.fromkeys(job.root_id for job in free):
            again += await self._revive(root_id, [job for job in free if job.root_id == root_id], client_context)
        if not (again or live or busy):
            raise BadInputError(
                "jobId",
                "a job above it is being cancelled",
                "Call claude_wait until that one is over, then call again.",
            )
        return RetryResult(restarted=tuple(again), live=live, busy=busy)

    async def _revive(self, root_id: str, jobs: Sequence[Job], client_context: ClientContext) -> Sequence[Job]:
        """Queue jobs of one tree again, return those that were queued, and run them."""
        again: list[Job] = []
        try:
            # The end of the tree's other jobs would remove the client context before the first job is queued.
            async with self._client_contexts.hold(root_id):
                # First: a queued job whose client context could not be kept would fail at its launch.
                await self._keep_origin(root_id, client_context)
                for job in jobs:
                    queued = await self._store.requeue(job.id)
                    if queued is not None:
                        again.append(queued)
        finally:
            # Those that were queued before the store failed run all the same.
            self._run(again)
            if not again:
                await self._client_contexts.forget_if_ended(self._store, root_id)
        return again

    async def _sorted_by_session(self, jobs: Sequence[Job]) -> tuple[Sequence[Job], Mapping[str, str]]:
        """Return the jobs whose session is free, and for each other job the id of the one that holds its session."""
        held = {session: current.id for session, current in (await self._jobs_in_sessions()).items()}
        free: list[Job] = []
        busy: dict[str, str] = {}
        for job in jobs:
            sessions = _sessions(job)
            if current_ids := [held[session] for session in sessions if session in held]:
                busy[job.id] = current_ids[0]
            else:
                free.append(job)
                held |= dict.fromkeys(sessions, job.id)
        if jobs and not free:
            current = busy[jobs[0].id]
            raise BadInputError(
                "jobId",
                f"job {current} works in its session now",
                f"Call claude_wait with jobIds ['{current}'] first, then call again.",
            )
        return free, busy

    async def _free_session(self, job: Job, message: TaskRequest, key: str | None) -> str:
        if job.status in LIVE:
            raise NotFinishedError(job.id, job.status)
        session = job.session_id
        if session is None:
            raise BadInputError("jobId", f"job {job.id} never had a session", "Start a new job with claude_run_async.")
        current = None if message.fork_session else (await self._jobs_in_sessions()).get(session)
        if current is not None and not await self._sent_before(message, key, current):
            raise BadInputError(
                "jobId",
                f"job {current.id} works in this session now",
                f"Call claude_wait with jobIds ['{current.id}'] first, or give fork: true.",
            )
        return session

    async def _jobs_in_sessions(self) -> dict[str, Job]:
        """Return the live job that writes to each session, or will."""
        return {session: job for job in await self._store.unfinished() for session in _sessions(job)}

    async def _sent_before(self, message: TaskRequest, key: str | None, current: Job) -> bool:
        batch = await self._store.batch(current.batch_id)
        return (
            batch is not None
            and batch.idempotency_key is not None
            and batch.idempotency_key == key
            and await self._store.task(current.id) == message.task
        )

    async def _keep_origin(self, root_id: str, client_context: ClientContext) -> None:
        try:
            self._client_contexts.load(root_id)
        except StoreError:
            await self._client_contexts.save(root_id, client_context)

    def _run(self, jobs: Sequence[Job]) -> None:
        by_batch: dict[str, list[Job]] = {}
        for job in jobs:
            self._event_bus.publish(job)
            by_batch.setdefault(job.batch_id, []).append(job)
        for batch in by_batch.values():
            self._start_soon(self._manager.run_batch, batch)


def _sessions(job: Job) -> set[str]:
    """Return the sessions that a job writes to when it runs, before its first attempt too."""
    asked = None if job.spec.fork_session else job.spec.resume_session
    return {session for session in (job.session_id, asked) if session is not None}
