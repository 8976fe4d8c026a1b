"""What a person does to jobs in the page: calls of the tools, as the commands make them."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from mcp_types import TextContent
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.client_context import ClientContext
from jobs.errors import JobsError, NotFoundError, StoreError
from jobs.ids import is_batch_id
from jobs.util.text import redact, strip_terminal_codes
from server.mcp.calls import outcome
from server.mcp.connection_state import Call, Caller, Services
from server.mcp.pause_tool import ALL
from server.mcp.permission_tools import definition_of
from server.mcp.tools import BY_NAME
from server.web.action_words import Said, said_of_approve, said_of_kill, said_of_retry, said_of_send

CLIENT: Final = "claude-jobs page"
"""Name of the client of trees that the page starts; a key of a message names one request of it."""

_ID_CHARS: Final = 100


class Asked(BaseModel):
    """What the page asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    do: Literal["kill", "retry", "send", "pause", "resume", "allow", "deny"]
    id: Annotated[str, Field(max_length=_ID_CHARS)]
    """A job or batch, or a permission request; empty for everything, where that is paused or resumed."""
    subtree: bool = False
    message: str = ""
    now: bool = False
    key: Annotated[str, Field(max_length=_ID_CHARS)] | None = None


class NoEnvironmentError(JobsError):
    """A tree is over, so its environment is gone, and none came with the session."""

    def __init__(self, command: str) -> None:
        super().__init__(
            "The environment of this tree went with its end, and this page was opened under an earlier engine. "
            f"Run `claude-jobs web` again, or `{command}`: jobs then run in the environment of that terminal."
        )


class Actions:
    """Acts as a person outside every tree.

    Args:
        services: What the tools call.
        words: Rewrites a tool's text for a person.
    """

    def __init__(self, services: Services, words: Callable[[str], str]) -> None:
        self._services = services
        self._words = words
        self._handlers: Mapping[str, Callable[[Asked, Caller | None], Awaitable[Said]]] = {
            "kill": self._kill,
            "retry": self._retry,
            "send": self._send,
            "pause": self._pause,
            "resume": self._pause,
            "allow": self._approve,
            "deny": self._approve,
        }

    async def act(self, given: object, caller: Caller | None) -> Said:
        """Do what the page asks for, and return what to tell the person, and whether it went well.

        Args:
            given: What the page sent.
            caller: The client that opened the page, or None where that was under an earlier engine.

        Raises:
            ValueError: It is nothing that the page may ask for.
        """
        try:
            asked = Asked.model_validate(given, strict=True)
        except ValidationError as error:
            raise ValueError(_problem(error)) from None
        try:
            said, good = await self._handlers[asked.do](asked, caller)
        except JobsError as error:
            said, good = str(error), False
        return " ".join(redact(strip_terminal_codes(self._words(said))).split()), good

    async def _kill(self, asked: Asked, _: Caller | None) -> Said:
        text, good = await self._called("claude_kill_job", {"jobId": asked.id})
        return said_of_kill(asked.id, json.loads(text)) if good else (text, False)

    async def _pause(self, asked: Asked, _: Caller | None) -> Said:
        arguments = {"jobId": asked.id or ALL, "resume": asked.do == "resume", "now": asked.now}
        text, good = await self._called("claude_pause", arguments)
        if not good:
            return text, False
        answer = json.loads(text)
        return str(answer["message"]), bool(answer["success"])

    async def _approve(self, asked: Asked, _: Caller | None) -> Said:
        allow = asked.do == "allow"
        # Without an id the tool would list the requests.
        text, good = await self._called("claude_approve", {"requestId": asked.id or "none", "allow": allow})
        return said_of_approve(allow=allow) if good else (text, False)

    async def _retry(self, asked: Asked, caller: Caller | None) -> Said:
        context = await self._context(asked.id, caller, f"claude-jobs retry {asked.id}")
        text, good = await self._called("claude_retry", {"jobId": asked.id, "subtree": asked.subtree}, context)
        return said_of_retry(json.loads(text)) if good else (text, False)

    async def _send(self, asked: Asked, caller: Caller | None) -> Said:
        context = await self._context(asked.id, caller, f'claude-jobs send {asked.id} "…"')
        arguments = {"jobId": asked.id, "task": asked.message, "idempotencyKey": asked.key}
        text, good = await self._called("claude_send", arguments, context)
        return said_of_send(json.loads(text)) if good else (text, False)

    async def _context(self, identity: str, caller: Caller | None, command: str) -> ClientContext:
        """Return the client context of an id's tree; where that is over, that of the person who opened the page.

        Never the engine's environment: it has its own variables, and is not where the person works.
        """
        store = self._services.store
        found = await (store.batch(identity) if is_batch_id(identity) else store.job(identity))
        if found is None:
            raise NotFoundError("Batch" if is_batch_id(identity) else "Job", identity)
        try:
            return replace(self._services.context_of(found.root_id), client=CLIENT)
        except StoreError:
            if caller is None:
                raise NoEnvironmentError(command) from None
        settings = self._services.for_tree(caller.settings)
        return replace(caller.client_context, client=CLIENT, settings=settings)

    async def _called(
        self, tool: str, arguments: Mapping[str, Any], client_context: ClientContext | None = None
    ) -> tuple[str, bool]:
        definition = BY_NAME.get(tool) or definition_of(tool)
        assert definition is not None
        call = Call(
            services=self._services,
            job=None,
            client_context=client_context or ClientContext(cwd="/", client=CLIENT),
            tool_use_id=None,
            on_progress=None,
            whole=True,
        )

        async def answer() -> str:
            return await definition.handle(call, definition.arguments.model_validate(dict(arguments)))

        result = await outcome(definition, answer())
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        return text, not result.is_error


def _problem(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'request'}: {one['msg']}"[:200] for one in details[:5])
