"""The extension `io.modelcontextprotocol/tasks` (SEP-2663): long calls as MCP tasks, with the job store as only state.

The id of an MCP task is that of its job or batch; that of a wait says what it waits for.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    ClientCapabilities,
    MissingRequiredClientCapabilityErrorData,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from jobs.errors import JobsError
from jobs.ids import BATCH_PREFIX, JOB_PREFIX
from jobs.limits.throttle import Pause
from jobs.model import LIVE, Job, JobStatus
from jobs.paused import PausedPath
from jobs.permissions.visibility import JobSelection
from jobs.waiting import WaitMode, WaitReport
from jobs.waiting_for import FOR_JOBS
from server.mcp import elicitation, progress, replies
from server.mcp.arguments import Arguments, BatchArguments, RunArguments, WaitArguments
from server.mcp.calls import Context, call_of, outcome, result_of
from server.mcp.connection_state import Call
from server.mcp.tools import BY_NAME, run_reply, selection_reader, submit, wait_reply
from server.mcp.wait_ids import Wait, decode, encode

EXTENSION: Final = "io.modelcontextprotocol/tasks"

_PAGE: Final = 500
"""Most jobs that are looked up at once."""

POLL_MS: Final = 1000
"""Milliseconds between two polls that a client is asked for; one poll is one read of the store."""


class TaskParams(RequestParams):
    """Parameters of `tasks/get` and `tasks/cancel`."""

    task_id: str


class TaskUpdateParams(TaskParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A task's status at one moment.

    Args:
        status: "working", "completed" or "cancelled"; `tasks/get` tells apart one that waits for a person.
        created: Seconds since the epoch.
        updated: Seconds since the epoch of the last change.
        message: For a person, or None.
        result: The tool's answer, once it is completed.
    """

    status: str
    created: float
    updated: float
    message: str | None = None
    result: CallToolResult | None = None


def offered(ctx: Context, tool: str) -> bool:
    """Tell whether a call of this tool may be answered with a task: the request must declare that it accepts one."""
    # A job's own client polls without saying that the job waits: the job would keep its slot from its children.
    outside = ctx.lifespan_context.caller.token_hash is None
    return tool in _BEGIN and outside and ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and _declared(ctx)


async def begin(call: Call, tool: str, arguments: Arguments) -> dict[str, Any]:
    """Start the tool's work, and return its task; nothing for a wait whose id would be too long.

    Raises:
        JobsError: As the tool itself; nothing was started.
    """
    task_id = await _BEGIN[tool](call, arguments)
    if task_id is None:
        return {}
    snapshot = await _snapshot(call, task_id)
    return {"resultType": "task", **_wire(task_id, snapshot)}


async def get(ctx: Context, params: TaskParams) -> dict[str, Any]:
    """Answer `tasks/get`: the task, and its result once there is one."""
    snapshot = await _found(ctx, params.task_id)
    detailed = _wire(params.task_id, snapshot)
    if snapshot.result is not None:
        detailed["result"] = snapshot.result.model_dump(by_alias=True, mode="json", exclude_none=True)
    elif snapshot.status == "working" and (forms := await _forms(ctx, params.task_id)):
        detailed |= {"status": "input_required", "inputRequests": forms}
    return detailed


async def update(ctx: Context, params: TaskUpdateParams) -> dict[str, Any]:
    """Answer `tasks/update`: take a person's answers to the forms of this task, and of no other."""
    await _found(ctx, params.task_id)
    shown = await _forms(ctx, params.task_id)
    elicitation.take_all(ctx.lifespan_context.services.approvals, params.input_responses or {}, shown)
    return {}


async def cancel(ctx: Context, params: TaskParams) -> dict[str, Any]:
    """Answer `tasks/cancel`: a job or a batch is cancelled; a wait ends once it is no longer polled."""
    await _found(ctx, params.task_id)
    call = await call_of(ctx)
    await call.services.manager.cancel_subtrees(await call.visibility.jobs(await _jobs_of(call, params.task_id)))
    return {}


