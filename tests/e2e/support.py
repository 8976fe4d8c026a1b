"""One run of the real `claude -p`, in an environment built from nothing, against the scripted API."""

import importlib.util
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi

RUN_SECONDS = 60.0
"""Bound of one run; it takes about one second on an idle core, measured."""

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintRun:
    """What one run left.

    Args:
        exit_code: Of the process.
        frames: Every JSON line of its output, in order.
        stderr: What it said beside that.
    """

    exit_code: int
    frames: tuple[Mapping[str, Any], ...]
    stderr: str

    def of(self, kind: str, subtype: str | None = None) -> tuple[Mapping[str, Any], ...]:
        """Return the frames of a type and, where it is given, a subtype."""
        return tuple(
            frame for frame in self.frames if frame["type"] == kind and subtype in {None, frame.get("subtype")}
        )

    @property
    def answer(self) -> str:
        """The text of the last result frame."""
        results = self.of("result")
        assert results, f"no result frame; exit code {self.exit_code}, stderr: {self.stderr}"
        return str(results[-1]["result"])


def find_cli() -> Path | None:
    """Return the `claude` to test with: `CLAUDE_JOBS_CLI`, else the one that the SDK's wheel bundles, else None."""
    explicit = os.environ.get("CLAUDE_JOBS_CLI")
    if explicit:
        return Path(explicit)
    spec = importlib.util.find_spec("claude_agent_sdk")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "_bundled" / "claude"
    return bundled if bundled.is_file() else None


def run_claude(
    cli: Path,
    task: str,
    *,
    api: ScriptedApi,
    directory: Path,
    args: Sequence[str] = (),
    mcp_config: Mapping[str, Any] | None = None,
) -> PrintRun:
    """Run one task to its end.

    Args:
        cli: The binary.
        task: The user's message.
        api: A scripted API that is being served.
        directory: An empty directory for this run: home, working directory and output.
        args: Further arguments, `("--allowedTools", "mcp__tiny")` for example.
        mcp_config: MCP servers by name, as in the "mcpServers" of an MCP configuration.
    """
    home, work = directory / "home", directory / "work"
    home.mkdir(parents=True)
    work.mkdir()
    (directory / "in").write_text(print_input(task, mcp_config or {}), encoding="utf-8")
    # Files, not pipes: an MCP server that outlives `claude` would hold a pipe open, and the test with it.
    with (
        (directory / "in").open("rb") as stdin,
        (directory / "out").open("wb") as stdout,
        (directory / "err").open("wb") as stderr,
    ):
        ended = subprocess.run(
            [*print_command(cli), *args],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=work,
            env=isolated_environment(home, api.url, path=SYSTEM_PATH),
            timeout=RUN_SECONDS,
            check=False,
        )
    lines = (directory / "out").read_text(encoding="utf-8").splitlines()
    return PrintRun(
        exit_code=ended.returncode,
        frames=tuple(json.loads(line) for line in lines),
        stderr=(directory / "err").read_text(encoding="utf-8", errors="replace"),
    )


def print_command(cli: Path) -> list[str]:
    """Return the command of one run."""
    streams = "--input-format stream-json --await-initialize --output-format stream-json --verbose"
    return [str(cli), "-p", *streams.split(), "--strict-mcp-config", "--setting-sources", "user"]


def print_input(task: str, mcp_config: Mapping[str, Any]) -> str:
    """Return what a run reads from its stdin: a task, and MCP servers by name."""
    initialize = {
        "type": "control_request",
        "request_id": "r1",
        "request": {"subtype": "initialize", "mcpServers": mcp_config},
    }
    message = {"type": "user", "client_composed": True, "message": {"role": "user", "content": task}}
    return f"{json.dumps(initialize)}\n{json.dumps(message)}\n"
