"""A client that comes before the MCP SDK is loaded is greeted at once, and as the SDK greets it."""

import json
import socket
import subprocess
import sys
from typing import Any, cast

import anyio
import pytest
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from jobs.client_context import ClientContext
from jobs.event_bus import JobEventBus
from server.engine.connection import LazyMcpServer
from server.mcp.connection_state import Caller, Connection
from server.mcp.initialize import VERSIONS, opening_of

pytestmark = pytest.mark.anyio


def initialize(**params: Any) -> dict[str, Any]:
    info = {"name": "test", "version": "1"}
    given = {"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": info, **params}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": given}


async def answers(mcp_server: LazyMcpServer, *messages: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Send messages over a connection of their own and return the first answers."""
    ours, theirs = [await UNIXSocketStream.from_socket(end) for end in socket.socketpair()]
    nobody = Connection(services=cast("Any", None), caller=Caller(client_context=ClientContext(cwd="/", env={})))
    async with anyio.create_task_group() as group, ours, theirs:
        group.start_soon(mcp_server.serve, ours, BufferedByteReceiveStream(ours), nobody)
        lines = BufferedByteReceiveStream(theirs)
        for message in messages:
            await theirs.send(json.dumps(message).encode() + b"\n")
        with anyio.fail_after(60):
            found = [json.loads(await lines.receive_until(b"\n", 1 << 20)) for _ in range(count)]
        group.cancel_scope.cancel()
    return found


@pytest.mark.parametrize("version", sorted(VERSIONS))
async def test_who_comes_early_is_greeted_once_and_as_the_sdk_greets(version: str):
    conversation = (
        initialize(protocolVersion=version),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "ping"},
    )
    loaded, created = (LazyMcpServer(JobEventBus(), lambda *_: None) for _ in range(2))
    await loaded.load()
    late = await answers(loaded, *conversation, count=2)
    early = await answers(created, *conversation, count=2)
    assert [answer["id"] for answer in early] == [1, 2]
    assert early == late
    assert json.loads(opening_of(json.dumps(conversation[0]).encode()).reply or b"") == late[0]


@pytest.mark.parametrize(
    "message",
    [
        initialize(protocolVersion="2024-11-05"),
        initialize(protocolVersion=7),
        initialize(capabilities={"roots": 5}),
        initialize(clientInfo={"name": "test"}),
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    ],
)
async def test_whatever_else_comes_first_is_left_to_the_sdk(message: dict[str, Any]):
    assert opening_of(json.dumps(message).encode()).reply is None
    [answer] = await answers(LazyMcpServer(JobEventBus(), lambda *_: None), message, count=1)
    assert "result" in answer or "error" in answer


async def test_what_the_greeting_took_and_the_sdk_refuses_is_answered_once():
    taken = initialize(capabilities={"sampling": {"tools": 5}})
    assert opening_of(json.dumps(taken).encode()).reply is not None
    found = await answers(
        LazyMcpServer(JobEventBus(), lambda *_: None), taken, {"jsonrpc": "2.0", "id": 2, "method": "ping"}, count=2
    )
    assert [answer["id"] for answer in found] == [1, 2]


_LATE = """
import sys
import anyio
from tests.unit.mcp.test_initialize import JobEventBus, LazyMcpServer, answers, initialize

async def late() -> None:
    mcp_server = LazyMcpServer(JobEventBus(), lambda *_: None)
    await mcp_server.load()
    before = set(sys.modules)
    await answers(mcp_server, initialize(), count=1)
    print(sorted(name for name in set(sys.modules) - before if name.startswith(("server", "jobs", "mcp"))))

anyio.run(late)
"""


def test_once_the_sdk_is_loaded_no_client_makes_the_event_loop_import_anything():
    # In a process of its own: this one has imported all of it.
    done = subprocess.run([sys.executable, "-c", _LATE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
