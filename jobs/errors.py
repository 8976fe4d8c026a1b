"""The errors of jobs: exceptions whose fields build their own message.

JobsError
├── BadInputError            what the caller gave cannot be used
├── NotFoundError            no such job, batch or tree (or not one of the caller's)
├── IdempotencyKeyError      the key was used for another request
├── OwnJobError              a job asked for what it can only have once it is over
├── NotFinishedError         a result was asked for before there is one
├── JobFailedError           a result was asked for, and the job has none
├── TreeClosedError          the tree was cancelled, so nothing more may be spawned in it
├── IllegalTransitionError   a status was to move where the state machine has no arrow
├── EngineStoppingError      the engine is stopping, and starts nothing more
├── ManagerClosedError       a standalone manager was closed
├── ClaudeNotFoundError      no `claude` binary on this machine
├── ClaudeTooOldError        the `claude` that was found is too old
├── StoreError               the database cannot be read or written now
│   └── DiskFullError        nothing new is started until there is space
└── SchemaTooNewError        the database was written by a newer version

`orchestration.limits.RecursionLimitError` is the fourteenth: the rules of a tree are older than its jobs.
"""

from collections.abc import Sequence

from orchestration.limits import RecursionLimitError

__all__ = [
    "BadInputError",
    "ClaudeNotFoundError",
    "ClaudeTooOldError",
    "DiskFullError",
    "EngineStoppingError",
    "IdempotencyKeyError",
    "IllegalTransitionError",
    "JobFailedError",
    "JobsError",
    "ManagerClosedError",
    "NotFinishedError",
    "NotFoundError",
    "OwnJobError",
    "RecursionLimitError",
    "SchemaTooNewError",
    "StoreError",
    "TreeClosedError",
]


_SHOWN_OF_AN_ID = 80
_SHOWN_JOBS = 3
_SHOWN_OF_A_PROBLEM = 400


class JobsError(Exception):
    """Base class of the exceptions that this package raises on purpose."""


class EngineStoppingError(JobsError):
    """The engine is stopping, and starts nothing more."""

    def __init__(self) -> None:
        super().__init__("The engine is stopping and starts no more jobs. Repeat the call: the next engine answers it.")


class ManagerClosedError(JobsError):
    """A standalone manager was closed, and its jobs are gone."""

    def __init__(self) -> None:
        super().__init__("This manager is closed. Read results before the close, and make another one for more jobs.")


