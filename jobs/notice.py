"""Notices of events of jobs, which the settings `on_end` and `on_attention` send to a command or URL; their outbox."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from jobs.ids import new_notice_id
from jobs.model import Job, JobStatus, Rollup, Tree, Usage
from jobs.util.json_values import plain
from jobs.util.text import beginning, redact

TASK_CHARS = 120
"""Characters of a task in a notice."""

ERROR_CHARS = 300
"""Characters of an error or of a tool's arguments in a notice."""

_WORST_FIRST = (JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED, JobStatus.COMPLETED)


class NoticeKind(StrEnum):
    """Kind of a notice: which setting says where it goes."""

    END = "end"
    """`on_end`."""
    ATTENTION = "attention"
    """`on_attention`."""


class NoticeEvent(StrEnum):
    """Event that a notice tells of."""

    TREE_ENDED = "tree_ended"
    """The last live job of a tree ended. A tree that is retried ends again."""
    PERMISSION_WANTED = "permission_wanted"
    """A job waits for a permission."""
    BUDGET_USED_UP = "budget_used_up"
    """Jobs were ended, or not started, because nothing is left of a budget."""
    PAUSE_BEGAN = "pause_began"
    """Nothing is launched for an account, a tree or a job until the pause is over."""
    PAUSE_ENDED = "pause_ended"
    """Jobs go on."""
    SEVERAL = "several"
    """More notices than are delivered one by one within a minute."""
    TEST = "test"
    """A person tries a hook."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice that is to be delivered.

    Args:
        id: The same at each try, so that a receiver can drop repeats.
        kind: Where it goes.
        body: JSON object without `noticeId` and `at`.
        at: Seconds since the epoch of the event.
        attempts: How often its delivery has failed.
        due_at: Seconds since the epoch before which it is not tried.
    """

    kind: NoticeKind
    body: Mapping[str, Any]
    at: float
    id: str = field(default_factory=new_notice_id)
    attempts: int = 0
    due_at: float = 0.0

    @property
    def message(self) -> dict[str, Any]:
        """The JSON object as a receiver gets it."""
        return {"noticeId": self.id, "at": utc(self.at), **self.body}


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeliveredNotices:
    """Notices of one kind whose delivery has failed.

    Args:
        kind: The kind.
        waiting: How many are tried again.
        given_up: How many are not.
        error: What went wrong the last time.
    """

    kind: NoticeKind
    waiting: int
    given_up: int
    error: str

    def __str__(self) -> str:
        """Say how many, and what went wrong, for a person."""
        tried = f"{self.waiting} {'is' if self.waiting == 1 else 'are'} tried again" if self.waiting else ""
        left = f"{self.given_up} {'is' if self.given_up == 1 else 'are'} given up" if self.given_up else ""
        counts = ", ".join(filter(None, (tried, left)))
        return f"on_{self.kind} could not be told of everything: {counts}. The last time, {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedNotice:
    """A notice that could not be delivered.

    Args:
        id: The notice.
        attempts: How often that was tried.
        due_at: Seconds since the epoch before which it is not tried again.
        error: What went wrong.
        given_up: It is not tried again.
    """

    id: str
    attempts: int
    due_at: float
    error: str
    given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedPause:
    """A pause whose beginning was noted.

    Args:
        key: Of an account, as the throttle names it, after a "$" for its budget; of a paused path, "/" and the path.
        until: Seconds since the epoch, or None where somebody has to end it.
        because: Why, for a person.
    """

    key: str
    until: float | None
    because: str


WantedNotices = Callable[[], Collection[NoticeKind]]
"""Returns the kinds of notices that a person wants now; it must be quick, and is called on the store's thread too."""


