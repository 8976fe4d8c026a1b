"""Converts rows of the database to the types of `jobs.model` and back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from jobs.costs import DepthCost, ModelCost, TreeCost
from jobs.ids import is_batch_id
from jobs.model import EXCERPT_LENGTH, Attempt, Batch, DaySpending, Job, JobStatus, Outcome, Reason, Rollup, Tree, Usage
from jobs.paused import PausedPath
from jobs.ports import EndedTree
from jobs.spec import JobSpec
from jobs.store.history import waits_of
from jobs.waiting_for import WaitingFor

Row = tuple[Any, ...]
"""One row, its columns in the order of the table."""

_KEPT_SPEC = 8192
"""Characters of the longest spec that is kept parsed: 512 of them bound the memory to some megabytes."""

# Built once: building an adapter costs more than a thousand uses of it.
_SPEC = TypeAdapter(JobSpec)


def with_current_names(text: str) -> str:
    """Return JSON of a spec or a job with a field's present name where an earlier version wrote another one.

    Only a name can match: inside a JSON text each quotation mark has a backslash before it.
    """
    return text.replace('"divisible":', '"can_decompose":')


def _spec(text: str) -> JobSpec:
    text = with_current_names(text)
    return _kept_spec(text) if len(text) <= _KEPT_SPEC else _SPEC.validate_json(text)


@lru_cache(maxsize=512)
def _kept_spec(text: str) -> JobSpec:
    # A job is read several times while it lives, and a batch's specs are often the same; the parse cost 40 µs.
    return _SPEC.validate_json(text)


def spec_text(spec: JobSpec) -> str:
    """Return a spec as JSON; half a surrogate pair, as a program may give, becomes a question mark."""
    return writable(json.dumps(_SPEC.dump_python(spec, exclude_defaults=True), ensure_ascii=False))


def frame_text(frame: Mapping[str, Any] | None, result: str | None) -> str | None:
    """Return a result frame as JSON in ASCII, which holds even half of a surrogate pair.

    Args:
        frame: The frame, or None.
        result: The answer as it is kept next to it. Where the frame has the same it is not kept twice: the frame is
            then in an array, with null in its place.
    """
    if frame is None:
        return None
    if result is None or frame.get("result") != result:
        return json.dumps(dict(frame))
    return json.dumps([{**frame, "result": None}])


def _frame_of(text: str, result: str | None) -> Mapping[str, Any]:
    kept = json.loads(text)
    # The key is there already: it stays where the process wrote it.
    frame: Mapping[str, Any] = kept if isinstance(kept, dict) else {**kept[0], "result": result}
    return frame


def writable(text: str) -> str:
    """Return text that UTF-8 can hold: a lone surrogate, as JSON of a process may bring, becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def excerpt_of(result: str | None) -> str | None:
    """Return the beginning of a result."""
    return None if result is None else writable(result[:EXCERPT_LENGTH])


def job_of(row: Row) -> Job:
    """Return the job of a row."""
    (
        seq, id_, root_id, parent_id, batch_id, _position, depth, path, spec, status, reason, attempt, session_id,
        excerpt, error, cost_usd, input_tokens, output_tokens, turns, cancel_requested, created_at, started_at,
        ended_at, waiting_for,
    ) = row  # fmt: skip
    return Job(
        seq=seq,
        id=id_,
        root_id=root_id,
        parent_id=parent_id,
        batch_id=batch_id,
        depth=depth,
        path=path,
        spec=_spec(spec),
        status=JobStatus(status),
        reason=_reason(reason),
        attempt=attempt,
        session_id=session_id,
        excerpt=excerpt,
        error=error,
        usage=Usage(cost_usd=cost_usd, input_tokens=input_tokens, output_tokens=output_tokens, turns=turns),
        waiting_for=None if waiting_for is None else WaitingFor(waiting_for),
        cancel_requested=bool(cancel_requested),
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
    )


def task_of(row: Row) -> str:
    """Return the task of a row (spec of the job, rest of its task or None)."""
    spec, rest = row
    return f"{_spec(spec).task}{rest or ''}"


