"""The tools as a client sees them: names, descriptions, schemas and annotations, in 8 KB together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mcp_types import Tool, ToolAnnotations

from server.mcp import statistics, tools
from server.mcp.arguments import (
    Arguments,
    BatchArguments,
    JobArguments,
    ListArguments,
    NoArguments,
    ResultArguments,
    RetryArguments,
    RunArguments,
    SendArguments,
    WaitArguments,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One tool.

    Args:
        name: Its name.
        title: Its title for a person.
        about: Its description: what it does and when to use it.
        arguments: Its arguments.
        handle: Its handler.
        reads: It only reads: Claude Code runs only such tools side by side.
        ends: It can end work.
        spawns: It spawns jobs, so a leaf does not see it.
        everyday: It is in the model's prompt from the start, and not only found by a search.
        like: The tool in which all its arguments are described, or None; `about` names it, and the schema of this one
            holds what is required and what is used most.
    """

    name: str
    title: str
    about: str
    arguments: type[Arguments]
    handle: tools.Handler
    reads: bool = False
    ends: bool = False
    spawns: bool = False
    everyday: bool = False
    like: str | None = None


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        name="claude_run",
        title="Run a job",
        about=(
            "Run one task as a separate Claude job and return its result. Blocks; for several use a batch. "
            "strategy decompose lets the job divide its task among jobs of its own."
        ),
        arguments=RunArguments,
        handle=tools.claude_run,
        spawns=True,
        everyday=True,
    ),
    Definition(
        name="claude_run_async",
        title="Start a job",
        about="As claude_run, with all its arguments, but returns the jobId at once; then claude_wait.",
        arguments=RunArguments,
        handle=tools.claude_run_async,
        spawns=True,
        like="claude_run",
    ),
    Definition(
        name="claude_run_batch",
        title="Run several jobs",
        about="As claude_run_batch_async, with all its arguments, but blocks until all are over; one line each.",
        arguments=BatchArguments,
        handle=tools.claude_run_batch,
        spawns=True,
        like="claude_run_batch_async",
    ),
    Definition(
        name="claude_run_batch_async",
        title="Start several jobs",
        about=(
            "Start several tasks as parallel Claude jobs and return batchId and jobIds at once; then claude_wait. "
            "A task is a text, or an object with any of these options, a key and dependsOn: keys or indexes of tasks "
            "to wait for, whose answers replace {{results.KEY}} in it. Options beside tasks hold for each task that "
            "says nothing else: maxBudgetUsd is for each one, treeBudgetUsd for all of it."
        ),
        arguments=BatchArguments,
        handle=tools.claude_run_batch_async,
        spawns=True,
        everyday=True,
    ),
    Definition(
        name="claude_wait",
        title="Wait for jobs",
        about=(
            "Wait for jobIds, a batchId or all below subtreeOf. Returns who is done since cursor with an excerpt, "
            "how many are pending, and the next cursor. While pending is not 0, call again with it: no polling needed."
        ),
        arguments=WaitArguments,
        handle=tools.claude_wait,
        reads=True,
        everyday=True,
    ),
    Definition(
        name="claude_result",
        title="Read results",
        about="Result of a finished job; offset and limit page it, in characters. jobIds reads several in one budget.",
        arguments=ResultArguments,
        handle=tools.claude_result,
        reads=True,
        everyday=True,
    ),
    Definition(
        name="claude_status",
        title="Show a job, batch or tree",
        about="Where a job, batch or tree is. jobId takes any of these ids; counts and cost are rolled up.",
        arguments=JobArguments,
        handle=tools.claude_status,
        reads=True,
        everyday=True,
    ),
    Definition(
        name="claude_list_jobs",
        title="List jobs",
        about="Your jobs, newest first.",
        arguments=ListArguments,
        handle=tools.claude_list_jobs,
        reads=True,
    ),
    Definition(
        name="claude_kill_job",
        title="Cancel jobs",
        about="Cancel a job and every job below it, or a batch.",
        arguments=JobArguments,
        handle=tools.claude_kill_job,
        ends=True,
    ),
    Definition(
        name="claude_send",
        title="Continue a job",
        about="Tell a finished job's session more, as a new job with its directory and rights; then claude_wait.",
        arguments=SendArguments,
        handle=tools.claude_send,
        spawns=True,
    ),
    Definition(
        name="claude_retry",
        title="Retry jobs",
        about="Run a failed, timed-out or cancelled job again, or with subtree all such below a job or batch.",
        arguments=RetryArguments,
        handle=tools.claude_retry,
    ),
    Definition(
        name="claude_dashboard",
        title="Show figures",
        about="How many jobs run, completed and failed, how long they take, and what the engine holds.",
        arguments=NoArguments,
        handle=statistics.claude_dashboard,
        reads=True,
    ),
    Definition(
        name="claude_recursion_stats",
        title="Show limits",
        about="Limits of depth, width and concurrency, and how much is in use.",
        arguments=NoArguments,
        handle=statistics.claude_recursion_stats,
        reads=True,
    ),
)

