#!/usr/bin/env -S python3 -I -S
"""A `claude` that calls the spawn tools as often as it is told, through the MCP server that its first line names.

Directives in the task's text, each `storm:NAME=VALUE`:
    ledger=F    append "begin DEPTH" and "end DEPTH" to F
    calls=N     call claude_run_async N times, a hundred calls under way at once
    spawn=N     spawn N jobs with the same task as one batch, and wait for them
    report=F    append one JSON line to F: how many calls were answered, and the words of those that were refused
    sleep=S     then wait so long
"""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

UNDER_WAY = 100


class Tools:
    """The MCP server of this job, as its own client.

    Args:
        server: How it is started.
    """

    def __init__(self, server: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(
            [server["command"], *server["args"]],
            env={**os.environ, **server["env"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.number = 0
        info = {"name": "storm", "version": "1"}
        self.send("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info})
        self.answer()
        self.write({"method": "notifications/initialized"})

    def write(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, params: Mapping[str, Any]) -> None:
        self.number += 1
        self.write({"id": self.number, "method": method, "params": params})

    def answer(self) -> dict[str, Any]:
        """Return the next answer, to whichever call it belongs."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            message = json.loads(line)
            if "id" in message and "method" not in message:
                return dict(message)
        raise EOFError

    def call(self, tool: str, **arguments: Any) -> None:
        self.send("tools/call", {"name": tool, "arguments": arguments})

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def words(answer: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether a call was refused, and what was said."""
    if "error" in answer:
        return True, str(answer["error"].get("message", ""))
    result = answer["result"]
    return bool(result.get("isError")), str(result["content"][0]["text"])


def storm(tools: Tools, calls: int) -> Counter[str]:
    """Call the spawn tool so often and return how often each thing was said."""
    said: Counter[str] = Counter()
    sent = answered = 0
    while answered < calls:
        while sent < calls and sent - answered < UNDER_WAY:
            tools.call("claude_run_async", task=f"child {sent}")
            sent += 1
        refused, text = words(tools.answer())
        said[text if refused else "accepted"] += 1
        answered += 1
    return said


def spread(tools: Tools, task: str, width: int) -> Counter[str]:
    """Spawn so many jobs with the same task, wait for them, and return what was said."""
    tools.call("claude_run_batch_async", tasks=[task] * width)
    refused, text = words(tools.answer())
    if refused:
        return Counter({text: 1})
    batch, pending = json.loads(text)["batchId"], 1
    while pending:
        tools.call("claude_wait", batchId=batch)
        failed, text = words(tools.answer())
        if failed:
            return Counter({"accepted": 1, text: 1})
        pending = json.loads(text)["pending"]
    return Counter({"accepted": 1})


def append(path: str | None, line: str) -> None:
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


def emit(kind: str, **fields: Any) -> None:
    os.write(1, json.dumps({"type": kind, **fields}).encode() + b"\n")


def main() -> int:
    initialize = json.loads(sys.stdin.readline())
    text = str(json.loads(sys.stdin.readline())["message"]["content"])
    given = dict(re.findall(r"storm:([a-z]+)=([^\s\"]*)", text))
    depth = (re.findall(r"at depth (\d+)", text) or ["?"])[0]
    task = " ".join(f"storm:{name}={value}" for name, value in given.items())
    emit("system", subtype="init", model="stub", tools=[], mcp_servers=[])
    append(given.get("ledger"), f"begin {depth}")
    said: Counter[str] = Counter()
    if "calls" in given or "spawn" in given:
        tools = Tools(initialize["request"]["mcpServers"]["claude-jobs"])
        said = storm(tools, int(given["calls"])) if "calls" in given else spread(tools, task, int(given["spawn"]))
        tools.close()
        append(given.get("report"), json.dumps(said))
    time.sleep(float(given.get("sleep", "0")))
    append(given.get("ledger"), f"end {depth}")
    emit("result", subtype="success", is_error=False, result="done", num_turns=1, total_cost_usd=0.0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
