"""Builds the tools' replies: compact, bounded, and marked where something is left out."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from jobs.ids import is_batch_id
from jobs.limits.account_budgets import AccountFigures
from jobs.limits.throttle import Pause, clock_time
from jobs.model import Attempt, Batch, Job, JobStatus, Rollup
from jobs.paused import PausedPath
from jobs.permissions.approvals import PermissionRequest
from jobs.ports import Admission
from jobs.sessions import RetryResult
from jobs.util.text import beginning, redact
from jobs.waiting import WaitReport
from server.mcp.fitting import cut, fitted
from server.mcp.job_fields import (
    STATUS_BYTES,
    how_it_ran,
    line,
    note,
    row_fields,
    short_row,
    short_status,
    status_fields,
    totals,
)
from server.mcp.job_now import JobNow, NowOf
from server.mcp.pending_lines import pending_lines

T = TypeVar("T")

MAX_REPLY_CHARS: Final = 40_000
"""Most characters of a reply that lists jobs.

Claude Code 2.1.330 saves a reply of more than 50,000 characters or 25,000 tokens to a file, and shows its model 2 KB of
it (measured). Ids and JSON have about two characters per token.
"""

MAX_REQUESTS_CHARS: Final = 12_000
"""Most characters of the permission requests in one reply."""

_SHOWN_OF_A_CALL = 2000
"""Most characters of a tool call's arguments in a permission request."""

_EXCERPT_BUDGET = 16_000
"""Characters of excerpts in one reply of `claude_wait`: a hundred jobs must not flood the caller."""

_LEAST_EXCERPT = 40
"""Least characters of an excerpt: where many jobs are over, fewer are reported at once instead of empty excerpts."""

_HEAD_CHARS = 1000
"""Characters of a reply without its list of jobs, about."""

_PAUSED_BYTES = 400
"""Most bytes of what a list says of pauses."""

_ACCOUNT_CHARS = 8
"""Characters of an account's digest that tell it from another one."""

_MOST_ACCOUNTS = 20
"""Most accounts whose spending is listed."""

_MOST_PAUSES = 3
"""Most accounts whose pauses are listed one by one."""

_NAMED = 300
"""Most ids in each list of a reply about a retry."""


def pretty(value: Any) -> str:
    """Return JSON as the older server wrote it, indented by two spaces."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def compact(value: Any) -> str:
    """Return JSON without blanks."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _shown(reply: dict[str, Any]) -> str:
    """Return JSON that is indented where it is short enough, and otherwise without blanks."""
    text = pretty(reply)
    return text if len(text) <= MAX_REPLY_CHARS else compact(reply)


def _fitting(lines: Iterable[T], room: int) -> list[T]:
    """Return as many of the first lines as fit into `room` characters of JSON, and at least one where there is any."""
    shown: list[T] = []
    for one in lines:
        room -= len(json.dumps(one, ensure_ascii=False)) + 1
        if room < 0 and shown:
            break
        shown.append(one)
    return shown


def _rest(count: int, how: str) -> dict[str, Any]:
    """Return the field that reports the omitted lines, or nothing where none were.

    Args:
        count: How many.
        how: The call that gets them.
    """
    return {"left": count, "next": how} if count > 0 else {}


def started(job: Job, pause: Pause | PausedPath | None = None) -> str:
    """Answer `claude_run_async`; with the pause that the job waits for, if any."""
    return pretty({"jobId": job.id, "status": "started", "message": "Job started successfully", **_ahead(pause)})


def _ahead(pause: Pause | PausedPath | None) -> dict[str, str]:
    if isinstance(pause, PausedPath):
        return {"paused": str(pause)}
    # How many wait is not known yet: these are not queued yet.
    return {"paused": f"no job starts before {clock_time(pause.until)}: {pause.because}"} if pause else {}


def spawned(admission: Admission, pause: Pause | PausedPath | None = None) -> str:
    """Answer `claude_run_batch_async`; with the pause that the jobs wait for, if any."""
    ids = [job.id for job in admission.jobs]
    shown = _fitting(ids, MAX_REPLY_CHARS - _HEAD_CHARS)
    reply = {
        "jobIds": shown,
        "batchId": admission.batch.id,
        "count": len(ids),
        "status": "all_spawned_parallel",
        "parentJobId": admission.batch.parent_id,
        **_ahead(pause),
        **_rest(len(ids) - len(shown), f"claude_wait with batchId {admission.batch.id!r} waits for all of them."),
    }
    return _shown(reply)


