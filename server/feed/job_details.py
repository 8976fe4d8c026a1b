"""Everything about one job for a person who looks at it: the control request `job`."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from jobs.errors import NotFoundError
from jobs.ids import is_batch_id
from jobs.model import TERMINAL, Attempt, Job
from jobs.permissions.approvals import PermissionRequest
from jobs.ports import Store
from jobs.util.text import beginning, redact
from server.feed.times import WaitsOf, waits_row
from server.mcp.replies import compact
from server.mcp.result_pages import with_note

TASK_CHARS: Final = 40_000
"""Most characters of a task. With answer and requests the reply stays below the 1 MiB of a control answer."""

ANSWER_CHARS: Final = 40_000
"""Most characters of an answer."""

REQUEST_CHARS: Final = 20_000
"""Most characters of the arguments in a permission request."""

OpenRequests = Callable[[], Sequence[PermissionRequest]]
"""Returns the open permission requests that a person may answer."""


class JobDetails:
    """Reads everything about one job, batch or tree.

    Args:
        store: Where jobs are kept.
        open_requests: Returns the open permission requests.
        waits_of: Returns the waits of the running attempt of a job so far.
    """

    def __init__(self, store: Store, open_requests: OpenRequests, waits_of: WaitsOf) -> None:
        self._store = store
        self._waits_of = waits_of
        self._open_requests = open_requests

    async def of(self, identity: str) -> dict[str, Any]:
        """Return everything about a job; of a batch, its tree.

        Raises:
            NotFoundError: There is no such job or batch.
            StoreError: It cannot be read now.
        """
        if is_batch_id(identity):
            batch = await self._store.batch(identity)
            if batch is None:
                raise NotFoundError("Batch", identity)
            jobs = await self._store.jobs_in_batch(identity)
            return {"ok": True, "batchId": batch.id, "rootId": batch.root_id, "cwd": jobs[0].spec.cwd if jobs else ""}
        job = await self._store.job(identity)
        if job is None:
            raise NotFoundError("Job", identity)
        attempts = await self._store.attempts_of([job.id])
        last = await self._store.attempt(job.id, job.attempt) if job.status in TERMINAL else None
        task = await self._store.task(job.id) or job.spec.task
        return {
            "ok": True,
            "jobId": job.id,
            "rootId": job.root_id,
            "status": job.status,
            "attempt": job.attempt,
            "task": task[:TASK_CHARS],
            "taskChars": len(task),
            "cwd": job.spec.cwd,
            "sessionId": job.session_id,
            "error": job.error,
            "rights": _rights(job),
            "attempts": [self._attempt(attempt) for attempt in attempts],
            **_answer(job, last),
            "requests": [request_of(one) for one in self._open_requests() if one.job.id == job.id],
        }

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        row = {
            "number": attempt.number,
            "status": attempt.status,
            "reason": attempt.reason,
            "startedAt": attempt.started_at,
            "endedAt": attempt.ended_at,
            "costUsd": round(attempt.usage.cost_usd, 6),
            "cli": attempt.cli,
            "cliVersion": attempt.cli_version,
            "model": attempt.model,
            "sessionId": attempt.session_id,
            **waits_row(attempt.waits if attempt.ended_at else self._waits_of(attempt.job_id)),
        }
        return {name: value for name, value in row.items() if value}


def _rights(job: Job) -> dict[str, Any]:
    spec = job.spec
    rights = {
        "permissionMode": spec.permission_mode,
        "allowedTools": tuple(map(redact, spec.allowed_tools[:100])),
        "disallowedTools": tuple(map(redact, spec.disallowed_tools[:100])),
        "directories": spec.directories[:100],
        "mcpServers": spec.mcp_servers[:100],
        "maxBudgetUsd": spec.max_budget_usd,
        "maxJobs": spec.max_jobs,
        "timeoutSeconds": spec.timeout_seconds,
    }
    return {name: value for name, value in rights.items() if value not in (None, ())}


def _answer(job: Job, last: Attempt | None) -> dict[str, Any]:
    if job.status not in TERMINAL or last is None or last.result is None:
        return {}
    answer = with_note(job, last.result)
    return {"answer": answer[:ANSWER_CHARS], "answerChars": len(answer)}


def request_of(request: PermissionRequest) -> dict[str, Any]:
    """Return a permission request as a person decides on it."""
    text = compact(request.arguments)
    # Redacted before it is cut: the beginning of a secret would not be recognised.
    shown = redact(beginning(text, 2 * REQUEST_CHARS, request.secrets), request.secrets)[:REQUEST_CHARS]
    return {"requestId": request.id, "tool": request.tool, "input": shown, "inputChars": len(text)}


def resume_line(details: Mapping[str, Any]) -> str | None:
    """Return the command that opens a job's session in Claude Code, or None where it has none.

    None too where a job has named its directory so that the line could not be pasted: a shell takes some characters as
    keys, quoted or not, and what follows them as another command.
    """
    session = details.get("sessionId")
    if not session:
        return None
    line = f"cd {shlex.quote(str(details.get('cwd', '')))} && claude --resume {shlex.quote(str(session))}"
    return line if line.isprintable() else None