_USED_MOST = ("cwd", "model", "permissionMode", "outputFormat", "verbose", "parentJobId")
"""Arguments in the schema of each tool that runs jobs: a client may load one of these tools without the others."""

BY_NAME: Mapping[str, Definition] = {definition.name: definition for definition in DEFINITIONS}


@cache
def listing(*, leaf: bool) -> Sequence[Tool]:
    """Return the tools in a fixed order; a leaf gets none that spawns."""
    return tuple(as_tool(definition) for definition in DEFINITIONS if not (leaf and definition.spawns))


def as_tool(definition: Definition) -> Tool:
    """Return a tool as the protocol describes it."""
    hints = ToolAnnotations(read_only_hint=True) if definition.reads else None
    if definition.ends:
        hints = ToolAnnotations(destructive_hint=True)
    meta: dict[str, Any] = {}
    if definition.everyday:
        meta["anthropic/alwaysLoad"] = True
    if definition.name == "claude_result":
        meta["anthropic/maxResultSizeChars"] = tools.INLINE_CHARS
    return Tool(
        name=definition.name,
        title=definition.title,
        description=definition.about,
        input_schema=lean_schema(definition.arguments, brief=definition.like is not None),
        annotations=hints,
        _meta=meta or None,
    )


def lean_schema(arguments: type[Arguments], *, brief: bool = False) -> dict[str, Any]:
    """Return the JSON Schema of a tool's arguments without its redundant parts.

    Titles repeat the names, a default that is null, false, 0 or empty is what a reader expects, and "or null" is what
    leaving an optional argument out means; references are written out, since clients differ in how they follow them.
    Inside an argument no default is given: a client that fills it in would override what a batch says of all its tasks.

    Args:
        arguments: What the tool accepts.
        brief: Only what is required or used most, and more is valid by the schema; the tool itself refuses what it
            does not know.
    """
    schema = arguments.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    if brief:
        shown = (*schema["required"], *_USED_MOST)
        schema["properties"] = {name: schema["properties"][name] for name in shown}
        del schema["additionalProperties"]
    definitions = {
        name: _own(item, schema, brief=brief) if item["type"] == "object" else item
        for name, item in definitions.items()
    }
    lean = _lean(schema, definitions)
    assert isinstance(lean, dict)
    lean.pop("$defs", None)
    lean.pop("description", None)
    _tell_defaults(lean, schema)
    return lean


def _own(item: Mapping[str, Any], whole: Mapping[str, Any], *, brief: bool) -> dict[str, Any]:
    """Return the schema of an object in a list without the properties that the list's tool describes already."""
    if brief:
        return {"type": "object"}
    own = {name: field for name, field in item["properties"].items() if name not in whole["properties"]}
    return {"type": "object", "properties": own, "required": item["required"]}


def _tell_defaults(lean: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    for name, field in schema.get("properties", {}).items():
        if field.get("default"):
            lean["properties"][name]["default"] = field["default"]


def _lean(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_lean(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if (reference := node.get("$ref")) is not None:
        return _lean(definitions[reference.rpartition("/")[2]], definitions)
    if "anyOf" in node:
        return _lean_choice(node["anyOf"], definitions)
    return {
        key: _lean_properties(value, definitions) if key == "properties" else _lean(value, definitions)
        for key, value in node.items()
        if key not in {"title", "default", "description", "additionalProperties"} or key in _kept(node)
    }


def _kept(node: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({"additionalProperties"} if node.get("additionalProperties") is False else ())


def _lean_properties(properties: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _lean(value, definitions) for name, value in properties.items()}


def _lean_choice(options: Sequence[Any], definitions: Mapping[str, Any]) -> Any:
    lean = [_lean(option, definitions) for option in options if option != {"type": "null"}]
    return lean[0] if len(lean) == 1 else {"anyOf": lean}
