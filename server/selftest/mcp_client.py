"""An MCP client on the stdio of a real pump, like Claude Code."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from server.client.connect import pump_command
from server.client.tool_client import PROTOCOL, ToolError


class NoAnswerError(Exception):
    """The pump found no engine to answer a call; its error says to repeat the call."""


class McpClient:
    """One client.

    Args:
        process: A pump whose stdin and stdout are pipes.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.repeated = 0
        self._process = process
        self._ids = count(1)
        info = {"name": "selftest", "version": "1"}
        self._request("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": info})
        self._send({"method": "notifications/initialized"})

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool, repeat the call until it is answered, and return the answer's JSON.

        Raises:
            ToolError: The tool answered with an error.
            EOFError: The pump has ended.
        """
        while True:
            try:
                result = self._request("tools/call", {"name": tool, "arguments": arguments})
            except NoAnswerError:
                self.repeated += 1
                continue
            text = result["content"][0]["text"]
            if result.get("isError"):
                raise ToolError(text)
            return json.loads(text)

    def hang_up(self) -> None:
        """End the pump; a call that is under way on another thread ends with an `EOFError`."""
        self._process.kill()

    def _request(self, method: str, params: Mapping[str, Any]) -> Any:
        number = next(self._ids)
        self._send({"id": number, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == number and "method" not in message:
                if "error" in message:
                    raise NoAnswerError(message["error"]["message"])
                return message["result"]
        raise EOFError("the pump has ended")

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()


@contextmanager
def caller(home: Path, environ: Mapping[str, str], cwd: Path) -> Iterator[McpClient]:
    """Start a pump and initialize MCP with the engine behind it.

    Args:
        home: State directory.
        environ: The client's environment.
        cwd: Its working directory.
    """
    program, arguments = pump_command(home)
    with subprocess.Popen(
        [program, *arguments],
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield McpClient(process)
        finally:
            process.kill()
