"""Protocols of the store, the runner and the launch gate; `jobs.assembly` chooses what implements them. The clock."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from jobs.activity import Activity
from jobs.model import Attempt, Batch, DaySpending, Job, JobStatus, Outcome, Rollup, Tree
from jobs.paused import EndedPause, PausedPath
from jobs.spec import JobSpec
from jobs.waiting_for import WaitingFor
from orchestration.limits import SpawnFacts

LAST_ATTEMPTS: Final = 20
"""Most attempts of a job that are shown in a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job that is to be admitted.

    Args:
        id: Chosen by the caller, so that siblings can name each other in `spec.depends_on`.
        spec: What is asked.
    """

    id: str
    spec: JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Jobs that are to be admitted together, all or none.

    Args:
        batch_id: Id for the batch.
        jobs: At least one.
        parent_id: The job that spawns them, or None for a new tree.
        as_root: With no parent: the one job is the root itself, at depth 0. Otherwise the batch is the root, and its
            jobs are at depth 1.
        idempotency_scope: Whose idempotency keys these are: the spawning job's id, or the client's name.
        idempotency_key: A submission of the same caller with the same key is admitted once; None for no key.
        request_digest: What tells whether a second submission with the key asks for the same, or None where nothing
            does; see `jobs.submissions`.
        client: Who asked, for a person to read, or None.
        max_budget_usd: For a new tree: most US dollars for the whole of it, or None.
        deadline: For a new tree: seconds since the epoch after which nothing of it may run, or None.
        at: Seconds since the epoch.
    """

    batch_id: str
    jobs: Sequence[NewJob]
    parent_id: str | None = None
    as_root: bool = False
    idempotency_scope: str = ""
    idempotency_key: str | None = None
    request_digest: str | None = None
    client: str | None = None
    max_budget_usd: float | None = None
    deadline: float | None = None
    at: float = 0.0

    @property
    def new_tree(self) -> Tree:
        """The tree that a submission without parent begins."""
        return Tree(
            id=self.jobs[0].id if self.as_root else self.batch_id,
            created_at=self.at,
            client=self.client,
            max_budget_usd=self.max_budget_usd,
            deadline=self.deadline,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Result of an admission.

    Args:
        batch: The batch.
        jobs: Its jobs, in the order of the submission.
        created: False where the idempotency key had been used: these are the earlier batch and jobs.
    """

    batch: Batch
    jobs: Sequence[Job]
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLimits:
    """Limits of a tree, a job with all below it, or a batch that a person sets; None leaves one as it is.

    Args:
        budget_usd: Most US dollars in all, what has been spent included.
        deadline: Seconds since the epoch after which nothing of it may run.
        max_jobs: Most jobs below it, those that there are included.
        max_concurrent: Most jobs that run at once: of a batch its own, of a job itself and all below it.
    """

    budget_usd: float | None = None
    deadline: float | None = None
    max_jobs: int | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """A tree whose limits, or those of a part of it, were changed.

    Args:
        tree: The tree as it is now.
        jobs: The jobs that changed with it, as they are now.
    """

    tree: Tree
    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionFacts:
    """State of a tree at the moment of a spawn, read inside the transaction that admits it.

    Args:
        spawn: Counts, for the limits of a tree.
        submission: What is asked.
        tree: The tree, as it will be where it is new.
        ancestors: The parent and its ancestors, the root first; empty for a new tree.
    """

    spawn: SpawnFacts
    submission: Submission
    tree: Tree
    ancestors: Sequence[Job] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTree:
    """A tree that is over.

    Args:
        id: Its root.
        ended_at: Seconds since the epoch at which its last job ended.
        jobs: How many jobs it has.
    """

    id: str
    ended_at: float
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRows:
    """The trees in which a job is queued or running.

    Args:
        trees: The trees.
        jobs: Their jobs, those that are over too, in order of admission.
        attempts: The attempts that run.
    """

    trees: Sequence[Tree]
    jobs: Sequence[Job]
    attempts: Sequence[Attempt]


SpawnCheck = Callable[[AdmissionFacts], None]
"""Raises where the facts, read inside the admitting transaction, forbid the spawn. It may run on the store's own thread
while the transaction is open, so it must be quick and may not wait; where the transaction has to start again,
it runs once more."""


class Store(Protocol):
    """Durable store of trees. Every method is one transaction: when it returns, its effect is on disk.

    A call that is cancelled has done the whole of its work or none; which of the two, the next read tells. Every method
    raises `StoreError` where the storage fails; nothing was changed then.
    """

    async def admit(self, submission: Submission, check: SpawnCheck) -> Admission:
        """Write a batch and its jobs, all queued, unless `check` raises on the facts of the tree.

        A key that this caller has used before returns the earlier batch, with its jobs as they are now, before anything
        else is looked at.

        Raises:
            IdempotencyKeyError: The key was used for a request with another digest.
            NotFoundError: Unknown parent.
            TreeClosedError: The parent is over, or a cancel of it or of an ancestor has been requested, or an ancestor
                is cancelled.
            RecursionLimitError: Raised by `check`; nothing is written.
            StoreError: Among other causes, an id is taken.
        """
        ...

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
        """Move a queued job to running with a new attempt; None where it is queued no more, or does not exist.

        Clears what the last attempt left on the job: reason, error and excerpt.
        """
        ...

    async def record_launch(self, job_id: str, attempt: int, *, pid: int, pid_start: float) -> None:
        """Note which process runs the attempt; does nothing where there is no such attempt.

        Returns at once, unlike the other writes: the note is on disk with the next write, at the latest after about a
        second, and reads tell it from now on. A crash before that loses it.
        """
        ...

    async def settle(self, job_id: str, attempt: int, outcome: Outcome, *, at: float) -> Job:
        """Write how the attempt ended and the status it leads to, and revoke its token.

        The outcome's usage is added to the job's. With `JobStatus.QUEUED` as the outcome's status the job is queued
        again and keeps its session, its reason and its error; where its cancel has been requested it becomes cancelled
        instead.

        Raises:
            NotFoundError: Unknown job.
            IllegalTransitionError: The job is not running, or another attempt of it is, or a running job cannot take
                the outcome's status.
        """
        ...

    async def fail_queued(self, job_id: str, outcome: Outcome, *, at: float) -> Job | None:
        """Settle a job that waits, as failed or cancelled; None where it is queued no more, or does not exist.

        Raises:
            IllegalTransitionError: The outcome's status is neither of the two.
        """
        ...

    async def set_waiting_for(
        self, job_id: str, now: WaitingFor | None, *, was: WaitingFor | None = None
    ) -> Job | None:
        """Note that a live job begins to wait, or waits no more, and return it as it is then.

        None, and no change, where it does not wait for `was`, or where its status does not go with it: a job that waits
        for a permission runs, and any other is queued. A claim and every end of an attempt end a wait too.

        Args:
            job_id: The job.
            now: What it waits for from now on, one of those that are stored, or None.
            was: What it waited for until now.
        """
        ...

    async def cancel_under(self, *paths: str, at: float) -> Sequence[Job]:
        """Cancel the subtrees at `paths` together: queued jobs are settled, running ones marked, the others left alone.

        Returns the jobs that this call changed, as they are now, in order of admission.
        """
        ...

    async def requeue(self, job_id: str) -> Job | None:
        """Move a failed, timed-out or cancelled job back to queued for a retry; None from any other status.

        None also where a job above it still runs and its cancel has been requested: a retry must not outlive the order.

        Forgets the order to cancel, the reason, the error and the excerpt; keeps session, usage and number of attempts.
        """
        ...

    async def pause(self, rows: Sequence[PausedPath]) -> Sequence[PausedPath]:
        """Write down that parts of the trees are paused, and return the pauses as they are then.

        One that is there already keeps the moment when it began, stays a person's, and goes on ending what runs.
        """
        ...

    async def unpause(self, paths: Sequence[str], *, at: float) -> None:
        """End the pauses of exactly these paths; paths without one change nothing.

        Args:
            paths: The paths.
            at: Seconds since the epoch.
        """
        ...

    async def paused(self) -> Sequence[PausedPath]:
        """Return the pauses, the oldest first."""
        ...

    async def ended_pauses(self, root_id: str) -> Sequence[EndedPause]:
        """Return the ended pauses of a tree, of its parts and of everything since it began, the oldest first.

        Of a path that was paused very often only the last ones are kept.
        """
        ...

    async def set_limits(self, identity: str, limits: NewLimits, *, at: float) -> Limited | None:
        """Set limits of a job with all below it, or of a batch; None where there is no such job or batch.

        A job that is its tree's root, and a batch that is, set the tree's limits too. A batch that is no root has no
        limit but `max_concurrent`: the others are left out.

        Args:
            identity: Id of a job or a batch.
            limits: The limits.
            at: Seconds since the epoch.
        """
        ...

    async def job(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        ...

    async def task(self, job_id: str) -> str | None:
        """Return the whole text of a job's task, or None where there is no such job."""
        ...

    async def jobs(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Return the jobs that exist among these, in the order asked."""
        ...

    async def jobs_in_batch(self, batch_id: str) -> Sequence[Job]:
        """Return a batch's jobs in the order of their submission."""
        ...

    async def jobs_under(self, path: str) -> Sequence[Job]:
        """Return every job whose path is `path` or lies below it, in order of admission."""
        ...

    async def newest_jobs(
        self,
        *,
        limit: int,
        before_seq: int | None = None,
        status: JobStatus | None = None,
        path: str | None = None,
    ) -> Sequence[Job]:
        """Return at most `limit` jobs, newest first.

        Args:
            limit: Most jobs.
            before_seq: Only jobs of a lower `seq`, or None.
            status: Only jobs of this status, or None.
            path: Only jobs whose path is this or lies below it, or None.
        """
        ...

    async def ids_from(self, beginning: str, *, limit: int, path: str | None = None) -> Sequence[str]:
        """Return at most `limit` ids of jobs and of their batches with this prefix, those of the newest jobs first.

        Args:
            beginning: What the ids begin with; nothing for all.
            limit: Most ids.
            path: Only of jobs whose path is this or lies below it, or None.
        """
        ...

    async def unfinished(self) -> Sequence[Job]:
        """Return every job that is queued or running, in order of admission."""
        ...

    async def live_rows(self) -> LiveRows:
        """Return everything of the trees in which a job is queued or running, however many they are, in three reads."""
        ...

    async def has_unfinished(self) -> bool:
        """Tell whether a job is queued or running."""
        ...

    async def batch(self, batch_id: str) -> Batch | None:
        """Return a batch, or None."""
        ...

    async def tree(self, root_id: str) -> Tree | None:
        """Return a tree, or None."""
        ...

    async def rollup_under(self, path: str) -> Rollup:
        """Sum up every job whose path is `path` or lies below it."""
        ...

    async def rollup_batch(self, batch_id: str) -> Rollup:
        """Sum up a batch's jobs and everything below them."""
        ...

    async def rollup_all(self) -> Rollup:
        """Sum up every job of every tree."""
        ...

    async def ended_trees(self, *, before: float) -> Sequence[EndedTree]:
        """Return the trees whose last job ended before this time, the longest ended first."""
        ...

    async def delete_tree(self, root_id: str) -> bool:
        """Forget a tree and everything in it; False where it has live jobs or is not there."""
        ...

    async def shrink(self) -> None:
        """Give the space of what has been forgotten back to the disk, in many short transactions."""
        ...

    async def attempt(self, job_id: str, number: int) -> Attempt | None:
        """Return one attempt, or None."""
        ...

    async def attempts_of(self, job_ids: Sequence[str]) -> Sequence[Attempt]:
        """Return the last `LAST_ATTEMPTS` attempts of these jobs, without token, answer and frame.

        They come in the order asked, those of a job by number.
        """
        ...

    async def spending(self, since: str) -> Sequence[DaySpending]:
        """Return what accounts have spent since a local day, "2026-11-30"; it outlives the jobs."""
        ...

    async def caller(self, token_hash: str) -> Job | None:
        """Return the running job that holds this token, or None."""
        ...


class Runner(Protocol):
    """Runs a job somewhere; keyed by the job's id, so that asking twice attaches to what runs already."""

    async def run(self, job_id: str, on_launched: Callable[[], None] = lambda: None) -> Job:
        """Run one attempt of a job to its end, or the rest of one that runs already; return the job as it is then.

        Args:
            job_id: The job.
            on_launched: Called once it runs, or never will.
        """
        ...

    async def cancel(self, job_id: str) -> None:
        """End the job's process; `run` then returns. Does nothing where nothing runs."""
        ...

    def apply_limits(self, path: str) -> None:
        """Apply limits that a person has changed to what runs at and below a path; a used-up budget ends it."""
        ...

    def end_paused(self) -> None:
        """End what runs where a pause ends it; `run` then returns, with the job queued."""
        ...

    async def abandon(self, job_id: str, why: str) -> Job:
        """Fail a job that cannot be followed any more, and end what runs of it once that is written; return the job."""
        ...

    def activity(self, job_id: str) -> Activity | None:
        """Return what a job does now; None where no attempt of it runs."""
        ...


class LaunchGate(Protocol):
    """Decides whether a job that has a slot may be launched now."""

    def admits(self, running: int) -> bool:
        """Tell whether the machine has room for one more launch while this number of jobs runs."""
        ...

    def admits_of(self, account: str, running: int) -> bool:
        """Tell whether one more job of an account may be launched while this number of them runs."""
        ...

    def launching(self, job_id: str) -> None:
        """Note that a job is about to be launched."""
        ...

    def started(self, job_id: str) -> None:
        """Note that a job's process has spoken or that the job is over; a second note changes nothing."""
        ...


class Clock:
    """Time: the system's clocks, for which a test gives others."""

    def now(self) -> float:
        """Return seconds since the epoch, for records that people read."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump, for deadlines."""
        return time.monotonic()
