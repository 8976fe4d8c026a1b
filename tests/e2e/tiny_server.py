"""The smallest MCP server on stdio: one tool, `add`, and a `claude_wait` that is done at its second call.

It uses the standard library alone, since a test that imports the MCP SDK in a child pays a second for it.
"""

import json
import sys
from itertools import count
from typing import Any

_WAITS = count()

_TOOLS = [
    {
        "name": name,
        "description": f"Calls {name}.",
        "inputSchema": {"type": "object"},
        "_meta": {"anthropic/alwaysLoad": True},
    }
    for name in ("add", "claude_wait")
]


def _call(name: str, arguments: dict[str, Any]) -> str:
    if name == "add":
        return json.dumps({"sum": sum(arguments["numbers"]), "batchId": "b1"})
    if next(_WAITS) == 0:
        return json.dumps({"done": [], "pending": 1, "cursor": "c1"})
    done = {"jobId": "j1", "status": "completed", "excerpt": f"asked with {json.dumps(arguments, sort_keys=True)}"}
    return json.dumps({"done": [done], "pending": 0, "cursor": "c2"})


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    params = request.get("params") or {}
    match request["method"]:
        case "initialize":
            info = {"name": "tiny", "version": "1"}
            return {
                "result": {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": info,
                }
            }
        case "tools/list":
            return {"result": {"tools": _TOOLS}}
        case "tools/call":
            text = _call(params["name"], params.get("arguments") or {})
            return {"result": {"content": [{"type": "text", "text": text}]}}
        case method:
            return {"error": {"code": -32601, "message": f"no method {method}"}}


def main() -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **_answer(request)}), flush=True)


if __name__ == "__main__":
    main()
