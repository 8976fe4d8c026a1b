"""Makes a handler's `Call` from its request context: the engine's services and the caller."""

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
        UnknownTokenError: The calling job is over.
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
    # At each call: the settings file may have changed since the handshake. A job's tree has its settings already.
    client_context = connection.caller.client_context
    if job is not None:
        return client_context
    return replace(client_context, settings=connection.services.for_tree(connection.caller.settings))


def _tool_use_id(ctx: Context) -> str | None:
    # The pump gives a call an id where the client sends none: after a crash it repeats the call.
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
        # A job that is retried is not over any more, and MCP progress must increase.
        last = round(max(where.value, last + LEAST_GROWTH), 6)
        now = ctx.lifespan_context.services.now()
        await ctx.session.report_progress(last, where.total, progress.progress(where, now))

    return report
