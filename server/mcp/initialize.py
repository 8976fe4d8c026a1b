"""Answers `initialize` before the MCP SDK is loaded, which takes a second of a core."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from server import __version__

NAME: Final = "claude-jobs"
TITLE: Final = "Claude jobs"

INSTRUCTIONS = """\
Runs trees of Claude Code jobs. Each job is a separate headless Claude with its own context; jobs may spawn jobs.
Start work with claude_run_batch_async (or claude_run_async), then call claude_wait with the batchId until pending is 0.
claude_wait shows an excerpt of each answer; claude_result reads the whole of it, page by page.
Give each task everything that it needs to know: a job does not see your conversation.
Tasks of one batch may wait for each other: dependsOn names them, and {{results.KEY}} in a task becomes that answer.
claude_send continues the session of a job that is over; claude_retry runs again what failed.
Do small tasks yourself: a job costs a process and a model turn. Limits of depth and number are enforced; an error says
what to do instead."""

VERSIONS: Final = frozenset({"2025-06-18", "2025-11-25"})
"""Versions of the protocol for which the answer is known here; a client of any other waits for the SDK."""

CAPABILITIES: Final[Mapping[str, Any]] = {
    "prompts": {"listChanged": False},
    "resources": {"subscribe": True, "listChanged": False},
    "tools": {"listChanged": False},
    "completions": {},
}
"""The capabilities that the SDK derives from the handlers; a test keeps the two equal."""


class Opening(NamedTuple):
    """The first line of a connection that came before the SDK was loaded.

    Args:
        line: The line.
        request_id: The id of the `initialize` request that has been answered, or None for another line.
        reply: The answer, a line of JSON, or None.
    """

    line: bytes
    request_id: int | str | None = None
    reply: bytes | None = None


def opening_of(line: bytes) -> Opening:
    """Parse a first line, and answer it where it is an `initialize` that can be answered here."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return Opening(line)
    if not isinstance(message, dict) or not _is_plain_request(message):
        return Opening(line)
    result = {
        "protocolVersion": message["params"]["protocolVersion"],
        "capabilities": CAPABILITIES,
        "serverInfo": {"name": NAME, "title": TITLE, "version": __version__},
        "instructions": INSTRUCTIONS,
    }
    reply = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\n"
    return Opening(line, message["id"], reply)


def _is_plain_request(message: Mapping[str, Any]) -> bool:
    params, request_id = message.get("params"), message.get("id")
    if message.get("method") != "initialize" or message.get("jsonrpc") != "2.0" or not isinstance(params, dict):
        return False
    if not isinstance(request_id, int | str) or isinstance(request_id, bool):
        return False
    info, capabilities, version = (params.get(key) for key in ("clientInfo", "capabilities", "protocolVersion"))
    return (
        isinstance(version, str)
        and version in VERSIONS
        and isinstance(info, dict)
        and all(isinstance(info.get(key), str) for key in ("name", "version"))
        and isinstance(capabilities, dict)
        and all(isinstance(value, dict) for value in capabilities.values())
    )
