"""The tools, in 8 KB together: what a client is told of each, and its handler. Decisions are made below this layer."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import cache, partial

import anyio
from mcp_types import Tool

from jobs.errors import BadInputError, NotFoundError
from jobs.ids import is_batch_id
from jobs.model import Batch, Job, JobStatus, Usage
from jobs.permissions.approvals import PermissionRequest
from jobs.permissions.visibility import JobSelection
from jobs.ports import Admission
from jobs.validation import TreeBounds
from jobs.waiting import WaitMode, WaitReport
from jobs.waiting_for import WaitingFor
from server.mcp import replies, statistics
from server.mcp.advice import advice_on_hold
from server.mcp.arguments import (
    BatchArguments,
    JobArguments,
    ListArguments,
    ResultArguments,
    RetryArguments,
    RunArguments,
    SendArguments,
    WaitArguments,
)
from server.mcp.connection_state import Call
from server.mcp.interrupted_calls import batch_asks, run_asks
from server.mcp.pause_tool import claude_pause
from server.mcp.tool_definitions import Definition, as_tool, tool

UNBOUNDED = float("inf")

LONGEST_HOLD_SECONDS = 20 * 3600.0
"""Longest wait of a job in a pause. Claude Code 2.1.330 ends a call of a tool after 27.8 hours, whatever it is told of
its progress (measured)."""

MAX_RESULT_CHARS = 200_000
"""Most characters of results in one reply of `claude_result`."""

INLINE_CHARS = 250_000
"""What `claude_result` asks Claude Code to pass on inline: it spills at 50,000 otherwise, 390,000 passed (measured).

