"""Transaction that restores a job from what its directory says, on the writing connection."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.model import Attempt, Job, Tree
from jobs.store.queries import SQL
from jobs.store.rows import frame_text, spec_text, writable
from jobs.store.writes import insert_task


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveredJob:
    """A job recovered from its directory.

    Args:
        job: The job with the state to which its last attempt brought it.
        attempts: Its attempts, the first one first.
        tree: The tree, where the job is its root.
    """

    job: Job
    attempts: Sequence[Attempt]
    tree: Tree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowState:
    """State of a job's row.

    Args:
        attempt: Number of its last attempt.
        running: That attempt is under way.
    """

    attempt: int
    running: bool


def last_attempts(connection: sqlite3.Connection, job_ids: Sequence[str]) -> Mapping[str, RowState]:
    """Return how far each of these jobs is that there is, by its id."""
    rows = connection.execute(SQL["standing"], (json.dumps(job_ids),)).fetchall()
    return {id_: RowState(attempt=attempt, running=bool(running)) for id_, attempt, running in rows}


def restore(connection: sqlite3.Connection, found: RecoveredJob) -> bool:
    """Write what the rows lack of a job; return whether they lacked something.

    Raises:
        sqlite3.IntegrityError: The tree or the parent of the job is not there.
    """
    job = found.job
    if found.tree is not None:
        tree = found.tree
        values = (tree.id, tree.created_at, tree.client, tree.max_budget_usd, tree.deadline)
        connection.execute(SQL["restore_tree"], values)
    connection.execute(SQL["restore_batch"], (job.batch_id, job.root_id, job.parent_id, job.created_at))
    connection.execute(
        SQL["restore_job"],
        {
            "seq": job.seq,
            "id": job.id,
            "root_id": job.root_id,
            "parent_id": job.parent_id,
            "batch_id": job.batch_id,
            "depth": job.depth,
            "path": job.path,
            "spec": spec_text(job.spec.with_task_preview()),
            "created_at": job.created_at,
        },
    )
    insert_task(connection, job.id, job.spec)
    changed = connection.execute(SQL["restore_state"], _state(job)).rowcount > 0
    if changed:
        for attempt in found.attempts:
            connection.execute(SQL["restore_attempt"], _attempt(attempt))
    return changed


def _state(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "status": job.status.value,
        "reason": None if job.reason is None else job.reason.value,
        "attempt": job.attempt,
        "session_id": job.session_id,
        "excerpt": job.excerpt,
        "error": job.error,
        "cost_usd": job.usage.cost_usd,
        "input_tokens": job.usage.input_tokens,
        "output_tokens": job.usage.output_tokens,
        "turns": job.usage.turns,
        "cancel_requested": int(job.cancel_requested),
        "started_at": job.started_at,
        "ended_at": job.ended_at,
    }


def _attempt(attempt: Attempt) -> tuple[object, ...]:
    usage = attempt.usage
    result = None if attempt.result is None else writable(attempt.result)
    return (
        attempt.job_id,
        attempt.number,
        attempt.session_id,
        attempt.token_hash,
        attempt.setting_sources,
        None if attempt.status is None else attempt.status.value,
        None if attempt.reason is None else attempt.reason.value,
        attempt.exit_code,
        result,
        frame_text(attempt.frame, result),
        usage.cost_usd,
        usage.input_tokens,
        usage.output_tokens,
        usage.turns,
        attempt.cli,
        attempt.cli_version,
        attempt.model,
        attempt.started_at,
        attempt.ended_at,
    )