class BadInputError(JobsError):
    """What the caller gave cannot be used.

    Args:
        field: Name of the argument as the caller spells it.
        problem: What is wrong with it, in a few words.
        remedy: What to do next, as a sentence.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        self.field = field
        self.problem = problem
        self.remedy = remedy
        # It may quote an input of any length; the remedy must still be readable.
        said = problem if len(problem) <= _SHOWN_OF_A_PROBLEM else f"{problem[:_SHOWN_OF_A_PROBLEM]}…"
        super().__init__(f"{field}: {said}. {remedy}")


class NotFoundError(JobsError):
    """No such job, batch or tree, or none that the caller may see: the two answer alike.

    Args:
        kind: "Job", "Batch" or "Tree".
        id: What was asked for.
    """

    def __init__(self, kind: str, id: str) -> None:  # noqa: A002 - the field's own name
        self.kind = kind
        self.id = id
        super().__init__(f"{kind} {self.shown} not found")

    @property
    def shown(self) -> str:
        """The id, cut for a sentence: what a caller takes for one may be of any length."""
        return self.id if len(self.id) <= _SHOWN_OF_AN_ID else f"{self.id[:_SHOWN_OF_AN_ID]}…"


class IdempotencyKeyError(JobsError):
    """A caller used an idempotency key a second time, for another request than the first time.

    Args:
        key: The key.
        batch_id: The batch that the first request became.
        job_ids: Its jobs.
    """

    def __init__(self, key: str, batch_id: str, job_ids: Sequence[str]) -> None:
        self.key = key
        self.batch_id = batch_id
        self.job_ids = tuple(job_ids)
        more = f" and {len(job_ids) - _SHOWN_JOBS} more" if len(job_ids) > _SHOWN_JOBS else ""
        super().__init__(
            f"idempotencyKey: {key[:_SHOWN_OF_AN_ID]!r} was used before for a different request, which became batch "
            f"{batch_id} (jobs {', '.join(job_ids[:_SHOWN_JOBS])}{more}). Nothing was started. "
            "Give this request another key, or read those jobs with claude_status."
        )


class OwnJobError(JobsError):
    """A job asked about itself what is only known once it is over.

    Args:
        job_id: The job that asks.
        what: What it asked for, as an infinitive.
        remedy: What to do instead, as a sentence.
    """

    def __init__(self, job_id: str, what: str, remedy: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"Job {job_id} is the job that makes this call, and it is not over. It cannot {what}. {remedy}"
        )


class NotFinishedError(JobsError):
    """A result was asked for before there is one.

    Args:
        job_id: The job that still runs or waits.
        status: Its status.
        why: Why it waits and until when, or an empty text.
    """

    def __init__(self, job_id: str, status: str, why: str = "") -> None:
        self.job_id = job_id
        self.status = status
        # The older server had no queue, and its callers match on these words.
        line = " (queued)" if status == "queued" else ""
        because = f"; {why}" if why else ""
        super().__init__(
            f"Job is still running{line}{because}. Call claude_wait with jobIds [{job_id!r}], then ask again."
        )


class JobFailedError(JobsError):
    """A result was asked for, and the job ended without one.

    Args:
        job_id: The job.
        status: How it ended.
        detail: The reason and the explanation that the job left.
        reason: The reason alone, of `jobs.model.Reason`, or None.
    """

    def __init__(self, job_id: str, status: str, detail: str, reason: str | None = None) -> None:
        self.job_id = job_id
        self.status = status
        self.reason = reason
        self.detail = detail
        super().__init__(f"Job {status}: {detail}")


class TreeClosedError(JobsError):
    """The parent or an ancestor of it was cancelled or is over, so nothing more may be spawned below it.

    Args:
        parent_id: The job that wanted to spawn.
        status: Its status.
    """

    def __init__(self, parent_id: str, status: str) -> None:
        self.parent_id = parent_id
        self.status = status
        super().__init__(f"Job {parent_id} is {status}, so it cannot spawn. Finish with what you have.")


class IllegalTransitionError(JobsError):
    """A job's status was to change in a way that the state machine does not have.

    Args:
        job_id: The job.
        current: Its status.
        requested: The status that it was to take.
    """

    def __init__(self, job_id: str, current: str, requested: str) -> None:
        self.job_id = job_id
        self.current = current
        self.requested = requested
        super().__init__(f"Job {job_id} is {current} and cannot become {requested}.")


class ClaudeNotFoundError(JobsError):
    """No `claude` binary was found.

    Args:
        looked: The places that were looked at, in order.
        transient: One was there a moment ago, or a link leads to one, so an update may bring it back.
        is_chosen: A person chose it, so that no other one is looked for.
    """

    def __init__(self, looked: tuple[str, ...], *, transient: bool = False, is_chosen: bool = False) -> None:
        self.looked = looked
        self.transient = transient
        self.is_chosen = is_chosen
        remedy = (
            "Correct CLAUDE_JOBS_CLI, or `cli` in config.toml, or unset it"
            if is_chosen
            else "Install Claude Code, or `pip install 'claude-jobs[cli]'`, or set CLAUDE_JOBS_CLI to its path"
        )
        super().__init__(f"No claude binary (looked at: {', '.join(looked)}). {remedy}; then call again.")


class ClaudeTooOldError(JobsError):
    """Every `claude` that was found is too old to run a job.

    Args:
        found: What was found, in order, each as "PATH (VERSION)".
        needed: The oldest version that works.
    """

    def __init__(self, found: tuple[str, ...], needed: str) -> None:
        self.found = found
        self.needed = needed
        super().__init__(
            f"Claude Code is too old: {', '.join(found)}; {needed} or newer is needed. Run `claude update`, or "
            "`pip install 'claude-jobs[cli]'` and unset CLAUDE_JOBS_CLI; then call again."
        )


class StoreError(JobsError):
    """The database cannot be read or written now.

    Args:
        operation: What was being done.
        cause: What the database said.
        transient: The storage refuses for now, as a full disk does: the same call may succeed later.
    """

    def __init__(self, operation: str, cause: str, *, transient: bool = False) -> None:
        self.operation = operation
        self.cause = cause
        self.transient = transient
        super().__init__(
            f"The job store could not {operation}: {cause}. Nothing was changed; free disk space or check the state "
            "directory with `claude-jobs doctor`, then call again."
        )


class DiskFullError(StoreError):
    """The disk is full, so nothing new is started; what runs goes on, and its end is kept.

    Args:
        operation: What was being done.
    """

    def __init__(self, operation: str) -> None:
        super().__init__(operation, "the disk with the state directory is full", transient=True)


class SchemaTooNewError(JobsError):
    """The database was written by a newer version of this package.

    Args:
        found: Schema version of the file.
        known: Newest schema version known here.
    """

    def __init__(self, found: int, known: int) -> None:
        self.found = found
        self.known = known
        super().__init__(f"The job store has schema {found}, this version knows {known}. Upgrade claude-jobs.")