More than `MAX_RESULT_CHARS`: the notes that say how to read on count too, and one a job of a hundred is 20,000.
"""


@tool(
    title="Run a job",
    about=(
        "Run one task as a separate Claude job and return its result. Blocks; for several use a batch. "
        "strategy decompose lets the job divide its task among child jobs."
    ),
    spawns=True,
    everyday=True,
)
async def claude_run(call: Call, arguments: RunArguments) -> str:
    """Run one job to its end and return its result."""
    admission = await submit(call, arguments)
    report, asked = await _wait_for(call, admission)
    if asked and report.pending:
        return run_asks(admission, asked)
    return await run_reply(call, admission.jobs[0].id)


@tool(
    title="Start a job",
    about="As claude_run, with all its arguments, but returns the jobId at once; then claude_wait.",
    spawns=True,
    like="claude_run",
)
async def claude_run_async(call: Call, arguments: RunArguments) -> str:
    """Start one job and return its id."""
    admission = await submit(call, arguments)
    return replies.started(admission.jobs[0], await call.services.recursion.pause_ahead(admission.jobs))


@tool(
    title="Run several jobs",
    about="As claude_run_batch_async, with all its arguments, but blocks until all are over; one line each.",
    spawns=True,
    like="claude_run_batch_async",
)
async def claude_run_batch(call: Call, arguments: BatchArguments) -> str:
    """Run several jobs to their end and return a line for each."""
    began = time.monotonic()
    admission = await submit(call, arguments)
    report, asked = await _wait_for(call, admission)
    if asked and report.pending:
        return batch_asks(admission, asked)
    milliseconds, excerpt_chars = round((time.monotonic() - began) * 1000), call.services.settings.excerpt_chars
    return replies.batch_done(admission.batch, report, milliseconds, excerpt_chars=excerpt_chars)


@tool(
    title="Start several jobs",
    about=(
        "Start several tasks as parallel Claude jobs and return batchId and jobIds at once; then claude_wait. "
        "A task is a text, or an object with any of these options, a key and dependsOn: keys or indexes of tasks "
        "to wait for, whose answers replace {{results.KEY}} in it. Options next to tasks hold for each task that "
        "does not set them: maxBudgetUsd is for each one, treeBudgetUsd for all of it."
    ),
    spawns=True,
    everyday=True,
)
async def claude_run_batch_async(call: Call, arguments: BatchArguments) -> str:
    """Start several jobs and return their ids."""
    admission = await submit(call, arguments)
    return replies.spawned(admission, await call.services.recursion.pause_ahead(admission.jobs))


@tool(
    title="Show a job, batch or tree",
    about="Where a job, batch or tree is. jobId takes any of these ids; counts and cost are rolled up.",
    reads=True,
    everyday=True,
)
async def claude_status(call: Call, arguments: JobArguments) -> str:
    """Return the status of a job, a batch or a tree."""
    if is_batch_id(arguments.job_id):
        batch = await call.visibility.batch(arguments.job_id)
        return await _batch_status(call, batch)
    job = await call.visibility.job(arguments.job_id)
    attempt = await call.services.store.attempt(job.id, job.attempt) if job.attempt else None
    sums = await call.visibility.rollup(job.id)
    now, pauses = call.services.now_of(job), call.services.recursion.all_pauses((job.root_id,))
    below = sums.without(job, now.activity.usage if now.activity else Usage())
    children = await call.visibility.live_children(job) if now.wait and now.wait.what is WaitingFor.CHILDREN else 0
    rollup = below if below.total else None
    asks, budget = _request_of(call, job), await _budget_of(call, job.id, job.root_id, job.spec.max_budget_usd)
    return replies.job_status(
        now,
        rollup,
        pauses,
        attempt=attempt,
        live_children=children,
        request_id=asks,
        budget_usd=budget,
        whole=call.whole,
    )


async def _budget_of(call: Call, identity: str, root_id: str, own: float | None = None) -> float | None:
    """Return the budget of a job or a tree in US dollars, for a person; the smaller one where there are two."""
    tree = await call.services.store.tree(root_id) if call.whole and identity == root_id else None
    budgets = (own if call.whole else None, tree.max_budget_usd if tree else None)
    return min((one for one in budgets if one is not None), default=None)


def _request_of(call: Call, job: Job) -> str | None:
    """Return the id of the permission request of a job that the caller may answer, or None."""
    if call.services.approvals.answerer != "parent" and not call.whole:
        # A model would try to answer it.
        return None
    return next((one.id for one in call.services.approvals.open_to(call.job) if one.job.id == job.id), None)


async def _batch_status(call: Call, batch: Batch) -> str:
    rollup, pauses = await call.visibility.rollup(batch.id), call.services.recursion.all_pauses((batch.root_id,))
    until = call.services.now()
    if not rollup.live:
        ends = [job.ended_at for job in (await call.visibility.batch_selection(batch.id)).jobs if job.ended_at]
        until = max(ends, default=batch.created_at)
    budget = await _budget_of(call, batch.id, batch.root_id)
    seconds = until - batch.created_at
    return replies.batch_status(batch, rollup, pauses, seconds=seconds, budget_usd=budget, whole=call.whole)


@tool(
    title="Wait for jobs",
    about=(
        "Wait for jobIds, a batchId or all below subtreeOf. Returns who is done since cursor with an excerpt, "
        "how many are pending, and the next cursor. While pending is not 0, call again with it: no polling needed."
    ),
    reads=True,
    everyday=True,
)
async def claude_wait(call: Call, arguments: WaitArguments) -> str:
    """Wait for jobs, a batch or a subtree and return those that ended."""
    read = selection_reader(call, arguments)
    longest = call.services.settings.wait_seconds
    asked = longest if arguments.timeout_seconds is None else min(arguments.timeout_seconds, longest)
    mode = WaitMode(arguments.mode)
    wait = partial(_wait_unless_asked, call, read, mode=mode, seconds=asked, cursor=arguments.cursor)
    report, requests = await wait()
    if call.job is not None and arguments.timeout_seconds is None:
        # A model that is told to call again does so every two minutes, for hours.
        until = anyio.current_time() + LONGEST_HOLD_SECONDS
        while report.held and not report.done and not requests and anyio.current_time() < until:
            report, requests = await wait()
    return wait_reply(call, report, requests)


def wait_reply(call: Call, report: WaitReport, requests: Sequence[PermissionRequest]) -> str:
    """Answer a wait; where nothing goes on for long, advise the caller what to do meanwhile."""
    settings, hold = call.services.settings, report.held
    is_long = hold and (hold.until is None or hold.until - call.services.now() > settings.wait_seconds)
    step = advice_on_hold(hold, is_job=call.job is not None) if hold and is_long else ""
    return replies.waited(
        report, requests, excerpt_chars=settings.excerpt_chars, now_of=call.services.now_of, next_step=step
    )


@tool(
    title="Read results",
    about="Result of a finished job; offset and limit page it, in characters. jobIds reads several in one budget.",
    reads=True,
    everyday=True,
    inline_chars=INLINE_CHARS,
)
async def claude_result(call: Call, arguments: ResultArguments) -> str:
    """Return a page of one result, or of the answers of several jobs within one budget."""
    call.visibility.refuse_self("read its own result", "Leave it out.", jobs=(arguments.job_id, *arguments.job_ids))
    limit = min(arguments.limit or call.services.settings.result_chars, MAX_RESULT_CHARS)
    if arguments.job_ids:
        ids = [*([arguments.job_id] if arguments.job_id else []), *arguments.job_ids]
        return await call.results.several(await call.visibility.jobs(ids), offset=arguments.offset, limit=limit)
    if not arguments.job_id:
        raise BadInputError("jobId", "no job is named", "Give jobId, or jobIds for several.")
    return await call.results.page(await call.visibility.job(arguments.job_id), offset=arguments.offset, limit=limit)


@tool(
    title="List jobs",
    about="Your jobs, newest first.",
    reads=True,
)
async def claude_list_jobs(call: Call, arguments: ListArguments) -> str:
    """List the caller's jobs, newest first."""
    before = (await call.visibility.job(arguments.before)).seq if arguments.before else None
    # One more than is shown tells whether there are more.
    found = await call.visibility.newest(
        limit=arguments.limit + 1, before_seq=before, status=arguments.status, under=arguments.under
    )
    shown, recursion = found[: arguments.limit], call.services.recursion
    pauses = recursion.all_pauses({job.root_id for job in shown if job.status is JobStatus.QUEUED})
    excerpt_chars, more = call.services.settings.excerpt_chars, len(found) > arguments.limit
    now_of = call.services.now_of
    return replies.job_list(
        shown, more=more, excerpt_chars=excerpt_chars, now_of=now_of, pauses=pauses, whole=call.whole
    )


