"""Tasks that the conformance suite asks for: those that run are our own jobs, those that ask or break live here."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from mcp.server.mcpserver.server import require_client_extension
from mcp_types import INTERNAL_ERROR, CallToolRequestParams, ElicitRequest, Tool

from server.mcp.calls import Context
from server.mcp.tasks import EXTENSION, TaskParams, TaskUpdateParams
from tests.e2e.suite.contents import ABOUT
from tests.e2e.suite.questions import NAME, OK, ask, form

CallTool = Callable[[Context, CallToolRequestParams], Awaitable[Any]]

_STAMP: Final = "2026-07-28T00:00:00.000Z"


def _tool(name: str, **properties: str) -> Tool:
    fields = {one: {"type": kind} for one, kind in properties.items()}
    return Tool(name=name, description=ABOUT, input_schema={"type": "object", "properties": fields})


TOOLS: Final = (
    _tool("slow_compute", seconds="number", label="string"),
    _tool("failing_job"),
    _tool("protocol_error_job"),
    _tool("confirm_delete", filename="string"),
    _tool("multi_input"),
    _tool("test_tool_with_task"),
)
NAMES: Final = frozenset(tool.name for tool in TOOLS)

QUESTIONS: Final = {
    "confirm_delete": {"confirm": form("Delete it?", OK)},
    "multi_input": {"first": form("Your name?", NAME), "second": form("And theirs?", NAME)},
}


@dataclass
class Asking:
    """A task that waits for answers, or is over.

    Args:
        questions: Those that are open, by an id of this task's own.
        said: What it answers in the end.
        error: What broke it, or None.
    """

    questions: dict[str, ElicitRequest] = field(default_factory=dict)
    said: str = "Done."
    error: dict[str, Any] | None = None
    cancelled: bool = False

    @property
    def status(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.error:
            return "failed"
        return "input_required" if self.questions else "completed"

    def wire(self, identity: str) -> dict[str, Any]:
        stamps = {"createdAt": _STAMP, "lastUpdatedAt": _STAMP, "ttlMs": None, "pollIntervalMs": 100}
        return {"taskId": identity, "status": self.status, **stamps}

    def details(self) -> dict[str, Any]:
        match self.status:
            case "failed":
                return {"error": self.error}
            case "input_required":
                asked = {one: each.model_dump(by_alias=True, exclude_none=True) for one, each in self.questions.items()}
                return {"inputRequests": asked}
            case "completed":
                return {"result": {"resultType": "complete", "content": [{"type": "text", "text": self.said}]}}
            case _:
                return {}


class SuiteTasks:
    """Calls of the suite's tools that may become tasks.

    Args:
        call: The production app's own handler of `tools/call`.
    """

    def __init__(self, call: CallTool) -> None:
        self._call = call
        self._asking: dict[str, Asking] = {}

    async def call(self, ctx: Context, params: CallToolRequestParams) -> Any:
        """Answer a call of one of `NAMES`."""
        given = params.arguments or {}
        match params.name:
            case "slow_compute":
                return await self._run(ctx, params, f"stub:sleep={given.get('seconds', 0)} stub:say=computed")
            case "failing_job":
                require_client_extension(ctx, EXTENSION)
                return await self._run(ctx, params, "stub:sleep=1 stub:exit=1")
            case "protocol_error_job":
                return self._begin(Asking(error={"code": INTERNAL_ERROR, "message": "The tool broke."}))
            case "test_tool_with_task":
                return self._gather(ctx, params)
            case name:
                return self._begin(Asking({secrets.token_hex(4): one for one in QUESTIONS[name].values()}))

    async def get(self, _: Context, params: TaskParams) -> dict[str, Any]:
        """Answer `tasks/get`."""
        task = self._asking[params.task_id]
        return {"resultType": "complete", **task.wire(params.task_id), **task.details()}

    async def update(self, _: Context, params: TaskUpdateParams) -> dict[str, Any]:
        """Answer `tasks/update`."""
        for one in params.input_responses or {}:
            self._asking[params.task_id].questions.pop(one, None)
        return {"resultType": "complete"}

    async def cancel(self, _: Context, params: TaskParams) -> dict[str, Any]:
        """Answer `tasks/cancel`."""
        self._asking[params.task_id].cancelled = True
        return {"resultType": "complete"}

    def has(self, task_id: str) -> bool:
        """Whether a task is one of these."""
        return task_id in self._asking

    async def _run(self, ctx: Context, params: CallToolRequestParams, task: str) -> Any:
        arguments = {"task": task, "outputFormat": "text"}
        return await self._call(ctx, params.model_copy(update={"name": "claude_run", "arguments": arguments}))

    def _begin(self, task: Asking) -> dict[str, Any]:
        identity = f"x{secrets.token_hex(8)}"
        self._asking[identity] = task
        return {"resultType": "task", **task.wire(identity)}

    def _gather(self, ctx: Context, params: CallToolRequestParams) -> Any:
        require_client_extension(ctx, EXTENSION)
        answer = (params.input_responses or {}).get("user_name")
        name = (getattr(answer, "content", None) or {}).get("name")
        return self._begin(Asking(said=f"Hello, {name}!")) if name else ask(user_name=form("Your name?", NAME))
