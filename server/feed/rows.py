"""The rows of the job feed: what a person sees of a job and of a tree in a list."""

from collections.abc import Mapping
from typing import Any, Final

from jobs.activity import Activity
from jobs.model import LIVE, Job, Tree
from jobs.waiting_for import Wait
from server.feed.sums import SumNode, TreeSums

_TEXT_CHARS: Final = 200
"""Most characters of a task, an answer or an error in a row."""


def row_of(job: Job, wait: Wait | None, activity: Activity | None) -> dict[str, Any]:
    """Return what a person sees of a job in a list; what is empty is left out. Times are in seconds since the epoch.

    Args:
        job: The job.
        wait: What it waits for, or None.
        activity: What its running attempt does, or None.
    """
    spec, usage = job.spec, job.usage if activity is None else job.usage + activity.usage
    row = {
        "jobId": job.id,
        "parentJobId": job.parent_id,
        "rootId": job.root_id,
        "batchId": job.batch_id,
        "depth": job.depth,
        "order": job.seq,
        "status": job.status,
        "reason": job.reason,
        "cancelling": job.cancel_requested if job.status in LIVE else None,
        "attempt": job.attempt,
        "task": short_text(spec.task),
        "taskChars": spec.task_chars or len(spec.task),
        "key": spec.key and short_text(spec.key),
        "model": spec.model,
        **({} if activity is None else _does(activity)),
        **({} if wait is None else _waits(wait)),
        "sessionId": job.session_id,
        "costUsd": round(usage.cost_usd, 6),
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "turns": usage.turns,
        "maxBudgetUsd": spec.max_budget_usd,
        "createdAt": job.created_at,
        "startedAt": job.started_at,
        "endedAt": job.ended_at,
        "error": job.error and short_text(job.error),
        "excerpt": job.excerpt and short_text(job.excerpt),
        "dependsOn": list(spec.depends_on[:8]),
    }
    return {name: value for name, value in row.items() if value}


def _does(activity: Activity) -> dict[str, Any]:
    return {
        "activity": activity.doing,
        "lastOutputAt": activity.last_output_at,
        "answeringModel": activity.model,
        "cliVersion": activity.cli_version,
    }


def _waits(wait: Wait) -> dict[str, Any]:
    return {"waitingFor": wait.what, "waitingUntil": wait.until, "waitingBecause": short_text(wait.because)}


def details_of(node: SumNode) -> dict[str, Any]:
    """Return what a detailed row says of what is below its job; nothing where that is nothing.

    Args:
        node: The sums of the job.
    """
    if node.below is None:
        return {}
    return {"children": node.children, "below": node.below.as_row()}


def tree_row_of(tree: Tree, sums: TreeSums) -> dict[str, Any]:
    """Return what a person sees of a tree; what is not known is left out.

    Args:
        tree: The tree.
        sums: Its sums.
    """
    totals = sums.totals.as_row()
    row: Mapping[str, Any] = {
        "rootId": tree.id,
        "createdAt": tree.created_at,
        "client": tree.client and short_text(tree.client),
        "maxBudgetUsd": tree.max_budget_usd,
        "deadline": tree.deadline,
        "counts": totals["counts"],
        "costUsd": totals["costUsd"],
        "inputTokens": totals["inputTokens"],
        "outputTokens": totals["outputTokens"],
        "deepest": sums.deepest,
    }
    return {name: value for name, value in row.items() if value is not None}


def tree_details_of(tree: Tree, sums: TreeSums) -> dict[str, Any]:
    """Return what the row of a tree also says on a page that shows trees by themselves.

    Args:
        tree: The tree.
        sums: Its sums.
    """
    first, totals = sums.first, sums.totals
    row: Mapping[str, Any] = {
        "title": first and short_text(first.spec.key or first.spec.task),
        "cwd": first and first.spec.cwd,
        # That of a root job holds for all of its tree.
        "maxBudgetUsd": _least(tree.max_budget_usd, first.spec.max_budget_usd if first and not first.depth else None),
        "jobs": totals.jobs,
        "children": sums.children,
        "asking": totals.asking,
        "endedAt": None if totals.live else sums.ended_at,
    }
    return {name: value for name, value in row.items() if value is not None}


def _least(*budgets: float | None) -> float | None:
    """Return the smallest of these budgets, or None where there is none."""
    return min((budget for budget in budgets if budget is not None), default=None)


def bytes_of(row: Mapping[str, Any]) -> int:
    """Return about how many bytes a row has as JSON; rather too many than too few."""
    texts = (value for value in row.values() if isinstance(value, str))
    # Other characters are written as escapes, of twelve bytes at most.
    return 700 + sum(len(text) * (2 if text.isascii() and text.isprintable() else 12) for text in texts)


def short_text(text: str) -> str:
    """Return a text in one line, cut."""
    # Cut before the blanks are joined: a task may have a million characters.
    return " ".join(text[: 2 * _TEXT_CHARS].split())[:_TEXT_CHARS]
