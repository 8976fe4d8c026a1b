"""A call of a tool at its two ends: made from its request, and answered with one block of text."""

from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from mcp.server.context import ServerRequestContext
from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import JobFailedError, JobsError, NotFinishedError, NotFoundError
from jobs.ids import JOB_PREFIX, is_batch_id
from jobs.waiting import OnProgress, Progress
from orchestration.limits import RecursionLimitError
from server.client.pending_requests import CALL_ID, LEAST_GROWTH, TOOL_USE_ID
from server.client.wire import WHOLE
from server.mcp import elicitation, progress
from server.mcp.advice import advice_on
from server.mcp.arguments import Arguments, BatchArguments, TaskArguments
from server.mcp.connection_state import Call, Connection, calling_job
from server.mcp.tool_definitions import Definition

Context = ServerRequestContext[Connection]

T = TypeVar("T")

_PREFIXES = {"claude_run": "Execution error: ", "claude_result": "Job error: "}
"""Prefixes of the older server's errors, which callers match on."""

_MOST_PROBLEMS = 8
"""Most argument problems that one error names."""

_SHOWN_OF_A_NAME = 80

_WORDS = {
    "missing": "it is missing",
    "string_type": "give a text",
    "list_type": 'give an array, such as ["a", "b"]',
    "dict_type": "give an object",
    "model_type": "give a text or an object",
}
"""Pydantic's messages in the words of JSON, by its error types."""

_CHOICES = frozenset(("dict[str,any]", "str", "int"))
"""Pydantic's names of the members of a union, which follow the argument's name in a location."""

_OF_ONE_TASK = ("task", "key", "dependsOn", "depends_on")
"""Arguments that make no sense next to the tasks of a batch."""


async def call_of(ctx: Context) -> Call:
    """Return the call that a request makes.

    Raises:
        UnknownTokenError: The calling job is over.
        InvalidSettingsError: The settings file has changed, and the client's settings do not fit it any more.
    """
    connection = ctx.lifespan_context
    job = await calling_job(connection.services.store, connection.caller)
    client_context = connection.caller.client_context
    if job is None:
        # At each call: the settings file may have changed since the handshake. A job's tree has its settings already.
        settings = connection.services.for_tree(connection.caller.settings)
        client_context = replace(client_context, settings=settings)
    return Call(
        services=connection.services,
        job=job,
        client_context=client_context,
        tool_use_id=_tool_use_id(ctx),
        on_progress=_progress(ctx),
        wait_wrapper=partial(elicitation.wait_with_forms, ctx),
        flow=connection.flow,
        whole=bool((ctx.meta or {}).get(WHOLE)),
    )


def _tool_use_id(ctx: Context) -> str | None:
    # The pump gives a call an id where the client sends none: after a crash it repeats the call.
    for key in (TOOL_USE_ID, CALL_ID):
        value = (ctx.meta or {}).get(key)
        if isinstance(value, str) and value:
            return f"{key}:{value}"
    return None


def _progress(ctx: Context) -> OnProgress | None:
    if (ctx.meta or {}).get("progress_token") is None:
        return None
    last = -1.0

    async def report(where: Progress) -> None:
        nonlocal last
        # A job that is retried is not over any more, and MCP progress must increase.
        last = round(max(where.value, last + LEAST_GROWTH), 6)
        message = progress.progress(where, ctx.lifespan_context.services.now_of)
        await ctx.session.report_progress(last, where.total, message)

    return report


async def outcome(definition: Definition, answer: Awaitable[str | T]) -> CallToolResult | T:
    """Await a tool's answer, or what replaces it; a `JobsError` becomes a text that says what to do next."""
    try:
        found = await answer
        return result_of(found) if isinstance(found, str) else found
    except ValidationError as error:
        return failure(_argument_errors(definition, error))
    except NotFinishedError as error:
        return failure(f"Job error: {error}")
    except JobFailedError as error:
        advice = advice_on(error.job_id, error.reason)
        return failure(f"{_PREFIXES.get(definition.name, '')}{error}\n[{advice}]")
    except NotFoundError as error:
        return failure(f"{_not_found(definition, error)}. {_where_to_look(error)}")
    except (JobsError, RecursionLimitError) as error:
        return failure(str(error))


def result_of(text: str, *, is_error: bool = False) -> CallToolResult:
    """Return a text as a tool's result."""
    # Half a character, from a page cut within a pair for example, cannot be sent: it would break the connection.
    block = TextContent(type="text", text=text.encode("utf-8", "replace").decode())
    return CallToolResult(content=[block], is_error=is_error)


def failure(text: str) -> CallToolResult:
    """Return an error result."""
    return result_of(text, is_error=True)


def _not_found(definition: Definition, error: NotFoundError) -> str:
    # The older server's words.
    return f"Job error: Job not found: {error.shown}" if definition.name == "claude_result" else str(error)


def _where_to_look(error: NotFoundError) -> str:
    # By the id's form alone: only its owner may learn whether such a batch or job exists.
    other = ""
    if error.kind == "Request":
        return "Call claude_approve without requestId for those that are open."
    if error.kind == "Job" and is_batch_id(error.id):
        other = "with it as batchId if it is a batch's"
    elif error.kind == "Batch" and error.id.startswith(JOB_PREFIX):
        other = "with it in jobIds if it is a job's"
    wait = f"claude_wait {other}, or " if other else ""
    return f"Call {wait}claude_list_jobs for the jobs that you can see."


def _argument_errors(definition: Definition, error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)
    problems = "; ".join(_problem(detail["loc"], _words(definition, detail)) for detail in details[:_MOST_PROBLEMS])
    if len(details) > _MOST_PROBLEMS:
        problems += f"; and {len(details) - _MOST_PROBLEMS} more"
    accepts = f"It accepts: {_names(definition.arguments) or 'no arguments'}."
    if definition.arguments is BatchArguments and any(_is_about_a_task(detail["loc"]) for detail in details):
        accepts += f" A task is a text, or an object with: {_names(TaskArguments)}."
    return f"{definition.name}: {problems}. {accepts} Correct the call and repeat it."


def _words(definition: Definition, detail: ErrorDetails) -> str:
    if detail["type"] != "extra_forbidden":
        return _WORDS.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    arguments = definition.arguments if len(detail["loc"]) == 1 else TaskArguments
    if detail["loc"][-1] in arguments.model_fields:
        return "it was given twice, in two spellings"
    if definition.arguments is BatchArguments and detail["loc"][0] in _OF_ONE_TASK:
        return "it is an option of one task, so put it into the object of that task"
    return "there is no such argument"


def _is_about_a_task(location: tuple[int | str, ...]) -> bool:
    return (len(location) > 1 and location[0] == "tasks") or location[0] in _OF_ONE_TASK


def _names(arguments: type[Arguments]) -> str:
    return ", ".join(field.alias or name for name, field in arguments.model_fields.items())


def _problem(location: tuple[int | str, ...], message: str) -> str:
    # A caller's own names may be of any length.
    where = ".".join(str(part)[:_SHOWN_OF_A_NAME] for part in location if part not in _CHOICES) or "arguments"
    return f"{where}: {message}"
