"""The MCP server: lists and calls the tools for whoever is at the other end of a connection."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from pydantic import ValidationError

from jobs.errors import JobFailedError, JobsError, NotFinishedError, NotFoundError, RecursionLimitError
from server import __version__
from server.arguments import Arguments, TaskArguments
from server.callers import Caller, calling_job
from server.catalogue import BY_NAME, Definition, listing
from server.tools import Call, Services
from server.unanswered import CALL_ID, TOOL_USE_ID

logger = logging.getLogger(__name__)

INSTRUCTIONS = """\
Runs trees of Claude Code jobs. Each job is a separate headless Claude with its own context; jobs may spawn jobs.
Start work with claude_run_batch_async (or claude_run_async), then call claude_wait with the batchId until pending is 0.
claude_wait shows an excerpt of each answer; claude_result reads the whole of it, page by page.
Give each task everything that it needs to know: a job does not see your conversation.
Do small tasks yourself: a job costs a process and a model turn. Limits of depth and number are enforced; an error says
what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What a handler finds in its context: the services, and who is calling.

    Args:
        services: What handlers call.
        caller: The other end of the connection.
    """

    services: Services
    caller: Caller


Context = ServerRequestContext[Connection]


def build_server() -> Server[Connection]:
    """Return the MCP server; who is calling comes with each connection's lifespan state."""
    return Server(
        "claude-jobs",
        version=__version__,
        title="Claude jobs",
        instructions=INSTRUCTIONS,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )


async def _list_tools(ctx: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    connection = ctx.lifespan_context
    try:
        job = await calling_job(connection.services.store, connection.caller)
    except JobsError as error:
        # A list has no place for an error of its own; of any other exception a newer client would not see the words.
        raise MCPError(INTERNAL_ERROR, str(error)) from error
    leaf = job is not None and job.depth >= connection.services.settings.max_depth
    return ListToolsResult(tools=list(listing(leaf=leaf)))


async def _call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    definition = BY_NAME.get(params.name)
    if definition is None:
        return _failure(f"Unknown tool {params.name!r}. There are: {', '.join(BY_NAME)}.")
    try:
        return _success(await _answer(ctx, definition, params))
    except ValidationError as error:
        return _failure(_argument_errors(definition, error))
    except NotFinishedError as error:
        return _failure(f"Job error: {error}")
    except JobFailedError as error:
        return _failure(f"{_PREFIXES.get(definition.name, '')}{error}")
    except NotFoundError as error:
        return _failure(f"{error}. Call claude_list_jobs for the jobs that you can see.")
    except (JobsError, RecursionLimitError) as error:
        return _failure(str(error))


_PREFIXES = {"claude_run": "Execution error: ", "claude_result": "Job error: "}
"""The older server began its errors so, and callers match on them."""


async def _answer(ctx: Context, definition: Definition, params: CallToolRequestParams) -> str:
    arguments: Arguments = definition.arguments.model_validate(params.arguments or {})
    connection = ctx.lifespan_context
    job = await calling_job(connection.services.store, connection.caller)
    call = Call(
        services=connection.services,
        job=job,
        origin=connection.caller.origin,
        tool_use_id=_tool_use_id(ctx),
        on_progress=_progress(ctx),
    )
    return await definition.handle(call, arguments)


def _tool_use_id(ctx: Context) -> str | None:
    # The pump gives a call an id of its own where the client sends none: after a crash it asks again.
    for key in (TOOL_USE_ID, CALL_ID):
        value = (ctx.meta or {}).get(key)
        if isinstance(value, str) and value:
            return f"{key}:{value}"
    return None


def _progress(ctx: Context) -> Callable[[int, int], Awaitable[None]]:
    async def report(over: int, total: int) -> None:
        await ctx.session.report_progress(over, total, f"{over} of {total} jobs are over")

    return report


def _argument_errors(definition: Definition, error: ValidationError) -> str:
    details = error.errors(include_url=False)
    problems = "; ".join(_problem(detail["loc"], detail["msg"]) for detail in details)
    accepts = f"It accepts: {_names(definition.arguments) or 'no arguments'}."
    if any(len(detail["loc"]) > 1 and detail["loc"][0] == "tasks" for detail in details):
        accepts += f" A task is a text, or an object with: {_names(TaskArguments)}."
    return f"{definition.name}: {problems}. {accepts} Correct the call and repeat it."


def _names(arguments: type[Arguments]) -> str:
    return ", ".join(field.alias or name for name, field in arguments.model_fields.items())


def _problem(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, location)) or "arguments"
    return f"{where}: {message}"


def _success(text: str) -> CallToolResult:
    return CallToolResult(content=[_block(text)])


def _failure(text: str) -> CallToolResult:
    return CallToolResult(content=[_block(text)], is_error=True)


def _block(text: str) -> TextContent:
    # Half a character, from a page cut within a pair for example, cannot be sent: it would break the connection.
    return TextContent(type="text", text=text.encode("utf-8", "replace").decode())
