"""The two tools about missing permissions: one that the CLI of a job calls, one by which a parent or a person answers."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from mcp_types import Tool

from jobs.approvals import Request
from jobs.claude.command import PERMISSION_TOOL
from jobs.errors import BadInputError
from jobs.model import Job
from jobs.redaction import redact
from jobs.settings import Settings
from server.arguments import Arguments
from server.catalogue import Definition, as_tool
from server.replies import compact, pretty
from server.tools import Call

_SHOWN = 2000
"""Characters of a call's arguments that whoever decides is shown; the end is cut off and said to be."""


class PermitArguments(Arguments):
    """What the CLI sends; its names are those of the CLI and not ours."""

    tool_name: str
    input: dict[str, Any] = {}
    tool_use_id: str | None = None


class ApproveArguments(Arguments):
    """Arguments of `claude_approve`; without a request it lists those that are open."""

    request_id: str | None = None
    allow: bool = True


async def claude_permit(call: Call, arguments: PermitArguments) -> str:
    """Ask whoever may decide, and answer in the CLI's words."""
    if call.job is None:
        raise BadInputError("claude_permit", "only a job's own claude calls it", "Use claude_approve.")
    decision = await call.services.approvals.ask(call.job, arguments.tool_name, arguments.input)
    if decision.allowed:
        return compact({"behavior": "allow", "updatedInput": arguments.input})
    return compact({"behavior": "deny", "message": decision.why})


async def claude_approve(call: Call, arguments: ApproveArguments) -> str:
    """List the requests that the caller may answer, or answer one."""
    approvals = call.services.approvals
    if arguments.request_id is None:
        return pretty(lines(approvals.open_to(call.job)))
    request = approvals.answer(arguments.request_id, call.job, allow=arguments.allow)
    return pretty({"requestId": request.id, "jobId": request.job.id, "allowed": arguments.allow})


def lines(requests: Sequence[Request]) -> list[dict[str, str]]:
    """Return what is shown of requests to whoever decides."""
    return [
        {"requestId": one.id, "jobId": one.job.id, "tool": one.tool, "input": _shown(one.arguments)} for one in requests
    ]


def _shown(arguments: Any) -> str:
    text = redact(compact(arguments))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text) - _SHOWN} characters more)"


PERMIT = Definition(
    name=PERMISSION_TOOL,
    about="Claude Code calls this by itself where a permission is missing. Never call it.",
    arguments=PermitArguments,
    handle=claude_permit,
)

APPROVE = Definition(
    name="claude_approve",
    about="Answer a job below you that waits for permission: requestId, allow. Without requestId: list what is open.",
    arguments=ApproveArguments,
    handle=claude_approve,
    ends=True,
    everyday=True,
)

_BY_NAME = {definition.name: definition for definition in (PERMIT, APPROVE)}


def definition_of(name: str) -> Definition | None:
    """Return the definition of one of the two tools, whether it is listed or not."""
    return _BY_NAME.get(name)


def more_tools(settings: Settings, job: Job | None) -> Sequence[Tool]:
    """Return which of the two a caller is shown: none by default, so that they cost nobody a byte.

    The CLI refuses to start a job whose permission tool is not listed, and hides it from its model (both measured).
    """
    asks = settings.permission_requests
    shown = ((PERMIT,) if job is not None and asks != "deny" else ()) + ((APPROVE,) if asks == "parent" else ())
    return _listed(shown)


@cache
def _listed(definitions: tuple[Definition, ...]) -> Sequence[Tool]:
    return tuple(as_tool(definition) for definition in definitions)
