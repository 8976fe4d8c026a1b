"""The MCP server: the handler of each request, for every connection."""

from functools import partial
from typing import Any

from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
)

from jobs.errors import JobsError
from server import __version__
from server.client.pending_requests import TOOL_USE_ID
from server.mcp import elicitation, permission_tools, prompts, resources, tasks
from server.mcp.arguments import WaitArguments
from server.mcp.calls import Context, call_of, failure, outcome
from server.mcp.connection_state import Connection, calling_job
from server.mcp.initialize import INSTRUCTIONS, NAME, TITLE
from server.mcp.subscriptions import Subscriptions
from server.mcp.tool_definitions import Definition
from server.mcp.tools import BY_NAME, listing, selection_reader

__all__ = ["INSTRUCTIONS", "TOOL_USE_ID", "Connection", "build_server"]


def build_server(updates: Subscriptions) -> Server[Connection]:
    """Return the MCP server; the caller is in each connection's lifespan state.

    Args:
        updates: Serves subscriptions to resources.
    """
    server: Server[Connection] = Server(
        NAME,
        version=__version__,
        title=TITLE,
        instructions=INSTRUCTIONS,
        on_list_tools=_list_tools,
        on_list_resources=resources.list_resources,
        on_list_resource_templates=resources.list_templates,
        on_read_resource=resources.read_resource,
        on_subscribe_resource=updates.subscribe,
        on_unsubscribe_resource=updates.unsubscribe,
        on_subscriptions_listen=updates.listen,
        on_list_prompts=prompts.list_prompts,
        on_get_prompt=prompts.get_prompt,
        on_completion=resources.complete,
    )
    # Spans are not collected here, and making one takes 5 % of a call (measured).
    server.middleware.clear()
    # Registered by name: the constructor's type has no place for the answer of an extension.
    server.add_request_handler("tools/call", CallToolRequestParams, _call_tool)
    server.add_request_handler("tasks/get", tasks.TaskParams, tasks.get)
    server.add_request_handler("tasks/update", tasks.TaskUpdateParams, tasks.update)
    server.add_request_handler("tasks/cancel", tasks.TaskParams, tasks.cancel)
    server.extensions[tasks.EXTENSION] = {}
    return server


async def _list_tools(ctx: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    connection = ctx.lifespan_context
    try:
        job = await calling_job(connection.services.store, connection.caller)
    except JobsError as error:
        # A list has no error field, and a newer client would not see the text of any other exception.
        raise MCPError(INTERNAL_ERROR, str(error)) from error
    leaf = job is not None and job.depth >= connection.services.settings.max_depth
    more = permission_tools.more_tools(connection.services.settings, job)
    return ListToolsResult(tools=[*listing(leaf=leaf), *more])


async def _call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult | dict[str, Any]:
    definition = BY_NAME.get(params.name) or permission_tools.definition_of(params.name)
    if definition is None:
        return failure(f"Unknown tool {params.name[:80]!r}. There are: {', '.join(BY_NAME)}.")
    return await outcome(definition, _answer(ctx, definition, params))


async def _answer(ctx: Context, definition: Definition, params: CallToolRequestParams) -> str | dict[str, Any]:
    """Return the tool's answer, or the task or the forms that replace it."""
    arguments = definition.arguments.model_validate(params.arguments or {})
    call = await call_of(ctx)
    if tasks.offered(ctx, definition.name) and (task := await tasks.begin(call, definition.name, arguments)):
        return task
    if not isinstance(arguments, WaitArguments):
        return await definition.handle(call, arguments)
    # Of the tools that wait, only this one may be repeated: it starts nothing.
    answer = partial(definition.handle, call, arguments)
    return await elicitation.forms_or_answer(ctx, params.input_responses, answer, selection_reader(call, arguments))
