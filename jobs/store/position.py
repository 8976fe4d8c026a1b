"""Position of a submission's jobs in a tree, derived from the parent's row alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.errors import IdempotencyKeyError, NotFoundError, TreeClosedError
from jobs.model import TERMINAL, Batch, Job
from jobs.ports import Submission
from jobs.waiting_for import WaitingFor


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePosition:
    """Position of new jobs in a tree.

    Args:
        root_id: The tree.
        depth: Depth of the new jobs.
        ancestors: Path of what is above them with a "/" at its end; empty where the new job is the root.
    """

    root_id: str
    depth: int
    ancestors: str


def tree_position(submission: Submission, parent: Job | None) -> TreePosition:
    """Return the position of the jobs of a submission.

    Raises:
        NotFoundError: The submission names a parent and there is none.
        TreeClosedError: The parent is over, or its cancel has been requested.
    """
    if submission.parent_id is not None:
        return _below(submission.parent_id, parent)
    if submission.as_root:
        return TreePosition(root_id=submission.new_root_id, depth=0, ancestors="")
    return TreePosition(root_id=submission.new_root_id, depth=1, ancestors=f"{submission.batch_id}/")


def batch_at(place: TreePosition, submission: Submission) -> Batch:
    """Return the batch of a submission."""
    return Batch(
        id=submission.batch_id,
        root_id=place.root_id,
        parent_id=submission.parent_id,
        idempotency_key=submission.idempotency_key,
        created_at=submission.at,
    )


def check_same_request(submission: Submission, batch: Batch, jobs: Sequence[Job], digest: str | None) -> None:
    """Make sure that a submission asks for what its idempotency key was used for.

    Args:
        submission: What is asked.
        batch: What the key was used for.
        jobs: The jobs of that batch.
        digest: The digest of that request, or None where it was not kept.

    Raises:
        IdempotencyKeyError: It asks for something else.
    """
    if None not in (digest, submission.request_digest) and digest != submission.request_digest:
        raise IdempotencyKeyError(submission.idempotency_key or "", batch.id, [job.id for job in jobs])


def jobs_at(place: TreePosition, submission: Submission, *, last_seq: int) -> Sequence[Job]:
    """Return the jobs of a submission, queued, numbered on from `last_seq`."""
    return [
        Job(
            seq=seq,
            id=new.id,
            root_id=place.root_id,
            parent_id=submission.parent_id,
            batch_id=submission.batch_id,
            depth=place.depth,
            path=f"{place.ancestors}{new.id}",
            spec=new.spec.with_task_preview(),
            waiting_for=WaitingFor.SIBLINGS if new.spec.depends_on else None,
            created_at=submission.at,
        )
        for seq, new in enumerate(submission.jobs, start=last_seq + 1)
    ]


def closed_by_cancel(parent_id: str) -> TreeClosedError:
    """Return the refusal for a job that is being cancelled, or that is below one that was."""
    return TreeClosedError(parent_id, "being cancelled")


def _below(parent_id: str, parent: Job | None) -> TreePosition:
    if parent is None:
        raise NotFoundError("Job", parent_id)
    if parent.status in TERMINAL:
        raise TreeClosedError(parent_id, parent.status)
    if parent.cancel_requested:
        raise closed_by_cancel(parent_id)
    return TreePosition(root_id=parent.root_id, depth=parent.depth + 1, ancestors=f"{parent.path}/")
