"""Prompts that show a model how to use the tools well: fan out, and map and reduce."""

import json
from collections.abc import Mapping
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from server.mcp.calls import Context

_GOAL = PromptArgument(name="goal", description="What is to be achieved.", required=True)

PROMPTS: Final = (
    Prompt(
        name="fan_out",
        title="Fan out",
        description="Do independent parts of a goal as parallel jobs and answer from their results.",
        arguments=[
            _GOAL,
            PromptArgument(name="parts", description="The parts, one a line; without them you choose.", required=False),
        ],
    ),
    Prompt(
        name="map_reduce",
        title="Map and reduce",
        description="Put one question to many items in parallel jobs, and have one job draw the conclusion.",
        arguments=[
            _GOAL,
            PromptArgument(name="items", description="The items: files, topics, records.", required=True),
        ],
    ),
)

_FAN_OUT = """\
Reach this goal with parallel Claude jobs: {goal}

{parts} Keep what takes a few tool calls for yourself: a job costs a
   process and a model turn.
2. Call claude_run_batch_async once, with one task a part. A job sees nothing of this conversation: give each task its
   goal, the paths it needs, what to leave alone, and the form of its answer. Say treeBudgetUsd if money matters.
3. Call claude_wait with the batchId. While pending is not 0, call it again with the cursor that it returned.
4. Read answers that the excerpt cuts short with claude_result. For a failed job, claude_result says what to do next; or
   do the part yourself.
5. Answer from the results, and say which parts are missing if any are."""

_MAP_REDUCE = """\
Reach this goal by map and reduce with Claude jobs: {goal}

Items:
{items}

1. Call claude_run_batch_async once. One task an item (or a handful of small ones), each with a key, all asking for the
   same short, comparable form; jsonSchema holds them to it.
2. In the same batch, one more task with key "reduce", dependsOn all the other keys, whose text holds
   {{{{results.KEY}}}} for each of them and says how to draw the conclusion. It starts when they have completed.
3. Call claude_wait with the batchId until pending is 0, passing the cursor on.
4. Answer with claude_result of the job "reduce". Where it was cancelled, an item failed: claude_retry that batch."""


async def list_prompts(ctx: Context, _: PaginatedRequestParams | None) -> ListPromptsResult:
    """List the prompts."""
    return ListPromptsResult(prompts=list(PROMPTS))


async def get_prompt(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
    """Fill a prompt in.

    Raises:
        MCPError: There is no such prompt, or an argument is missing.
    """
    prompt = next((one for one in PROMPTS if one.name == params.name), None)
    if prompt is None:
        names = ", ".join(one.name for one in PROMPTS)
        raise MCPError(INVALID_PARAMS, f"Unknown prompt {params.name[:80]!r}. There are: {names}.")
    given = params.arguments or {}
    missing = [one.name for one in prompt.arguments or () if one.required and not _holds(given.get(one.name, ""))]
    if missing:
        raise MCPError(INVALID_PARAMS, f"{prompt.name} needs: {', '.join(missing)}.")
    text = TextContent(type="text", text=_text(prompt.name, given))
    return GetPromptResult(description=prompt.description, messages=[PromptMessage(role="user", content=text)])


def _text(name: str, given: Mapping[str, str]) -> str:
    if name == "map_reduce":
        return _MAP_REDUCE.format(goal=given["goal"], items=_listed(given["items"]))
    listed = _listed(given.get("parts", ""))
    parts = f"1. Its parts are these:\n{listed}\n  " if listed else "1. Divide it into independent parts."
    return _FAN_OUT.format(goal=given["goal"], parts=parts)


def _holds(given: str) -> bool:
    return bool(given.strip() and _listed(given))


def _listed(given: str) -> str:
    """Return a list as a person or a program gives it, as JSON or a line each, with a line for each item."""
    try:
        items = json.loads(given)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list):
        items = given.splitlines()
    texts = (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in items)
    return "\n".join(f"   - {text}" for each in texts if (text := each.strip().removeprefix("- ")))
