"""What the conformance suite asks every server for by name: tools, resources and prompts of fixed content."""

import base64
import zlib
from struct import pack

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import AudioContent, EmbeddedResource, ImageContent, TextContent, TextResourceContents

ABOUT = "For the suite."
_PAUSE = 0.05
"""Seconds between two notifications; the suite looks at their order."""


def _png() -> bytes:
    """Return one red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    header = pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + chunk(b"IEND", b"")
    )


PIXEL = _png()
SILENCE = b"RIFF$\0\0\0WAVEfmt " + pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8) + b"data\0\0\0\0"
IMAGE = ImageContent(type="image", data=base64.b64encode(PIXEL).decode(), mime_type="image/png")
AUDIO = AudioContent(type="audio", data=base64.b64encode(SILENCE).decode(), mime_type="audio/wav")


def embedded(uri: str, text: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=kind, text=text))


def words(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def add_contents(server: MCPServer) -> None:
    """Add what only returns something."""
    _add_tools(server)
    _add_events(server)
    _add_resources(server)
    _add_prompts(server)


def _add_tools(server: MCPServer) -> None:
    @server.tool(description=ABOUT, structured_output=False)
    def test_simple_text() -> str:
        return "This is a simple text response for testing."

    @server.tool(description=ABOUT, structured_output=False)
    def test_image_content() -> ImageContent:
        return IMAGE

    @server.tool(description=ABOUT, structured_output=False)
    def test_audio_content() -> AudioContent:
        return AUDIO

    @server.tool(description=ABOUT, structured_output=False)
    def test_embedded_resource() -> EmbeddedResource:
        return embedded("test://embedded-resource", "This is an embedded resource content.")

    @server.tool(description=ABOUT, structured_output=False)
    def test_multiple_content_types() -> list:
        data = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
        return [words("Multiple content types test:"), IMAGE, data]


def _add_events(server: MCPServer) -> None:
    @server.tool(description=ABOUT, structured_output=False)
    def test_error_handling() -> str:
        raise ToolError("This tool intentionally returns an error for testing")

    @server.tool(description=ABOUT, structured_output=False)
    async def test_tool_with_progress(ctx: Context) -> str:
        for done in (0, 50, 100):
            await ctx.report_progress(done, 100)
            await anyio.sleep(_PAUSE)
        return "Done."

    @server.tool(description=ABOUT, structured_output=False)
    async def test_reconnection(ctx: Context) -> str:
        await ctx.close_sse_stream()
        await anyio.sleep(2 * _PAUSE)
        return "The stream was closed and the answer came all the same."

    @server.tool(description=ABOUT, structured_output=False)
    def greet(name: str) -> str:
        return f"Hello, {name}!"


def _add_resources(server: MCPServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain", description="A text.")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png", description="A picture.")
    def static_binary() -> bytes:
        return PIXEL

    @server.resource("test://template/{identity}/data", mime_type="application/json", description="A template.")
    def template(identity: str) -> str:
        return f'{{"id":"{identity}","templateTest":true,"data":"Data for ID: {identity}"}}'


def _add_prompts(server: MCPServer) -> None:
    @server.prompt(description=ABOUT)
    def test_simple_prompt() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(description=ABOUT)
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(description=ABOUT)
    def test_prompt_with_embedded_resource(resourceUri: str) -> list:  # noqa: N803 - the suite's own name
        resource = embedded(resourceUri, "Embedded resource content for testing.")
        return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]

    @server.prompt(description=ABOUT)
    def test_prompt_with_image() -> list:
        return [UserMessage(IMAGE), UserMessage("Please analyze the image above.")]