class NoticeStore(Protocol):
    """Durable outbox of notices. Methods are as those of `jobs.ports.Store`, and raise `StoreError` likewise."""

    def note_ends(self, wanted: WantedNotices, on_noted: Callable[[], None]) -> None:
        """From now on write the notices that the end of a job is, in the transaction that ends it.

        Args:
            wanted: Asked at each end of a job.
            on_noted: Called on the event loop when there are new notices on disk.
        """
        ...

    async def add_notice(self, notice: Notice) -> None:
        """Add a notice, unless it waits already."""
        ...

    async def note_pause(self, pause: NotedPause, notice: Notice | None, *, over: bool = False) -> None:
        """Note that a pause began, or is over, and add the notice of it in the same transaction."""
        ...

    async def noted_pauses(self) -> Sequence[NotedPause]:
        """Return the pauses that were noted and are not over as far as was noted."""
        ...

    async def notices(self, kind: NoticeKind, *, limit: int) -> Sequence[Notice]:
        """Return notices of a kind that are not delivered and not given up, the one that is due first."""
        ...

    async def fail_notices(self, failed: Sequence[FailedNotice], *, at: float) -> None:
        """Note that notices could not be delivered."""
        ...

    async def remove_notices(self, ids: Sequence[str]) -> None:
        """Forget notices."""
        ...

    async def undelivered_notices(self) -> Sequence[UndeliveredNotices]:
        """Return how many notices of each kind could not be delivered; a kind without any is missing."""
        ...


def utc(seconds: float) -> str:
    """Return a time, in seconds since the epoch, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def shortened(text: str, known: Collection[str] = (), most: int = ERROR_CHARS) -> str:
    """Return text in one line, without secrets.

    Args:
        text: The text.
        known: Values that are secret in any form.
        most: Characters of the longest text that is not cut.
    """
    # Redacted before it is cut: half of a secret would not be found. Eight times the length bounds the work.
    return plain(redact(beginning(text, 8 * most, known), known), most)


def tree_ended(tree: Tree, first: Job, rollup: Rollup, failed: Job | None, *, at: float) -> Notice:
    """Return the notice that a tree ended.

    Args:
        tree: The tree.
        first: Its root, or the first job of the batch that is its root.
        rollup: Sums of all its jobs.
        failed: The first job that did not complete, or None.
        at: Seconds since the epoch of the end of its last job.
    """
    is_job = first.id == tree.id
    status = first.status if is_job else next(one for one in _WORST_FIRST if one in rollup.counts)
    ended = first if is_job else failed
    body = {
        "event": NoticeEvent.TREE_ENDED.value,
        "id": tree.id,
        "rootId": tree.id,
        "task": shortened(first.spec.task, most=TASK_CHARS),
        "status": status.value,
        "jobs": {one.value: count for one, count in sorted(rollup.counts.items())},
        **sums(rollup.usage),
        "elapsedSeconds": round(max(0.0, at - tree.created_at), 1),
        **_why(ended),
        "next": f"claude-jobs {'tree' if status is JobStatus.CANCELLED else 'result'} {tree.id}",
    }
    return Notice(kind=NoticeKind.END, body=body, at=at)


def budget_used_up(job: Job, *, at: float) -> Notice:
    """Return the notice that a job ended because a budget of it, or above it, is used up."""
    body = {
        "event": NoticeEvent.BUDGET_USED_UP.value,
        **about(job),
        "status": job.status.value,
        **sums(job.usage),
        **_why(job),
        "next": f"claude-jobs tree {job.root_id}",
    }
    return Notice(kind=NoticeKind.ATTENTION, body=body, at=at)


def about(job: Job) -> dict[str, Any]:
    """Return which job a notice is about."""
    return {"id": job.id, "rootId": job.root_id, "task": shortened(job.spec.task, most=TASK_CHARS)}


def sums(usage: Usage) -> dict[str, Any]:
    """Return costs and tokens as a notice tells them."""
    return {
        "costUsd": round(usage.cost_usd, 6),
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
    }


def _why(job: Job | None) -> dict[str, Any]:
    if job is None or job.reason is None:
        return {}
    said = {} if job.error is None else {"error": shortened(job.error)}
    return {"reason": job.reason.value, **said}
