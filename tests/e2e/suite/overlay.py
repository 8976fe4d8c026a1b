"""Puts the conformance suite's fixtures beside what the production app serves, on the same server."""

from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp_types import (
    CallToolRequestParams,
    EmptyResult,
    GetPromptRequestParams,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    RequestParams,
    SetLevelRequestParams,
    Tool,
)

from server.mcp.calls import Context
from server.mcp.connection_state import Connection
from server.mcp.tasks import TaskParams, TaskUpdateParams
from tests.e2e.suite import tasks
from tests.e2e.suite.contents import ABOUT, add_contents
from tests.e2e.suite.questions import add_questions

Handler = Callable[[Context, Any], Awaitable[Any]]

RICH = "json_schema_2020_12_tool"
RICH_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def add_fixtures(server: Server[Connection]) -> None:
    """Let a production server answer for the suite's fixtures too; what is not one of them it answers itself."""
    fixtures = MCPServer("fixtures")
    add_contents(fixtures)
    add_questions(fixtures)
    beside = fixtures._lowlevel_server  # noqa: SLF001 - the SDK has no public name for it
    # The SDK's own seal on what a client has to hand back.
    server.middleware.extend(beside.middleware)
    _join_lists(server, beside)
    _join_calls(server, beside, frozenset(fixtures._tool_manager._tools))  # noqa: SLF001 - the same
    _choose(
        server, beside, "resources/read", ReadResourceRequestParams, lambda params: params.uri.startswith("test://")
    )
    _choose(server, beside, "prompts/get", GetPromptRequestParams, lambda params: params.name.startswith("test_"))
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, _set_level)


def _handler(server: Server[Any], method: str) -> Handler:
    entry = server.get_request_handler(method)
    assert entry is not None, method
    return entry.handler


def _join_lists(server: Server[Any], beside: Server[Any]) -> None:
    for method, name in (
        ("resources/list", "resources"),
        ("resources/templates/list", "resource_templates"),
        ("prompts/list", "prompts"),
    ):
        _join_list(server, beside, method, name)
    own, more = _handler(server, "tools/list"), _handler(beside, "tools/list")

    async def list_tools(ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        rich = Tool(name=RICH, description=ABOUT, input_schema=RICH_SCHEMA)
        listed = [*(await own(ctx, params)).tools, *(await more(ctx, params)).tools]
        return ListToolsResult(tools=[*listed, rich, *tasks.TOOLS])

    server.add_request_handler("tools/list", PaginatedRequestParams, list_tools)


def _join_list(server: Server[Any], beside: Server[Any], method: str, name: str) -> None:
    own, more = _handler(server, method), _handler(beside, method)

    async def both(ctx: Context, params: PaginatedRequestParams | None) -> Any:
        first, second = await own(ctx, params), await more(ctx, params)
        return first.model_copy(update={name: [*getattr(first, name), *getattr(second, name)]})

    server.add_request_handler(method, PaginatedRequestParams, both)


def _choose(
    server: Server[Any], beside: Server[Any], method: str, params: type[RequestParams], fits: Callable[[Any], bool]
) -> None:
    own, more = _handler(server, method), _handler(beside, method)

    async def either(ctx: Context, given: Any) -> Any:
        return await (more if fits(given) else own)(ctx, given)

    server.add_request_handler(method, params, either)


def _join_calls(server: Server[Any], beside: Server[Any], names: frozenset[str]) -> None:
    suite = tasks.SuiteTasks(_handler(server, "tools/call"))
    _choose(server, beside, "tools/call", CallToolRequestParams, lambda params: params.name in names)
    rest = _handler(server, "tools/call")

    async def call(ctx: Context, params: CallToolRequestParams) -> Any:
        return await (suite.call if params.name in tasks.NAMES else rest)(ctx, params)

    server.add_request_handler("tools/call", CallToolRequestParams, call)
    for verb, given in (("get", TaskParams), ("update", TaskUpdateParams), ("cancel", TaskParams)):
        _choose_task(server, suite, verb, given)


def _choose_task(server: Server[Any], suite: tasks.SuiteTasks, verb: str, given: type[TaskParams]) -> None:
    own, more = _handler(server, f"tasks/{verb}"), getattr(suite, verb)

    async def either(ctx: Context, params: Any) -> Any:
        return await (more if suite.has(params.task_id) else own)(ctx, params)

    server.add_request_handler(f"tasks/{verb}", given, either)


async def _set_level(_: Context, __: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()
