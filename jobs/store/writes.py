"""Transactions of the store, each a plain function on the writing connection; `SqliteStore` has a method of each."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.errors import IdempotencyKeyError, IllegalTransitionError, NotFoundError, TreeClosedError
from jobs.model import NEXT, TERMINAL, Attempt, Batch, Job, JobStatus, Outcome, Tree
from jobs.paused import PausedPath
from jobs.ports import Admission, AdmissionFacts, Limited, NewLimits, SpawnCheck, Submission
from jobs.spec import TASK_PREVIEW, JobSpec
from jobs.spending import local_day
from jobs.store.history import waits_text
from jobs.store.queries import SQL
from jobs.store.rows import batch_of, excerpt_of, frame_text, job_of, paused_path_of, spec_text, tree_of, writable
from jobs.store.writer import ProcessNote
from jobs.waiting_for import WaitingFor
from orchestration.limits import SpawnFacts

_DELETIONS = (
    SQL["delete_pauses"],
    SQL["delete_ended_pauses"],
    SQL["delete_references"],
    SQL["delete_attempts"],
    SQL["delete_jobs"],
    SQL["delete_batches"],
    SQL["delete_tree"],
)
"""What forgets a tree, in the order that the foreign keys allow."""


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
    if submission.parent_id is None:
        root_id = submission.new_tree.id
        if submission.as_root:
            return TreePosition(root_id=root_id, depth=0, ancestors="")
        return TreePosition(root_id=root_id, depth=1, ancestors=f"{root_id}/")
    if parent is None:
        raise NotFoundError("Job", submission.parent_id)
    if parent.status in TERMINAL:
        raise TreeClosedError(parent.id, parent.status)
    if parent.cancel_requested:
        raise closed_by_cancel(parent.id)
    return TreePosition(root_id=parent.root_id, depth=parent.depth + 1, ancestors=f"{parent.path}/")


def admission_at(place: TreePosition, submission: Submission, *, last_seq: int) -> Admission:
    """Return the batch of a submission with its jobs, queued, numbered on from `last_seq`."""
    batch = Batch(
        id=submission.batch_id,
        root_id=place.root_id,
        parent_id=submission.parent_id,
        idempotency_key=submission.idempotency_key,
        created_at=submission.at,
    )
    jobs = [
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
    return Admission(batch=batch, jobs=jobs, created=True)


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


def closed_by_cancel(parent_id: str) -> TreeClosedError:
    """Return the refusal for a job that is being cancelled, or that is below one that was."""
    return TreeClosedError(parent_id, "being cancelled")


def admit(connection: sqlite3.Connection, submission: Submission, check: SpawnCheck) -> Admission:
    """Write a batch and its jobs, or return those that its idempotency key was used for."""
    earlier = _admitted(connection, submission)
    if earlier is not None:
        return earlier
    parent = None if submission.parent_id is None else _job(connection, submission.parent_id)
    place = tree_position(submission, parent)
    if parent is not None:
        ids = json.dumps(parent.path.split("/"))
        if connection.execute(SQL["is_below_cancelled"], (ids,)).fetchone()[0]:
            raise closed_by_cancel(parent.id)
    facts = _facts(connection, submission, place)
    check(facts)
    if submission.parent_id is None:
        tree = facts.tree
        values = (tree.id, tree.created_at, tree.client, tree.max_budget_usd, tree.deadline)
        connection.execute(SQL["insert_tree"], values)
    return _insert(connection, submission, place)


def claim(
    connection: sqlite3.Connection,
    job_id: str,
    *,
    session_id: str,
    token_hash: str | None,
    at: float,
    setting_sources: str = "user",
    cli: str | None = None,
    cli_version: str | None = None,
) -> Attempt | None:
    """Move a queued job to running and write its attempt."""
    row = connection.execute(SQL["claim"], {"job_id": job_id, "session_id": session_id, "at": at}).fetchone()
    if row is None:
        return None
    attempt = Attempt(
        job_id=job_id,
        number=row[0],
        session_id=session_id,
        token_hash=token_hash,
        setting_sources=setting_sources,
        cli=cli,
        cli_version=cli_version,
        started_at=at,
    )
    values = (job_id, attempt.number, session_id, token_hash, setting_sources, cli, cli_version, at)
    connection.execute(SQL["insert_attempt"], values)
    return attempt


def settle(
    connection: sqlite3.Connection,
    job_id: str,
    attempt: int,
    outcome: Outcome,
    *,
    at: float,
    process: ProcessNote | None = None,
) -> Job:
    """Write the end of an attempt, with its process where that has not been written, and move its job on."""
    row = None
    usage = outcome.usage
    if outcome.status in NEXT[JobStatus.RUNNING]:
        values = _ending(job_id, outcome, at) | {
            "attempt": attempt,
            "cost_usd": usage.cost_usd,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "turns": usage.turns,
            "waiting_for": outcome.waiting_for and outcome.waiting_for.value,
        }
        row = connection.execute(SQL["settle"], values).fetchone()
    if row is None:
        raise refusal(job_id, _job(connection, job_id), attempt, outcome.status)
    job = job_of(row)
    reason = job.reason or outcome.reason
    result = None if outcome.result is None else writable(outcome.result)
    connection.execute(
        SQL["settle_attempt"],
        (
            job.status.value,
            reason.value,
            outcome.exit_code,
            result,
            frame_text(outcome.frame, result),
            usage.cost_usd,
            usage.input_tokens,
            usage.output_tokens,
            usage.turns,
            at,
            None if process is None else process.pid,
            None if process is None else process.start,
            outcome.cli_version,
            outcome.model,
            waits_text(outcome.waits) if outcome.waits else None,
            job_id,
            attempt,
        ),
    )
    if outcome.account is not None and usage.cost_usd:
        connection.execute(SQL["add_spending"], (outcome.account, local_day(at), usage.cost_usd))
    return job


def fail_queued(connection: sqlite3.Connection, job_id: str, outcome: Outcome, *, at: float) -> Job | None:
    """Settle a job that waits."""
    if outcome.status not in NEXT[JobStatus.QUEUED] & TERMINAL:
        raise IllegalTransitionError(job_id, JobStatus.QUEUED, outcome.status)
    row = connection.execute(SQL["fail_queued"], _ending(job_id, outcome, at)).fetchone()
    return None if row is None else job_of(row)


def set_waiting_for(
    connection: sqlite3.Connection, job_id: str, now: WaitingFor | None, *, was: WaitingFor | None = None
) -> Job | None:
    """Note what a live job waits for."""
    values = {"job_id": job_id, "now": now and now.value, "was": was and was.value}
    row = connection.execute(SQL["set_waiting_for"], values).fetchone()
    return None if row is None else job_of(row)


def cancel_under(connection: sqlite3.Connection, *paths: str, at: float) -> Sequence[Job]:
    """Settle what waits and mark what runs at and below each path."""
    rows = connection.execute(SQL["cancel_under"], {"paths": json.dumps(paths), "at": at}).fetchall()
    # RETURNING promises no order.
    return sorted(map(job_of, rows), key=lambda job: job.seq)


def requeue(connection: sqlite3.Connection, job_id: str) -> Job | None:
    """Queue a job again that ended without an answer."""
    row = connection.execute(SQL["requeue"], (job_id,)).fetchone()
    return None if row is None else job_of(row)


def pause(connection: sqlite3.Connection, rows: Sequence[PausedPath]) -> Sequence[PausedPath]:
    """Write pauses, and return them as they are then."""
    written = [
        connection.execute(SQL["pause"], (row.path, row.since, row.by_job, int(row.ends_running))).fetchone()
        for row in rows
    ]
    return [paused_path_of(row) for row in written]


def set_limits(connection: sqlite3.Connection, identity: str, limits: NewLimits, *, at: float) -> Limited | None:
    """Set limits of a job or a batch, and those of the tree where it is the root."""
    batch = connection.execute(SQL["batch"], (identity,)).fetchone()
    part = _job(connection, identity) if batch is None else batch_of(batch)
    if part is None:
        return None
    of_tree = limits if part.root_id == identity else NewLimits()
    values = {
        "budget_usd": of_tree.budget_usd,
        "deadline": of_tree.deadline,
        "max_jobs": of_tree.max_jobs,
        "at": at,
        "root_id": part.root_id,
    }
    tree = tree_of(connection.execute(SQL["limit_tree"], values).fetchone())
    jobs = [part] if isinstance(part, Job) else map(job_of, connection.execute(SQL["jobs_in_batch"], (identity,)))
    changed = [new for job in list(jobs) if (new := limited_job(job, identity, limits)) != job]
    for job in changed:
        connection.execute(SQL["set_spec"], (spec_text(job.spec), job.id))
    return Limited(tree=tree, jobs=changed)


def limited_job(job: Job, identity: str, limits: NewLimits) -> Job:
    """Return a job with its limits changed.

    Args:
        job: The job, or one of the batch.
        identity: What has the limits: the job, or its batch.
        limits: The limits.
    """
    if identity == job.batch_id:
        return replace(job, spec=replace(job.spec, batch_slots=limits.max_concurrent or job.spec.batch_slots))
    asked = {
        "max_budget_usd": limits.budget_usd,
        "deadline": limits.deadline,
        "max_jobs": limits.max_jobs,
        "subtree_slots": limits.max_concurrent,
    }
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return replace(job, spec=replace(job.spec, **changes))


def limited_tree(tree: Tree, identity: str, limits: NewLimits, at: float) -> Tree:
    """Return a tree after limits of it, or of a part of it, were changed."""
    asked = {"max_budget_usd": limits.budget_usd, "deadline": limits.deadline, "max_jobs": limits.max_jobs}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return replace(tree, limits_at=at, **(changes if identity == tree.id else {}))


def refusal(job_id: str, job: Job | None, attempt: int, requested: JobStatus) -> NotFoundError | IllegalTransitionError:
    """Return why an attempt of a job cannot be settled."""
    if job is None:
        return NotFoundError("Job", job_id)
    if job.status is JobStatus.RUNNING and job.attempt != attempt:
        return IllegalTransitionError(job_id, f"in attempt {job.attempt}", f"{requested} by attempt {attempt}")
    return IllegalTransitionError(job_id, job.status, requested)


def _admitted(connection: sqlite3.Connection, submission: Submission) -> Admission | None:
    if submission.idempotency_key is None:
        return None
    row = connection.execute(SQL["batch_by_key"], (submission.idempotency_scope, submission.idempotency_key)).fetchone()
    if row is None:
        return None
    digest, batch = row[0], batch_of(row[1:])
    jobs = [job_of(row) for row in connection.execute(SQL["jobs_in_batch"], (batch.id,)).fetchall()]
    check_same_request(submission, batch, jobs, digest)
    return Admission(batch=batch, jobs=jobs, created=False)


def _facts(connection: sqlite3.Connection, submission: Submission, place: TreePosition) -> AdmissionFacts:
    children, nodes = connection.execute(SQL["spawn_counts"], (submission.parent_id, place.root_id)).fetchone()
    spawn = SpawnFacts(
        depth=place.depth, asked=len(submission.jobs), children=children, nodes=nodes, tree_id=place.root_id
    )
    if submission.parent_id is None:
        return AdmissionFacts(spawn=spawn, submission=submission, tree=submission.new_tree)
    tree = tree_of(connection.execute(SQL["tree"], (place.root_id,)).fetchone())
    line = connection.execute(SQL["jobs"], (json.dumps(place.ancestors.split("/")),)).fetchall()
    above = [job_of(row) for row in line]
    return AdmissionFacts(spawn=spawn, submission=submission, tree=tree, ancestors=above)


def _insert(connection: sqlite3.Connection, submission: Submission, place: TreePosition) -> Admission:
    admission = admission_at(place, submission, last_seq=connection.execute(SQL["last_seq"]).fetchone()[0])
    batch = admission.batch
    connection.execute(
        SQL["insert_batch"],
        (
            batch.id, batch.root_id, batch.parent_id, submission.idempotency_scope, batch.idempotency_key,
            submission.request_digest, batch.created_at,
        ),
    )  # fmt: skip
    connection.executemany(
        SQL["insert_job"],
        [
            (
                job.seq, job.id, job.root_id, job.parent_id, job.batch_id, position, job.depth, job.path,
                spec_text(job.spec), job.waiting_for and job.waiting_for.value, job.created_at,
            )
            for position, job in enumerate(admission.jobs)
        ],
    )  # fmt: skip
    for new in submission.jobs:
        insert_task(connection, new.id, new.spec)
    return admission


def insert_task(connection: sqlite3.Connection, job_id: str, spec: JobSpec) -> None:
    """Write what is too long of a task for its job's row."""
    if len(spec.task) > TASK_PREVIEW:
        connection.execute(SQL["insert_task"], (job_id, writable(spec.task[TASK_PREVIEW:])))


def delete_tree(connection: sqlite3.Connection, root_id: str) -> bool:
    """Delete a tree that is over."""
    if not connection.execute(SQL["is_over"], (root_id,)).fetchone()[0]:
        return False
    for statement in _DELETIONS:
        connection.execute(statement, (root_id,))
    return True


def shrink(connection: sqlite3.Connection) -> int:
    """Give some free pages back to the disk and return how many are left."""
    connection.execute(SQL["shrink"]).fetchall()
    return int(connection.execute(SQL["free_pages"]).fetchone()[0])


def _ending(job_id: str, outcome: Outcome, at: float) -> dict[str, object]:
    return {
        "job_id": job_id,
        # Plain strings: sqlite3 looks for an adapter whenever it binds a subclass of str.
        "status": outcome.status.value,
        "reason": outcome.reason.value,
        "excerpt": excerpt_of(outcome.result),
        "error": writable(outcome.detail) or None,
        "at": at,
    }


def _job(connection: sqlite3.Connection, job_id: str) -> Job | None:
    row = connection.execute(SQL["job"], (job_id,)).fetchone()
    return None if row is None else job_of(row)
