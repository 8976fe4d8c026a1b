"""Turns a tool handler's return value or exception into one block of text."""

from collections.abc import Awaitable

from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.errors import JobFailedError, JobsError, NotFinishedError, NotFoundError
from jobs.ids import JOB_PREFIX, is_batch_id
from orchestration.limits import RecursionLimitError
from server.mcp.advice import advice_on
from server.mcp.arguments import Arguments, BatchArguments, TaskArguments
from server.mcp.tool_definitions import Definition

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


async def outcome(definition: Definition, answer: Awaitable[str]) -> CallToolResult:
    """Await a tool's answer; a `JobsError` becomes a text that says what to do next."""
    try:
        return success(await answer)
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


def success(text: str) -> CallToolResult:
    """Return a successful result."""
    return CallToolResult(content=[_block(text)])


def failure(text: str) -> CallToolResult:
    """Return an error result."""
    return CallToolResult(content=[_block(text)], is_error=True)


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
        return "it is there in another spelling"
    if definition.arguments is BatchArguments and detail["loc"][0] in _OF_ONE_TASK:
        return "it says something of one task, so it belongs into the object of that task"
    return "there is no such argument"


def _is_about_a_task(location: tuple[int | str, ...]) -> bool:
    return (len(location) > 1 and location[0] == "tasks") or location[0] in _OF_ONE_TASK


def _names(arguments: type[Arguments]) -> str:
    return ", ".join(field.alias or name for name, field in arguments.model_fields.items())


def _problem(location: tuple[int | str, ...], message: str) -> str:
    # A caller's own names may be of any length.
    where = ".".join(str(part)[:_SHOWN_OF_A_NAME] for part in location if part not in _CHOICES) or "arguments"
    return f"{where}: {message}"


def _block(text: str) -> TextContent:
    # Half a character, from a page cut within a pair for example, cannot be sent: it would break the connection.
    return TextContent(type="text", text=text.encode("utf-8", "replace").decode())
