"""What a handler finds in its context: the engine's services, who is calling, and the call that follows from both."""

from dataclasses import replace
from functools import partial

from mcp.server.context import ServerRequestContext

from jobs.client_context import ClientContext
from jobs.model import Job
from jobs.waiting import OnProgress, Progress
from server.client.pending_requests import CALL_ID, LEAST_GROWTH, TOOL_USE_ID
from server.mcp import elicitation, progress
from server.mcp.auth import calling_job
from server.mcp.connection_state import Connection
from server.mcp.tools import Call

Context = ServerRequestContext[Connection]


async def call_of(ctx: Context) -> Call:
    """Return the call that a request makes.

    Raises:
        UnknownTokenError: The job that calls is over.
        InvalidSettingsError: The settings file has changed, and the client's settings do not fit it any more.
    """
    connection = ctx.lifespan_context
    job = await calling_job(connection.services.store, connection.caller)
    return Call(
        services=connection.services,
        job=job,
        client_context=_client_context(connection, job),
        tool_use_id=_tool_use_id(ctx),
        on_progress=_progress(ctx),
        wait_wrapper=partial(elicitation.wait_with_forms, ctx),
        flow=connection.flow,
    )


def _client_context(connection: Connection, job: Job | None) -> ClientContext:
    # At each call: the file may have changed since the client came. A job's tree has its settings already.
    client_context = connection.caller.client_context
    if job is not None:
        return client_context
    return replace(client_context, settings=connection.services.for_tree(connection.caller.settings))


def _tool_use_id(ctx: Context) -> str | None:
    # The pump gives a call an id of its own where the client sends none: after a crash it asks again.
    for key in (TOOL_USE_ID, CALL_ID):
        value = (ctx.meta or {}).get(key)
        if isinstance(value, str) and value:
            return f"{key}:{value}"
    return None


def _progress(ctx: Context) -> OnProgress | None:
    if (ctx.meta or {}).get("progress_token") is None:
        return None
    last = -1.0

    async def report(where: Progress) -> None:
        nonlocal last
        # A job that is tried again is not over any more, and what a client is told must grow.
        last = round(max(where.value, last + LEAST_GROWTH), 6)
        now = ctx.lifespan_context.services.now()
        await ctx.session.report_progress(last, where.total, progress.progress(where, now))

    return report
