"""Permission forms (MCP elicitation): ask the person at a client whether a job may do what it has no permission for."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from jobs.errors import JobsError
from jobs.permissions.approvals import Approvals, PermissionRequest
from jobs.permissions.visibility import JobSelection
from jobs.util.text import strip_terminal_codes
from jobs.waiting import WaitReport
from server.mcp.replies import permission_requests

logger = logging.getLogger(__name__)

T = TypeVar("T")

SCHEMA: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}
"""A form without fields: accepting it allows the request, and declining it denies the request."""

AnyContext = ServerRequestContext[Any]
"""A request's context, whose connection is the one of `server.mcp.calls`: that module needs this one."""

Read = Callable[[], Awaitable[JobSelection]]
"""Reads the jobs that a call waits for."""


def can_ask(ctx: AnyContext) -> bool:
    """Tell whether this request's client has a person to ask and can show a form."""
    capabilities = ctx.session.client_capabilities
    offered = capabilities.elicitation if capabilities else None
    # An older client that names neither forms nor URLs supports forms.
    shows_forms = offered is not None and (offered.form is not None or offered.url is None)
    connection = ctx.lifespan_context
    is_person = connection.caller.token_hash is None
    return shows_forms and is_person and connection.services.approvals.answerer == "person"


async def forms(ctx: AnyContext, read: Read) -> dict[str, Any]:
    """Return the open forms of the jobs that the call waits for, by the ids of their requests."""
    approvals = ctx.lifespan_context.services.approvals
    if not (can_ask(ctx) and approvals.waiting()):
        return {}
    return {
        one.id: {"method": "elicitation/create", "params": {"message": _question(one), "requestedSchema": dict(SCHEMA)}}
        for one in approvals.to_show((await read()).paths)
    }


async def wait_with_forms(ctx: AnyContext, wait: Callable[[], Awaitable[WaitReport]], read: Read) -> WaitReport:
    """Wait, and meanwhile ask the person for the permissions that the awaited jobs request.

    A client of the newest protocol cannot be asked in the middle of a call: it gets forms in place of an answer.
    """
    if not can_ask(ctx) or _is_modern(ctx):
        return await wait()
    report = await _before(partial(_serve_forms, ctx, (await read()).paths), wait)
    assert report is not None, "the form ended without an answer and without an error"
    return report


async def forms_or_answer(
    ctx: AnyContext, responses: Mapping[str, Any] | None, answer: Callable[[], Awaitable[str]], read: Read
) -> str | dict[str, Any]:
    """Return a wait's answer, or the forms that the client fills in before it repeats the call with their answers.

    Args:
        ctx: The request.
        responses: The answers to the forms of an earlier call, by their ids.
        answer: Waits and answers.
        read: Reads the jobs that the call waits for.
    """
    if not (can_ask(ctx) and _is_modern(ctx)):
        return await answer()
    approvals: Approvals = ctx.lifespan_context.services.approvals
    take_all(approvals, responses or {}, await forms(ctx, read))
    paths = (await read()).paths
    while True:
        found = await _before(partial(approvals.next_to_show, paths), answer)
        if found is not None:
            return found
        # A request that was answered at this moment leaves no form to show.
        if shown := await forms(ctx, read):
            return {"resultType": "input_required", "inputRequests": shown}


def take_all(approvals: Approvals, responses: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Decide the requests whose forms were shown and filled in; other responses are ignored."""
    for request_id, response in responses.items():
        answer = _answer_of(response)
        if request_id in shown and answer is not None:
            take(approvals, request_id, answer)


def take(approvals: Approvals, request_id: str, answer: ElicitResult) -> None:
    """Decide a request as its form was filled in; a dismissed one stays open for `claude-jobs approve`."""
    request = next((one for one in approvals.open_to(None) if one.id == request_id), None)
    if request is None:
        return  # answered meanwhile, elsewhere or by its time
    match answer.action:
        case "accept":
            approvals.answer(request_id, None, allow=True)
        case "decline":
            approvals.answer(request_id, None, allow=False)
        case _:
            request.dismissed = True
            logger.info("the form of %s was dismissed; `claude-jobs approve` can still answer it", request_id)


async def _before(wait_wrapper: Callable[[], Awaitable[object]], work: Callable[[], Awaitable[T]]) -> T | None:
    """Return the result of `work`, or None where `wait_wrapper` ends first."""
    found: list[T | JobsError] = []

    async def do() -> None:
        try:
            found.append(await work())
        except JobsError as error:
            # Out of the group it would come wrapped in another exception, whose text would not reach the client.
            found.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(do)
        await wait_wrapper()
        group.cancel_scope.cancel()
    for one in found:
        if isinstance(one, JobsError):
            raise one
        return one
    return None


def _answer_of(response: Any) -> ElicitResult | None:
    try:
        return ElicitResult.model_validate(response)
    except ValidationError:
        return None


def _is_modern(ctx: AnyContext) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


async def _serve_forms(ctx: AnyContext, paths: Sequence[str]) -> None:
    approvals: Approvals = ctx.lifespan_context.services.approvals
    while True:
        request = await approvals.next_to_show(paths)
        take(approvals, request.id, await _filled_in(ctx, request))


async def _filled_in(ctx: AnyContext, request: PermissionRequest) -> ElicitResult:
    """Show a form until it is filled in; where the request is closed first, withdraw the form."""
    answers: list[ElicitResult] = []

    async def show() -> None:
        try:
            answers.append(await ctx.session.elicit_form(_question(request), dict(SCHEMA), ctx.request_id))
        except MCPError as error:
            logger.info("a client could not show the request %s: %s", request.id, error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(show)
        await request.answered.wait()
        group.cancel_scope.cancel()
    return answers[0] if answers else ElicitResult(action="cancel")


def _question(request: PermissionRequest) -> str:
    # What a job wants to do is the job's own text: it must not draw over the form.
    [shown] = permission_requests([request])
    return strip_terminal_codes(
        f"Job {shown['jobId']} wants to use {shown['tool']}. Accept allows it this once: {shown['input']}"
    )
