"""Data model: jobs, batches, trees and attempts, and the state machine of a job's status."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, get_args

from jobs.spec import JobSpec
from jobs.waiting_for import AttemptWait, WaitingFor

PermissionMode = Literal["plan", "dontAsk", "manual", "default", "acceptEdits", "auto", "bypassPermissions"]
"""The CLI's permission modes, the narrowest first. `manual` is the name of 2.1.330 for what it reports as `default`; it
takes both (measured)."""

PERMISSION_MODES: tuple[PermissionMode, ...] = get_args(PermissionMode)


class JobStatus(StrEnum):
    """Status of a job."""

    QUEUED = "queued"
    """Admitted and on disk; the scheduler claims it when a slot is free."""
    RUNNING = "running"
    """An attempt is under way; its end, a time-out or a cancel moves it on."""
    COMPLETED = "completed"
    """The last attempt answered; nothing moves it on."""
    FAILED = "failed"
    """The last attempt ended without an answer; only a retry moves it on."""
    TIMEOUT = "timeout"
    """The last attempt was ended at its deadline; only a retry moves it on."""
    CANCELLED = "cancelled"
    """It or an ancestor was cancelled; only a retry moves it on."""


_RETRY = frozenset({JobStatus.QUEUED})

NEXT: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
        JobStatus.RUNNING: frozenset(
            {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED, JobStatus.QUEUED}
        ),
        JobStatus.COMPLETED: frozenset(),
        JobStatus.FAILED: _RETRY,
        JobStatus.TIMEOUT: _RETRY,
        JobStatus.CANCELLED: _RETRY,
    }
)
"""The state machine: every arrow there is. Back to queued always means a new attempt."""

LIVE = frozenset({JobStatus.QUEUED, JobStatus.RUNNING})
TERMINAL = frozenset(JobStatus) - LIVE


class Reason(StrEnum):
    """Reason for the end of an attempt: a closed set, more exact than the status it leads to."""

    COMPLETED = "completed"
    COMPLETED_WITH_DENIALS = "completed_with_denials"
    SCHEMA_UNMET = "schema_unmet"
    MAX_TURNS = "max_turns"
    BUDGET_EXHAUSTED = "budget_exhausted"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    PROMPT_TOO_LONG = "prompt_too_long"
    REQUEST_TOO_LARGE = "request_too_large"
    USAGE_LIMIT = "usage_limit"
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    CONNECTION = "connection"
    AUTH = "auth"
    BILLING = "billing"
    MODEL_NOT_FOUND = "model_not_found"
    INVALID_REQUEST = "invalid_request"
    REFUSAL = "refusal"
    STARTUP = "startup"
    """The process ended before it began to work: bad configuration, missing binary, refused arguments."""
    NO_SESSION = "no_session"
    SESSION_IN_USE = "session_in_use"
    INTERRUPTED = "interrupted"
    """A hook stopped it, or it was ended for a pause: then it is queued again."""
    SIGNAL = "signal"
    """The process was interrupted, with SIGINT or SIGQUIT, before it answered."""
    TRUNCATED = "truncated"
    """The process ended without an answer and without an error."""
    UNKNOWN_ERROR = "unknown_error"
    DEADLINE = "deadline"
    """The job's own time was over."""
    STALLED = "stalled"
    """The process was silent for longer than the watchdog allows."""
    OUTPUT_LIMIT = "output_limit"
    """The process wrote more than a job may."""
    LOST = "lost"
    """The process was gone before it answered, and we did not end it: killed, crashed, or not watched by an engine."""
    CANCELLED = "cancelled"
    DEPENDENCY_FAILED = "dependency_failed"
    UNMANAGED_CLAUDE = "unmanaged_claude"
    """The job started a second `claude`, outside the tree's limits."""


