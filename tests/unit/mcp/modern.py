"""A client of the newest protocol that sends and shows its messages as they are, extensions included."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import jsonrpc_message_adapter

from jobs.client_context import ClientContext
from jobs.ids import hash_token
from server.mcp.connection_state import Caller, Connection
from server.mcp.tasks import EXTENSION
from tests.unit.mcp.world import PATH, World, transport

SECONDS = 20.0


class Modern:
    """One connection.

    Args:
        sent: Where messages for the server go.
        heard: Where its messages come from.
        extensions: What each request declares.
        capabilities: What it declares besides.
    """

    def __init__(
        self,
        sent: MemoryObjectSendStream[SessionMessage],
        heard: MemoryObjectReceiveStream[SessionMessage | Exception],
        extensions: Mapping[str, Any],
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        self._sent = sent
        self._heard = heard
        self._ids = 0
        self.http_request: Any = None
        """The request that its messages come in, where they come over HTTP."""
        self.notes: list[dict[str, Any]] = []
        self.extensions = dict(extensions)
        self.capabilities = dict(capabilities or {})

    async def send(self, method: str, **params: Any) -> int:
        """Send a request without waiting for its answer."""
        self._ids += 1
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {**self.capabilities, "extensions": self.extensions},
            "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
            **params.pop("_meta", {}),
        }
        message = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": {**params, "_meta": meta}}
        metadata = ServerMessageMetadata(request_context=self.http_request) if self.http_request else None
        sent = jsonrpc_message_adapter.validate_python(message, by_name=False)
        await self._sent.send(SessionMessage(sent, metadata))
        return self._ids

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return the result or the error of its answer."""
        number = await self.send(method, **params)
        while True:
            message = await self._next()
            if message.get("id") == number:
                answer: dict[str, Any] = message["result"] if "result" in message else {"error": message["error"]}
                return answer
            self.notes.append(message)

    async def note(self) -> dict[str, Any]:
        """Return the next notification."""
        return self.notes.pop(0) if self.notes else await self._next()

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool."""
        return await self.ask("tools/call", name=tool, arguments=arguments)

    async def task(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that answers with a task."""
        begun = await self.call(tool, **arguments)
        assert begun["resultType"] == "task", begun
        return begun

    async def over(self, task_id: str) -> dict[str, Any]:
        """Ask for a task until it works no more."""
        with anyio.fail_after(SECONDS):
            while (found := await self.ask("tasks/get", taskId=task_id))["status"] == "working":  # noqa: ASYNC110 - a task is polled, by the protocol
                await anyio.sleep(0.02)
        return found

    async def _next(self) -> dict[str, Any]:
        with anyio.fail_after(SECONDS):
            message = await self._heard.receive()
        assert isinstance(message, SessionMessage)
        found: dict[str, Any] = message.message.model_dump(by_alias=True, mode="json", exclude_unset=True)
        return found


@asynccontextmanager
async def modern(
    here: World, *, token: str | None = None, tasks: bool = True, capabilities: Mapping[str, Any] | None = None
) -> AsyncIterator[Modern]:
    """Connect, as a person or as the job that holds a token."""
    client_context = ClientContext(cwd=str(here.work), env={"PATH": PATH}, client="raw")
    caller = Caller(client_context=client_context, token_hash=hash_token(token) if token else None)
    async with transport(Connection(services=here.services, caller=caller)) as (heard, sent):
        yield Modern(sent, heard, {EXTENSION: {}} if tasks else {}, capabilities)