@tool(
    title="Cancel jobs",
    about="Cancel a job and every job below it, or a batch.",
    ends=True,
)
async def claude_kill_job(call: Call, arguments: JobArguments) -> str:
    """Cancel a job and everything below it, or every job of a batch."""
    try:
        jobs = await _cancellable(call, arguments.job_id)
    except NotFoundError as error:
        return replies.killed(error.shown, ())
    cancelled = await call.services.manager.cancel_subtrees(jobs)
    return replies.killed(arguments.job_id, cancelled)


async def _cancellable(call: Call, identity: str) -> Sequence[Job]:
    if is_batch_id(identity):
        return (await call.visibility.batch_selection(identity)).jobs
    return (await call.visibility.job(identity),)


@tool(
    title="Continue a job",
    about="Continue a finished job's session, as a new job with its directory and rights; then claude_wait.",
    spawns=True,
)
async def claude_send(call: Call, arguments: SendArguments) -> str:
    """Continue the session of a job that is over, as a new job."""
    job = await call.visibility.job(arguments.job_id)
    call.visibility.refuse_self("send itself a message", "Start a job with claude_run_async.", jobs=(job.id,))
    message, key = arguments.message(), arguments.idempotency_key or call.tool_use_id
    parent_id = call.job.id if call.job else None
    admission = await call.services.sessions.send(
        job, message, parent_id=parent_id, client_context=call.client_context, idempotency_key=key
    )
    return replies.sent(admission.jobs[0], job, await call.services.recursion.pause_ahead(admission.jobs))


@tool(
    title="Retry jobs",
    about="Run a failed, timed-out or cancelled job again, or with subtree all such below a job or batch.",
    steers_below=True,
)
async def claude_retry(call: Call, arguments: RetryArguments) -> str:
    """Retry a job, or everything below it that failed."""
    whole, see = arguments.subtree or is_batch_id(arguments.job_id), call.visibility
    jobs = (await see.subtree_selection(arguments.job_id)).jobs if whole else [await see.job(arguments.job_id)]
    mine = [job for job in jobs if call.job is None or job.id != call.job.id]
    result = await call.services.sessions.retry(mine, client_context=call.client_context)
    return replies.retried(result, await call.services.recursion.pause_ahead(result.restarted))


async def submit(call: Call, arguments: RunArguments | BatchArguments) -> Admission:
    """Admit and start the one job of a run, or the jobs of a batch."""
    parent_id = arguments.parent_job_id
    if call.job is not None:
        if parent_id not in (None, call.job.id):
            # The same answer as for an unknown job, so that ids of other trees cannot be probed.
            raise NotFoundError("Job", parent_id or "")
        parent_id = call.job.id
    if isinstance(arguments, BatchArguments):
        requests, key = arguments.requests(), arguments.key()
        bounds = TreeBounds(usd=arguments.tree_budget_usd, seconds=arguments.tree_timeout_seconds)
    else:
        requests, key, bounds = [arguments.request()], arguments.idempotency_key, None
    turn = nullcontext() if call.job is None else call.services.recursion.turns.hold(call.job.id)
    async with turn:
        return await call.services.manager.submit(
            requests,
            parent_id,
            client_context=call.client_context,
            as_root=isinstance(arguments, RunArguments),
            idempotency_key=key or call.tool_use_id,
            bounds=bounds,
        )