async def _forms(ctx: Context, task_id: str) -> Mapping[str, Any]:
    return await elicitation.forms(ctx, partial(_selection_of, await call_of(ctx), task_id))


async def _found(ctx: Context, task_id: str) -> Snapshot:
    _require(ctx, task_id)
    try:
        return await _snapshot(await call_of(ctx), task_id)
    except (JobsError, ValidationError) as error:
        # The same error for a task that does not exist and one that is not the caller's.
        raise MCPError(INVALID_PARAMS, "Task not found") from error


def _require(ctx: Context, task_id: str) -> None:
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(METHOD_NOT_FOUND, f"{ctx.method} belongs to protocol version 2026-07-28")
    if not _declared(ctx):
        needed = MissingRequiredClientCapabilityErrorData(
            required_capabilities=ClientCapabilities(extensions={EXTENSION: {}})
        )
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"The client did not declare the extension {EXTENSION}",
            needed.model_dump(by_alias=True, mode="json", exclude_none=True),
        )
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and headers.get("mcp-name") != task_id:
        raise MCPError(HEADER_MISMATCH, "The header Mcp-Name must equal params.taskId")


def _declared(ctx: Context) -> bool:
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


async def _begin_run(call: Call, arguments: RunArguments) -> str:
    return (await submit(call, arguments)).jobs[0].id


async def _begin_batch(call: Call, arguments: BatchArguments) -> str:
    return (await submit(call, arguments)).batch.id


async def _begin_wait(call: Call, arguments: WaitArguments) -> str | None:
    selection = await selection_reader(call, arguments)()
    now = call.services.now()
    return encode(
        Wait(
            created=now,
            until=None if arguments.timeout_seconds is None else now + arguments.timeout_seconds,
            arguments=arguments,
            numbers=[job.seq for job in selection.jobs] if arguments.job_ids else (),
        )
    )


_BEGIN: Mapping[str, Callable[[Call, Any], Awaitable[str | None]]] = {
    "claude_run": _begin_run,
    "claude_run_batch": _begin_batch,
    "claude_wait": _begin_wait,
}


async def _snapshot(call: Call, task_id: str) -> Snapshot:
    match task_id[:1]:
        case kind if kind == JOB_PREFIX:
            return await _of_run(call, task_id)
        case kind if kind == BATCH_PREFIX:
            return await _of_batch(call, task_id)
        case _:
            return await _of_wait(call, task_id)


async def _of_run(call: Call, job_id: str) -> Snapshot:
    job = await call.visibility.job(job_id)
    created, updated = job.created_at, _touched(job)
    if job.status in LIVE:
        pauses = call.services.recursion.all_pauses((job.root_id,)) if job.status is JobStatus.QUEUED else ()
        message = "; ".join(
            (f"job {job.id}: {progress.doing(call.services.now_of(job))}", *replies.paused(pauses).values())
        )
        return Snapshot(status="working", created=created, updated=updated, message=message)
    if job.status is JobStatus.CANCELLED:
        return Snapshot(status="cancelled", created=created, updated=updated, message=job.error)
    result = await outcome(BY_NAME["claude_run"], run_reply(call, job.id))
    return Snapshot(status="completed", created=created, updated=updated, result=result)


async def _of_batch(call: Call, batch_id: str) -> Snapshot:
    batch = await call.visibility.batch(batch_id)
    jobs = (await call.visibility.batch_selection(batch_id)).jobs
    updated = max(map(_touched, jobs))
    live = sum(job.status in LIVE for job in jobs)
    if live:
        message = _going_on(call, jobs, call.services.recursion.all_pauses((batch.root_id,)))
        return Snapshot(status="working", created=batch.created_at, updated=updated, message=message)
    if all(job.status is JobStatus.CANCELLED for job in jobs):
        return Snapshot(status="cancelled", created=batch.created_at, updated=updated)
    milliseconds, excerpt_chars = round((updated - batch.created_at) * 1000), call.services.settings.excerpt_chars
    text = replies.batch_done(batch, WaitReport.of_all(jobs), milliseconds, excerpt_chars=excerpt_chars)
    return Snapshot(status="completed", created=batch.created_at, updated=updated, result=result_of(text))


