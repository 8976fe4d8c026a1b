"""What the conformance suite asks a server to ask its client: by live request in the older era, as a result in 2026."""

from collections.abc import Mapping
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)
from pydantic import Field

from tests.e2e.suite.contents import ABOUT

_PAUSE = 0.05

NAME = {"name": {"type": "string"}}
OK = {"ok": {"type": "boolean"}}
DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}


def _titled(*titles: str) -> list[dict[str, str]]:
    return [{"const": f"value{number}", "title": title} for number, title in enumerate(titles, 1)]


ENUMS = {
    "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
    "titledSingle": {"type": "string", "oneOf": _titled("First Option", "Second Option", "Third Option")},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
    "titledMulti": {"type": "array", "items": {"anyOf": _titled("First Choice", "Second Choice", "Third Choice")}},
}


def form(message: str, properties: Mapping[str, Any]) -> ElicitRequest:
    schema = {"type": "object", "properties": dict(properties), "required": list(properties)}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str, most: int = 100) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=most))


def ask(state: str | None = None, /, **requests: InputRequest) -> InputRequiredResult:
    return InputRequiredResult(input_requests=requests, request_state=state)


def answered(ctx: Context, name: str) -> dict[str, Any]:
    """Return what the form of this name was filled in with; nothing where it was not."""
    answer = (ctx.input_responses or {}).get(name)
    return dict(answer.content or {}) if isinstance(answer, ElicitResult) and answer.action == "accept" else {}


def beside(ctx: Context) -> ServerMessageMetadata:
    """Return what puts a live request on the stream of the call; the client's other stream may not be open yet."""
    return ServerMessageMetadata(related_request_id=ctx.request_id)


def add_questions(server: MCPServer) -> None:
    """Add what asks."""
    _add_older(server)
    _add_newer(server)
    _add_several(server)
    _add_rounds(server)
    _add_diagnostics(server)


def _add_older(server: MCPServer) -> None:
    @server.tool(description=ABOUT, structured_output=False)
    async def test_sampling(prompt: str, ctx: Context) -> str:
        answer = await ctx.session.send_request(sample(prompt), CreateMessageResult, metadata=beside(ctx))
        assert isinstance(answer.content, TextContent)
        return f"LLM response: {answer.content.text}"

    async def fill_in(ctx: Context, message: str, properties: Mapping[str, Any]) -> str:
        answer = await ctx.session.send_request(form(message, properties), ElicitResult, metadata=beside(ctx))
        return f"action={answer.action}, content={answer.content}"

    @server.tool(description=ABOUT, structured_output=False)
    async def test_elicitation(message: str, ctx: Context) -> str:
        text = {"type": "string", "description": "User's response"}
        return f"User response: {await fill_in(ctx, message, {'username': text, 'email': text})}"

    @server.tool(description=ABOUT, structured_output=False)
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        return f"Elicitation completed: {await fill_in(ctx, 'Defaults', DEFAULTS)}"

    @server.tool(description=ABOUT, structured_output=False)
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        return f"Elicitation completed: {await fill_in(ctx, 'Choices', ENUMS)}"


def _add_newer(server: MCPServer) -> None:
    @server.tool(description=ABOUT, structured_output=False)
    def test_input_required_result_elicitation(ctx: Context) -> str | InputRequiredResult:
        name = answered(ctx, "user_name").get("name")
        return f"Hello, {name}!" if name else ask(user_name=form("What is your name?", NAME))

    @server.tool(description=ABOUT, structured_output=False)
    def test_input_required_result_sampling(ctx: Context) -> str | InputRequiredResult:
        answer = (ctx.input_responses or {}).get("capital_question")
        if isinstance(answer, CreateMessageResult) and isinstance(answer.content, TextContent):
            return answer.content.text
        return ask(capital_question=sample("What is the capital of France?"))

    @server.tool(description=ABOUT, structured_output=False)
    def test_input_required_result_list_roots(ctx: Context) -> str | InputRequiredResult:
        answer = (ctx.input_responses or {}).get("client_roots")
        if isinstance(answer, ListRootsResult):
            return ", ".join(str(root.uri) for root in answer.roots)
        return ask(client_roots=ListRootsRequest())


def _add_several(server: MCPServer) -> None:
    @server.tool(description=ABOUT, structured_output=False)
    def test_input_required_result_multiple_inputs(ctx: Context) -> str | InputRequiredResult:
        if ctx.request_state and {"user_name", "greeting", "client_roots"} <= set(ctx.input_responses or {}):
            return "All three were answered."
        return ask(
            "asked",
            user_name=form("What is your name?", NAME),
            greeting=sample("Generate a greeting", 50),
            client_roots=ListRootsRequest(),
        )

    @server.tool(description=ABOUT, structured_output=False)
    def test_input_required_result_capabilities(ctx: Context) -> str | InputRequiredResult:
        able = ctx.client_capabilities or ClientCapabilities()
        requests: dict[str, InputRequest] = {}
        if able.elicitation is not None:
            requests["name"] = form("What is your name?", NAME)
        if able.sampling is not None:
            requests["greeting"] = sample("Generate a greeting")
        return ask(**requests) if requests and not ctx.input_responses else "Nothing to ask."

    @server.prompt(description="Asks for its context.")
    def test_input_required_result_prompt(ctx: Context) -> Any:
        context = answered(ctx, "user_context").get("context")
        question = form("What context should the prompt use?", {"context": {"type": "string"}})
        return f"Context: {context}" if context else ask(user_context=question)


def _add_rounds(server: MCPServer) -> None:
    def confirmed(ctx: Context) -> str | InputRequiredResult:
        # Whoever changed the state is refused by the SDK before this is called.
        if ctx.request_state == "asked" and answered(ctx, "confirm"):
            return "state-ok"
        return ask("asked", confirm=form("Please confirm", OK))

    for name in ("test_input_required_result_request_state", "test_input_required_result_tampered_state"):
        server.tool(name, description=ABOUT, structured_output=False)(confirmed)

    @server.tool(description=ABOUT, structured_output=False)
    def test_input_required_result_multi_round(ctx: Context) -> str | InputRequiredResult:
        match ctx.request_state:
            case None:
                return ask("1", step1=form("Step 1: What is your name?", NAME))
            case "1":
                return ask("2", step2=form("Step 2: What is your favorite color?", {"color": {"type": "string"}}))
            case _:
                return "Both steps are done."


def _add_diagnostics(server: MCPServer) -> None:
    async def log(ctx: Context) -> str:
        for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await ctx.session.send_log_message("info", text, related_request_id=ctx.request_id)
            await anyio.sleep(_PAUSE)
        return "Logged."

    for name in ("test_tool_with_logging", "test_logging_tool"):
        server.tool(name, description=ABOUT, structured_output=False)(log)

    @server.tool(description=ABOUT, structured_output=False)
    def test_missing_capability(ctx: Context) -> str:
        if (ctx.client_capabilities or ClientCapabilities()).sampling is None:
            needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", needed)
        return "It is there."

    @server.tool(description=ABOUT, structured_output=False)
    def test_streaming_elicitation(ctx: Context) -> str | InputRequiredResult:
        name = answered(ctx, "user_name").get("name")
        return f"Hello, {name}!" if name else ask(user_name=form("What is your name?", NAME))

    @server.tool(description=ABOUT, structured_output=False)
    def test_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region