async def run_reply(call: Call, job_id: str) -> str:
    """Answer for a job that is over, with its result.

    Raises:
        JobFailedError: It has none.
        NotFinishedError: It is not over.
    """
    job = await call.visibility.job(job_id)
    return await call.results.page(job, offset=0, limit=call.services.settings.result_chars)


async def _wait_for(call: Call, admission: Admission) -> tuple[WaitReport, Sequence[PermissionRequest]]:
    read = partial(_selection_of, call, tuple(job.id for job in admission.jobs))
    return await _wait_unless_asked(call, read, mode=WaitMode.ALL, seconds=UNBOUNDED)


async def _wait_unless_asked(
    call: Call,
    read: Callable[[], Awaitable[JobSelection]],
    *,
    mode: WaitMode,
    seconds: float,
    cursor: str | None = None,
) -> tuple[WaitReport, Sequence[PermissionRequest]]:
    """Wait, at most until a job asks for a permission that the caller may give, and return what it may give."""
    approvals = call.services.approvals
    # A job may answer requests of all jobs below it; a caller outside every tree, those of the jobs it waits for.
    paths = (await read()).paths if call.job is None else None
    wait = partial(
        call.services.waiting.wait,
        read,
        mode=mode,
        cursor=cursor,
        on_progress=call.on_progress,
        while_waiting=partial(_aside, call),
    )
    client = call.client_context.client
    until = anyio.current_time() + seconds
    while True:
        with approvals.wake_on_new(call.job, paths, client=client) as asking:
            seconds = max(0.0, until - anyio.current_time())
            report = await call.wait_wrapper(partial(wait, seconds=seconds), read)
        if asking.cancelled_caught:
            report = await call.wait_wrapper(partial(wait, seconds=0), read)
        asked = approvals.mark_shown(call.job, paths, client=client)
        # Interrupted in vain: the request was answered elsewhere, or its time was over.
        if asked or not report.pending or not asking.cancelled_caught:
            return report, asked


@asynccontextmanager
async def _aside(call: Call) -> AsyncIterator[None]:
    """Free capacity while a call waits: for other requests of its connection and, if a job calls, its slot."""
    parked = nullcontext() if call.job is None else call.services.recursion.scheduler.parked(call.job.id)
    async with call.flow.waiting(), parked:
        yield


def selection_reader(call: Call, arguments: WaitArguments) -> Callable[[], Awaitable[JobSelection]]:
    """Return a function that reads the jobs that a wait is about.

    Raises:
        BadInputError: Not exactly one way to name them was used.
        OwnJobError: The calling job is among them.
    """
    given = [bool(arguments.job_ids), arguments.batch_id is not None, arguments.subtree_of is not None]
    if sum(given) != 1:
        raise BadInputError("jobIds", "give exactly one of jobIds, batchId and subtreeOf", "Then call again.")
    remedy = "Leave it out, or give subtreeOf with its id for everything below it."
    batches = (arguments.batch_id, arguments.subtree_of)
    call.visibility.refuse_self("wait for itself", remedy, jobs=arguments.job_ids, batches=batches)
    if arguments.job_ids:
        return partial(_selection_of, call, tuple(arguments.job_ids))
    if arguments.batch_id is not None:
        return partial(call.visibility.batch_selection, arguments.batch_id)
    return partial(_below, call, arguments.subtree_of or "")


async def _selection_of(call: Call, job_ids: Sequence[str]) -> JobSelection:
    return JobSelection(jobs=await call.visibility.jobs(job_ids))


async def _below(call: Call, root: str) -> JobSelection:
    selection = await call.visibility.subtree_selection(root)
    if call.job is None:
        return selection
    # A job that waits for its own subtree must not wait for itself.
    return JobSelection(
        jobs=[job for job in selection.jobs if job.id != call.job.id], path=selection.path, without=call.job.id
    )


DEFINITIONS: tuple[Definition, ...] = (
    claude_run,
    claude_run_async,
    claude_run_batch,
    claude_run_batch_async,
    claude_wait,
    claude_result,
    claude_status,
    claude_list_jobs,
    claude_kill_job,
    claude_pause,
    claude_send,
    claude_retry,
    *statistics.TOOLS,
)
"""The tools in the order of their list."""

BY_NAME: Mapping[str, Definition] = {definition.name: definition for definition in DEFINITIONS}


@cache
def listing(*, leaf: bool) -> Sequence[Tool]:
    """Return the tools in a fixed order; a leaf gets none that spawns, pauses or retries: it has no jobs below it."""
    shown = (one for one in DEFINITIONS if not (leaf and (one.spawns or one.steers_below)))
    return tuple(as_tool(definition) for definition in shown)