def attempt_of(row: Row) -> Attempt:
    """Return the attempt of a row."""
    (
        job_id, number, session_id, token_hash, pid, pid_start, status, reason, exit_code, result, frame,
        cost_usd, input_tokens, output_tokens, turns, setting_sources, started_at, ended_at,
        cli, cli_version, model, waits,
    ) = row  # fmt: skip
    return Attempt(
        job_id=job_id,
        number=number,
        session_id=session_id,
        token_hash=token_hash,
        pid=pid,
        pid_start=pid_start,
        status=None if status is None else JobStatus(status),
        reason=_reason(reason),
        exit_code=exit_code,
        result=result,
        frame=None if frame is None else _frame_of(frame, result),
        usage=Usage(cost_usd=cost_usd, input_tokens=input_tokens, output_tokens=output_tokens, turns=turns),
        setting_sources=setting_sources,
        cli=cli,
        cli_version=cli_version,
        model=model,
        started_at=started_at,
        ended_at=ended_at,
        waits=waits_of(waits),
    )


def ended_attempt(attempt: Attempt, outcome: Outcome, at: float) -> Attempt:
    """Return an attempt as it is kept once it is over; its token is forgotten."""
    return replace(
        attempt,
        token_hash=None,
        status=outcome.status,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        result=None if outcome.result is None else writable(outcome.result),
        frame=outcome.frame,
        usage=outcome.usage,
        cli_version=outcome.cli_version or attempt.cli_version,
        model=outcome.model,
        ended_at=at,
        waits=outcome.waits,
    )


def batch_of(row: Row) -> Batch:
    """Return the batch of a row."""
    id_, root_id, parent_id, idempotency_key, created_at = row
    return Batch(id=id_, root_id=root_id, parent_id=parent_id, idempotency_key=idempotency_key, created_at=created_at)


def tree_of(row: Row) -> Tree:
    """Return the tree of a row."""
    id_, created_at, client, max_budget_usd, deadline, max_jobs, limits_at = row
    return Tree(
        id=id_,
        created_at=created_at,
        client=client,
        max_budget_usd=max_budget_usd,
        deadline=deadline,
        max_jobs=max_jobs,
        limits_at=limits_at,
    )


def paused_path_of(row: Row) -> PausedPath:
    """Return a pause."""
    path, since, by_job, ends_running = row
    return PausedPath(path=path, since=since, by_job=by_job, ends_running=bool(ends_running))


def ended_tree_of(row: Row) -> EndedTree:
    """Return the ended tree of a row (root, end, number of jobs)."""
    root_id, ended_at, jobs = row
    return EndedTree(id=root_id, ended_at=ended_at, jobs=jobs)


def day_spending_of(row: Row) -> DaySpending:
    """Return the spending of a row (account, day, cost)."""
    account, day, cost_usd = row
    return DaySpending(account=account, day=day, cost_usd=cost_usd)


def depth_cost_of(row: Row) -> DepthCost:
    """Return what a depth has used."""
    depth, jobs, *used = row
    return DepthCost(depth=depth, jobs=jobs, usage=_usage_of(used))


def model_cost_of(row: Row) -> ModelCost:
    """Return what a model has used."""
    model, attempts, *used = row
    return ModelCost(model=model, attempts=attempts, usage=_usage_of(used))


def tree_cost_of(row: Row) -> TreeCost:
    """Return what a tree has cost."""
    root_id, jobs, cost_usd, max_budget_usd, created_at, ended_at, spec = row
    first = None if spec is None else _spec(spec)
    # That of a root job holds for all of its tree.
    budgets = (max_budget_usd, None if first is None or is_batch_id(root_id) else first.max_budget_usd)
    return TreeCost(
        root_id=root_id,
        title="" if first is None else first.key or first.task,
        jobs=jobs,
        cost_usd=cost_usd,
        max_budget_usd=min((one for one in budgets if one is not None), default=None),
        created_at=created_at,
        ended_at=ended_at,
    )


def _usage_of(sums: Sequence[Any]) -> Usage:
    cost_usd, input_tokens, output_tokens = sums
    return Usage(cost_usd=cost_usd, input_tokens=input_tokens, output_tokens=output_tokens)


def rollup_of(rows: Iterable[Row]) -> Rollup:
    """Return the sums of rows (status, count, cost, input tokens, output tokens, turns, depth)."""
    groups = list(rows)
    usage = Usage(
        # Kept sums of what has been forgotten may be slightly below zero.
        cost_usd=max(0.0, sum(row[2] for row in groups)),
        input_tokens=sum(row[3] for row in groups),
        output_tokens=sum(row[4] for row in groups),
        turns=sum(row[5] for row in groups),
    )
    counts = {JobStatus(row[0]): int(row[1]) for row in groups if row[1]}
    return Rollup(counts=counts, usage=usage, deepest=max((row[6] for row in groups), default=0))


def _reason(text: str | None) -> Reason | None:
    return None if text is None else Reason(text)