DIVIDED = frozenset({Reason.COMPLETED, Reason.COMPLETED_WITH_DENIALS})
"""Ends of attempts that asked for subtasks, where another attempt follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Usage of the model: cost, tokens and turns.

    Args:
        cost_usd: US dollars at list price, as the CLI computes them.
        input_tokens: Tokens read, cached ones included.
        output_tokens: Tokens written.
        turns: Model turns.
    """

    cost_usd: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum of both."""
        return Usage(
            cost_usd=self.cost_usd + other.cost_usd,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            turns=self.turns + other.turns,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        """Return the difference of both."""
        return Usage(
            cost_usd=self.cost_usd - other.cost_usd,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
            turns=self.turns - other.turns,
        )


EXCERPT_LENGTH = 500
"""Characters of a result that are kept with the job itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One task in a tree.

    Args:
        seq: Order of admission, unique on this machine.
        id: "j" and 16 characters.
        root_id: The tree; a batch's id where a batch without parent began it, else a job's.
        parent_id: The job that spawned this one, or None.
        batch_id: The submission that this job came with.
        depth: Edges from the root, which is at 0.
        path: Ids from the root to this job, joined by "/": a subtree is one range of it.
        spec: What was asked.
        status: Its status.
        reason: How its last attempt ended, or None while it has not.
        attempt: Number of its last attempt; 0 before the first.
        session_id: The Claude session of its last attempt, or None before the first.
        excerpt: The first characters of its result.
        error: What went wrong, for a person, or None.
        usage: What all of its attempts consumed.
        waiting_for: What it waits for of what is stored, or None; see `RecursionManager.wait_of`.
        cancel_requested: A cancel has been ordered and its process is being ended.
        created_at: Seconds since the epoch.
        started_at: Seconds since the epoch of the last claim, or None.
        ended_at: Seconds since the epoch, or None.
    """

    seq: int
    id: str
    root_id: str
    parent_id: str | None
    batch_id: str
    depth: int
    path: str
    spec: JobSpec
    status: JobStatus = JobStatus.QUEUED
    reason: Reason | None = None
    attempt: int = 0
    session_id: str | None = None
    excerpt: str | None = None
    error: str | None = None
    usage: Usage = field(default_factory=Usage)
    waiting_for: WaitingFor | None = None
    cancel_requested: bool = False
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def short_result(self) -> str | None:
        """Its whole result where that is short enough to be kept with the job; None where its last attempt has it."""
        return self.excerpt if self.excerpt is not None and len(self.excerpt) < EXCERPT_LENGTH else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs that were submitted together.

    Args:
        id: "b" and 16 characters.
        root_id: The tree.
        parent_id: The job that submitted it, or None for a person or a program.
        idempotency_key: The caller's key, unique among the submissions of one caller, or None.
        created_at: Seconds since the epoch.
    """

    id: str
    root_id: str
    parent_id: str | None
    idempotency_key: str | None
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Everything under one root.

    Args:
        id: Id of the batch or the job at its root.
        created_at: Seconds since the epoch.
        client: Who submitted it, for a person to read: the client's session id or name, or None.
        max_budget_usd: Most US dollars for the whole tree, or None.
        deadline: Seconds since the epoch after which nothing of it may run, or None.
        max_jobs: Most jobs below its root, or None for the setting alone.
        limits_at: Seconds since the epoch at which a person last changed a limit of the tree or of a part of it, or
            None.
    """

    id: str
    created_at: float
    client: str | None
    max_budget_usd: float | None = None
    deadline: float | None = None
    max_jobs: int | None = None
    limits_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job.

    Args:
        job_id: The job.
        number: From 1.
        session_id: The Claude session, chosen before the launch.
        token_hash: SHA-256 of the attempt's token in hexadecimal, or None once it is revoked.
        pid: Process id of the shim, or None before the launch is recorded.
        pid_start: When that process started, in the unit of the platform; tells a reused pid apart.
        status: The status it led to, or None while it is under way.
        reason: How it ended, or None.
        exit_code: As the shim wrote it, or None.
        result: The whole answer as text, or None.
        frame: The CLI's result frame, or None.
        usage: What this attempt consumed, once it is settled.
        setting_sources: Whose settings the CLI was told to load, as its option spells them.
        cli: Path of the `claude` that was launched, or None where that is not known.
        cli_version: What it says its version is, or None where it has not said it.
        model: The model that answered, or None before the attempt is over, and where none did.
        started_at: Seconds since the epoch.
        ended_at: Seconds since the epoch, or None.
        waits: When it did no work, the earliest first, once it is settled.
    """

    job_id: str
    number: int
    session_id: str
    token_hash: str | None
    pid: int | None = None
    pid_start: float | None = None
    status: JobStatus | None = None
    reason: Reason | None = None
    exit_code: int | None = None
    result: str | None = None
    frame: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    setting_sources: str = "user"
    cli: str | None = None
    cli_version: str | None = None
    model: str | None = None
    started_at: float = 0.0
    ended_at: float | None = None
    waits: tuple[AttemptWait, ...] = ()

    @property
    def asked_for_subtasks(self) -> bool:
        """Whether it ended by asking for subtasks, with whose results its session goes on."""
        return self.status is JobStatus.QUEUED and self.reason in DIVIDED

    @property
    def was_paused(self) -> bool:
        """Whether it was ended for a pause, after which its session goes on."""
        return self.status is JobStatus.QUEUED and self.reason is Reason.INTERRUPTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of an attempt, before it is written.

    Args:
        reason: From the closed set.
        status: The status that the job takes.
        detail: For a person: what the process or the CLI said.
        result: The whole answer, or None.
        frame: The CLI's result frame, or None.
        usage: What this attempt consumed.
        exit_code: As the shim wrote it, or None.
        cli_version: What the CLI said its version is, or None where it said nothing.
        model: The model that answered, or None where none did.
        account: The account that paid, as `jobs.claude.account` names it, or None where that is not known.
        waits: When it did no work, the earliest first.
    """

    reason: Reason
    status: JobStatus
    detail: str = ""
    result: str | None = None
    frame: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    exit_code: int | None = None
    cli_version: str | None = None
    model: str | None = None
    account: str | None = None
    waits: tuple[AttemptWait, ...] = ()

    @property
    def waiting_for(self) -> WaitingFor | None:
        """What the job waits for before its next attempt, or None where it need not wait."""
        return WaitingFor.CHILDREN if self.status is JobStatus.QUEUED and self.reason in DIVIDED else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaySpending:
    """What the attempts of an account that ended on one day have cost.

    Args:
        account: The account, as `jobs.claude.account` names it.
        day: The local day: "2026-11-30".
        cost_usd: US dollars.
    """

    account: str
    day: str
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """Totals of a subtree, a batch or a tree.

    Args:
        counts: Number of jobs by status; a status without jobs is missing.
        usage: What their attempts that are over consumed together.
        deepest: Depth of the deepest job.
        running: What their running attempts have consumed so far, as far as this is known.
    """

    counts: Mapping[JobStatus, int]
    usage: Usage
    deepest: int
    running: Usage = field(default_factory=Usage)

    @property
    def usage_so_far(self) -> Usage:
        """What they have consumed together, running attempts included."""
        return self.usage + self.running

    @property
    def total(self) -> int:
        """Number of jobs."""
        return sum(self.counts.values())

    @property
    def live(self) -> int:
        """Number of jobs that are not over."""
        return sum(count for status, count in self.counts.items() if status in LIVE)

    def without(self, job: Job, running: Usage) -> "Rollup":
        """Return the totals without one of the jobs, whose running attempt has consumed `running`."""
        counts = {status: count - (status is job.status) for status, count in self.counts.items()}
        usage, left = self.usage - job.usage, self.running - running
        return replace(
            self,
            counts={status: count for status, count in counts.items() if count},
            usage=replace(usage, cost_usd=max(0.0, usage.cost_usd)),
            running=replace(left, cost_usd=max(0.0, left.cost_usd)),
        )
