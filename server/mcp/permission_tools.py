"""The permission tools: a job's CLI asks by `claude_permit`, a parent or a person answers by `claude_approve`."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mcp_types import Tool
from pydantic import ConfigDict, Field, model_validator

from jobs.errors import BadInputError
from jobs.model import Job
from jobs.settings import Settings
from server.mcp.arguments import Arguments
from server.mcp.connection_state import Call
from server.mcp.replies import compact, permission_requests, pretty
from server.mcp.tool_definitions import Definition, as_tool, tool


class PermitArguments(Arguments):
    """Arguments of `claude_permit`, in the CLI's names; a newer CLI may send more."""

    model_config = ConfigDict(extra="ignore")

    tool_name: str
    input: dict[str, Any] = Field(default_factory=dict)


class ApproveArguments(Arguments):
    """Arguments of `claude_approve`; without a request id it lists the open requests."""

    request_id: str | None = None
    allow: bool = True

    @model_validator(mode="before")
    @classmethod
    def _says_what_it_means(cls, given: Any) -> Any:
        """Refuse null for `allow`: left out it means yes, and null must not grant a permission."""
        if isinstance(given, Mapping) and given.get("allow", True) is None:
            raise ValueError("allow is null. Give true or false, or leave it out for true.")
        return given


@tool(title="Ask permission", about="Claude Code itself calls this. Never call it.")
async def claude_permit(call: Call, arguments: PermitArguments) -> str:
    """Ask the parent job or the person who may decide, and answer in the CLI's format."""
    if call.job is None:
        raise BadInputError("claude_permit", "only a job's own claude calls it", "Use claude_approve.")
    above = await call.services.store.jobs(call.job.path.split("/")[:-1])
    async with call.flow.waiting():
        decision = await call.services.approvals.ask(call.job, arguments.tool_name, arguments.input, above=above)
    if decision.allowed:
        return compact({"behavior": "allow", "updatedInput": arguments.input})
    return compact({"behavior": "deny", "message": decision.why})


@tool(
    title="Answer requests",
    about="Answer a job below you that waits for permission. Without requestId: list what is open.",
    ends=True,
    everyday=True,
)
async def claude_approve(call: Call, arguments: ApproveArguments) -> str:
    """List the requests that the caller may answer, or answer one."""
    approvals = call.services.approvals
    if arguments.request_id is None:
        return pretty(permission_requests(approvals.open_to(call.job)))
    request = approvals.answer(arguments.request_id, call.job, allow=arguments.allow)
    return pretty({"requestId": request.id, "jobId": request.job.id, "allowed": arguments.allow})


_BY_NAME = {definition.name: definition for definition in (claude_permit, claude_approve)}


def definition_of(name: str) -> Definition | None:
    """Return the definition of one of the two tools, whether it is listed or not."""
    return _BY_NAME.get(name)


def more_tools(settings: Settings, job: Job | None) -> Sequence[Tool]:
    """Return which of the two tools a caller's list holds: none by default, so that they take no context.

    The CLI refuses to start a job whose permission tool is not listed, and hides it from its model (both measured).
    """
    asks = settings.permission_requests
    permit = (claude_permit,) if job is not None and asks != "deny" else ()
    return _listed(permit + ((claude_approve,) if asks == "parent" else ()))


@cache
def _listed(definitions: tuple[Definition, ...]) -> Sequence[Tool]:
    return tuple(as_tool(definition) for definition in definitions)