def batch_done(batch: Batch, report: WaitReport, milliseconds: int, *, excerpt_chars: int) -> str:
    """Answer `claude_run_batch`: the older keys, and one line per job with `excerpt_chars` of its answer."""
    successful = sum(job.status is JobStatus.COMPLETED for job in report.done)
    head = {
        "batch_id": batch.id,
        "job_ids": _fitting([job.id for job in report.done], MAX_REPLY_CHARS // 2),
        "parent_job_id": batch.parent_id,
        "execution_time_ms": milliseconds,
        "results_summary": {
            "total": report.total,
            "successful": successful,
            "failed": len(report.done) - successful,
            "pending": report.pending,
        },
    }
    room = MAX_REPLY_CHARS - len(compact(head)) - len(report.cursor) - _HEAD_CHARS
    lines = _fitting(_lines(report.done, excerpt_chars), room)
    shown = report.first(len(lines))
    how = f"Call claude_wait with batchId {batch.id!r} and this cursor for the others."
    more = {"cursor": shown.cursor, **_rest(shown.left, how)} if shown.left else {}
    reply = {**head, **more, "jobs": lines}
    return _shown(reply)


def job_status(
    now: JobNow,
    below: Rollup | None,
    pauses: Sequence[Pause | PausedPath] = (),
    *,
    attempt: Attempt | None = None,
    live_children: int = 0,
    request_id: str | None = None,
    budget_usd: float | None = None,
    whole: bool = False,
) -> str:
    """Answer `claude_status` for a job; with what is below it, if anything, and a pause that it waits for.

    Args:
        now: The job as it is now.
        below: Totals of its subtree, or None where it has no descendants.
        pauses: Why jobs of its tree wait.
        attempt: Its last attempt, or None before the first.
        live_children: How many of its children are not over, where it waits for them.
        request_id: Its permission request, where the caller may answer it.
        budget_usd: Its budget, for a person, or None.
        whole: Cut nothing; otherwise it has at most `STATUS_BYTES`.
    """
    job = now.job
    waits = job.status is JobStatus.QUEUED or (below is not None and JobStatus.QUEUED in below.counts)
    more: dict[str, Any] = {"liveChildren": live_children} if live_children else {}
    more |= {"requestId": request_id} if request_id else {}
    more |= {} if budget_usd is None else {"budgetUsd": budget_usd}
    more |= paused(pauses) if waits else {}
    status = status_fields(now, timespec="milliseconds" if whole else "seconds") | more
    status |= (how_it_ran(attempt) if attempt else {}) | now.details()
    if below is not None:
        began = job.started_at or job.created_at
        status["descendants"] = totals(below, (job.ended_at or now.at) - began)
    return pretty(status) if whole else compact(short_status(status, job))


def batch_status(
    batch: Batch,
    rollup: Rollup,
    pauses: Sequence[Pause | PausedPath] = (),
    *,
    seconds: float,
    budget_usd: float | None = None,
    whole: bool = False,
) -> str:
    """Answer `claude_status` for a batch or the tree that it began, with a pause that it waits for.

    Args:
        batch: The batch.
        rollup: Its totals.
        pauses: Why jobs of it wait.
        seconds: Since it was submitted, until now or the end of its last job.
        budget_usd: The budget of its tree, for a person, or None.
        whole: Cut nothing; otherwise it has at most `STATUS_BYTES`.
    """
    waits = JobStatus.QUEUED in rollup.counts
    status = {"batchId": batch.id, "parentJobId": batch.parent_id, **totals(rollup, seconds)}
    status |= {} if budget_usd is None else {"budgetUsd": budget_usd}
    status |= paused(pauses) if waits else {}
    return pretty(status) if whole else compact(fitted(status, STATUS_BYTES, texts={"paused": 100}, droppable=()))


def account_shown(account: str) -> str:
    """Return as much of an account's digest as tells it from another one."""
    return account[:_ACCOUNT_CHARS]


def spending(figures: Sequence[AccountFigures]) -> dict[str, Any]:
    """Return what the accounts that spent most have spent, and may; nothing where none has."""
    rows = [
        {
            "account": account_shown(one.account),
            "todayUsd": round(one.today, 4),
            "dailyBudgetUsd": one.daily,
            "monthUsd": round(one.month, 4),
            "monthlyBudgetUsd": one.monthly,
        }
        for one in figures[:_MOST_ACCOUNTS]
    ]
    return {"spending": rows} if rows else {}


def paused(pauses: Sequence[Pause | PausedPath]) -> dict[str, str]:
    """Return until when jobs wait, why, and how many; nothing where none is paused."""
    said = [str(pause) for pause in pauses[:_MOST_PAUSES]]
    if left := len(pauses) - len(said):
        said.append(f"{left} more accounts are paused")
    return {"paused": " · ".join(said)} if said else {}


def waited(
    report: WaitReport,
    requests: Sequence[PermissionRequest] = (),
    *,
    excerpt_chars: int,
    now_of: NowOf,
    next_step: str = "",
) -> str:
    """Answer `claude_wait`: the jobs that ended since the cursor, how many are not over, and the next cursor.

    Args:
        report: What the wait found.
        requests: Permission requests that the caller may answer.
        excerpt_chars: Most characters of an answer in a line.
        now_of: Returns a job as it is now.
        next_step: What to do next instead of calling again at once, or empty.
    """
    asked = {"waitingForPermission": permission_requests(requests)} if requests else {}
    room = MAX_REPLY_CHARS - len(compact(asked)) - len(report.cursor) - _HEAD_CHARS
    lines = _fitting(_lines(report.done, excerpt_chars), room)
    shown = report.first(len(lines))
    reply: dict[str, Any] = {"cursor": shown.cursor, "pending": shown.pending, **paused(report.pauses)}
    if shown.pending:
        reply["next"] = next_step or "Call claude_wait again with this cursor."
        if live := pending_lines(report.live, now_of):
            reply["live"] = live
    # Without a wait: in the mode "all" it would last until the last job is over.
    reply |= _rest(shown.left, "Call claude_wait again with this cursor and timeoutSeconds 0 for the others.")
    if requests:
        reply["next"] = "Answer each with claude_approve, then call claude_wait again with this cursor."
    return compact({**reply, **asked, "done": lines})


def permission_requests(requests: Sequence[PermissionRequest]) -> list[dict[str, str]]:
    """Return permission requests as a reply or a form shows them."""
    lines = [{"requestId": one.id, "jobId": one.job.id, "tool": one.tool, "input": _call_of(one)} for one in requests]
    shown = _fitting(lines, MAX_REQUESTS_CHARS)
    if left := len(lines) - len(shown):
        shown.append({"more": f"{left} more wait: answer these, then call claude_approve without requestId."})
    return shown


def _call_of(request: PermissionRequest) -> str:
    text, most = compact(request.arguments), _SHOWN_OF_A_CALL
    # Cut afterwards: a truncated secret would not be recognised. What is far beyond the cut is not searched.
    read = beginning(text, 2 * most, request.secrets)
    head = redact(read, request.secrets)
    left = len(text) - len(read) + len(head[most:])
    return f"{head[:most]}… ({left} characters more)" if left else head


def page(text: str, *, offset: int, limit: int, asked: str, where: str) -> str:
    """Return a part of a result, saying how much is left and how to get it.

    Args:
        text: The whole result.
        offset: First character of the page.
        limit: Most characters of the page.
        asked: How a call of `claude_result` names this text, "jobId 'j1'" for example.
        where: Path of the file that holds the whole transcript.
    """
    # A page past the end is an empty one at the end: its reader must not be sent to characters that do not exist.
    offset = min(offset, len(text))
    shown = text[offset : offset + limit]
    end = offset + len(shown)
    if not offset and end == len(text):
        return shown
    left = len(text) - end
    more = f"{left} left: call claude_result with {asked} and offset {end}" if left else "this is the end"
    return f"{shown}\n\n[characters {offset} to {end} of {len(text)}; {more}; transcript: {where}]"


def job_list(
    jobs: Sequence[Job],
    *,
    more: bool,
    excerpt_chars: int,
    now_of: NowOf,
    pauses: Sequence[Pause | PausedPath] = (),
    whole: bool = False,
) -> str:
    """Answer `claude_list_jobs`: a line per job, newest first.

    Args:
        jobs: The jobs.
        more: There are older ones.
        excerpt_chars: Most characters of an answer.
        now_of: Returns a job as it is now.
        pauses: Why some of them wait.
        whole: Show tasks and answers as far as a person's terminal does; otherwise a row has at most `ROW_BYTES`.
    """
    rows: list[dict[str, Any]] = _rows(jobs, excerpt_chars, now_of, whole=whole)
    if jobs and (more or len(rows) < len(jobs)):
        rows.append({"more": f"Call claude_list_jobs with before {rows[-1]['jobId']!r}."})
    if pauses:
        said = paused(pauses)["paused"]
        rows.append({"paused": said if whole else cut(said, _PAUSED_BYTES)})
    return f"[\n{text}\n]" if (text := ",\n".join(map(compact, rows))) else "[]"


def tree(identity: str, sums: Rollup, jobs: Sequence[Job], *, excerpt_chars: int, now_of: NowOf) -> str:
    """Answer the resource `tree://`: the counts of all, and the first jobs in order of their admission."""
    rows = _rows(jobs, excerpt_chars, now_of)
    figures = {name: value for name, value in totals(sums).items() if "Tokens" not in name}
    how = f"Call claude_list_jobs with under {identity!r}."
    return compact({"id": identity, **figures, **_rest(len(jobs) - len(rows), how), "jobs": rows})


def killed(job_id: str, cancelled: Sequence[Job]) -> str:
    """Answer `claude_kill_job` in the older server's words; for a batch, which is no job itself, all its jobs count."""
    kind = "Batch" if is_batch_id(job_id) else "Job"
    if not cancelled:
        return pretty({"success": False, "message": f"{kind} {job_id} not found or already completed"})
    message = f"{kind} {job_id} killed"
    if below := sum(job.id != job_id for job in cancelled):
        message += f", with {below} below it"
    return pretty({"success": True, "message": message})


def sent(job: Job, original: Job, pause: Pause | PausedPath | None = None) -> str:
    """Answer `claude_send`; with the pause that the job waits for, if any."""
    session = "a copy of the session" if job.spec.fork_session else "the session"
    message = f"Goes on with {session} of {original.id}"
    return pretty({"jobId": job.id, "status": "started", "message": message, **_ahead(pause)})


def retried(what: RetryResult, pause: Pause | PausedPath | None = None) -> str:
    """Answer `claude_retry`: the jobs queued again, those not over, and those whose session another job continues.

    Args:
        what: What came of it.
        pause: Why the first of them does not start, or None.
    """
    again = [job.id for job in what.restarted]
    live = [job.id for job in what.live]
    status = "requeued" if again else "nothing_requeued"
    reply: dict[str, Any] = {"jobIds": again[:_NAMED], "count": len(again), "status": status, **_ahead(pause)}
    if live:
        reply["live"] = live[:_NAMED]
    steps = []
    if again:
        # Where they end again before the next wait, an earlier cursor takes their first end for the last.
        steps.append("Call claude_wait for jobIds without a cursor.")
    if what.busy:
        busy = [{"jobId": job_id, "heldBy": other} for job_id, other in what.busy.items()][:_NAMED]
        reply["busy"] = busy
        awaited = list(dict.fromkeys(one["heldBy"] for one in busy))
        steps.append(f"For the busy ones call claude_wait with jobIds {awaited}, then claude_retry again.")
    if left := sum(max(0, len(ids) - _NAMED) for ids in (again, live, what.busy)):
        reply["left"] = left
        steps.append("claude_list_jobs names the others.")
    if steps:
        reply["next"] = " ".join(steps)
    return _shown(reply)


def _rows(jobs: Sequence[Job], excerpt_chars: int, now_of: NowOf, *, whole: bool = False) -> list[dict[str, Any]]:
    row = row_fields if whole else short_row
    rows = (row(now_of(job), excerpt_chars) for job in jobs)
    return _fitting(rows, MAX_REPLY_CHARS - _HEAD_CHARS)


def _lines(jobs: Sequence[Job], excerpt_chars: int) -> list[dict[str, Any]]:
    share = max(_LEAST_EXCERPT, _EXCERPT_BUDGET // max(1, len(jobs)))
    return [_done_line(job, excerpt_chars, share) for job in jobs]


def _done_line(job: Job, excerpt_chars: int, share: int) -> dict[str, Any]:
    done: dict[str, Any] = {"jobId": job.id, "status": job.status}
    if job.spec.key is not None:
        done["key"] = job.spec.key
    if job.status is not JobStatus.COMPLETED:
        done["reason"] = job.reason
    # The reason of a failure is no excerpt: cut to an excerpt's least length, it would say nothing.
    why = "" if note(job) else job.error or ""
    done["excerpt"] = line(job.excerpt, min(excerpt_chars, share)) if job.excerpt else line(why, share)
    return done | {name: line(said, share) for name, said in note(job).items()}