async def _of_wait(call: Call, task_id: str) -> Snapshot:
    created, until, arguments = await _decode(call, task_id)
    mode = WaitMode(arguments.mode)
    read = selection_reader(call, arguments)
    report = await call.services.waiting.wait(read, mode=mode, seconds=0, cursor=arguments.cursor)
    selection = await read()
    updated = max([created, *map(_touched, selection.jobs)])
    # Completed for now where a permission is missing: a working task could not report that.
    asking = call.services.approvals.mark_shown(call.job, selection.paths)
    if asking or _met(report, mode) or (until is not None and call.services.now() >= until):
        result = result_of(wait_reply(call, report, asking))
        return Snapshot(status="completed", created=created, updated=updated, result=result)
    message = _going_on(call, selection.jobs, report.pauses)
    return Snapshot(status="working", created=created, updated=updated, message=message)


def _going_on(call: Call, jobs: Sequence[Job], pauses: Sequence[Pause | PausedPath]) -> str:
    over = sum(job.status not in LIVE for job in jobs)
    running = [job for job in jobs if job.status is JobStatus.RUNNING]
    for_jobs = sum(job.waiting_for in FOR_JOBS for job in jobs)
    counts = progress.going_on(over, len(running), len(jobs), pauses, for_jobs=for_jobs)
    return "; ".join((counts, *progress.telling(running, call.services.now_of)))


def _met(report: WaitReport, mode: WaitMode) -> bool:
    match mode:
        case WaitMode.ALL:
            met = False
        case WaitMode.ANY:
            met = bool(report.done)
        case WaitMode.FIRST_SUCCESS:
            met = any(job.status is JobStatus.COMPLETED for job in report.done)
    return met or not report.pending


async def _selection_of(call: Call, task_id: str) -> JobSelection:
    match task_id[:1]:
        case kind if kind == JOB_PREFIX:
            return JobSelection(jobs=[await call.visibility.job(task_id)])
        case kind if kind == BATCH_PREFIX:
            return await call.visibility.batch_selection(task_id)
        case _:
            return await selection_reader(call, (await _decode(call, task_id))[2])()


async def _jobs_of(call: Call, task_id: str) -> Sequence[str]:
    if task_id.startswith(JOB_PREFIX):
        return (task_id,)
    if task_id.startswith(BATCH_PREFIX):
        return [job.id for job in (await call.visibility.batch_selection(task_id)).jobs]
    return ()


async def _decode(call: Call, task_id: str) -> tuple[float, float | None, WaitArguments]:
    try:
        wait = decode(task_id)
    except (ValueError, KeyError, OverflowError) as error:
        raise _unknown() from error
    arguments = wait.arguments
    if wait.numbers:
        arguments = arguments.model_copy(update={"job_ids": await _ids(call, wait.numbers)})
    return wait.created, wait.until, arguments


async def _ids(call: Call, numbers: Sequence[int]) -> list[str]:
    ids: dict[int, str] = {}
    for number in sorted(numbers, reverse=True):
        if number not in ids:
            # Jobs of one wait were mostly admitted one after the other.
            limit = min(_PAGE, len(numbers))
            ids |= {job.seq: job.id for job in await call.visibility.newest(limit=limit, before_seq=number + 1)}
        if number not in ids:
            raise _unknown()
    return [ids[number] for number in numbers]


def _unknown() -> MCPError:
    return MCPError(INVALID_PARAMS, "Task not found")


def _touched(job: Job) -> float:
    return job.ended_at or job.started_at or job.created_at


def _wire(task_id: str, snapshot: Snapshot) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "taskId": task_id,
        "status": snapshot.status,
        "createdAt": _iso(snapshot.created),
        "lastUpdatedAt": _iso(snapshot.updated),
        # It exists for as long as its jobs do.
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }
    if snapshot.message:
        wire["statusMessage"] = snapshot.message
    return wire


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
