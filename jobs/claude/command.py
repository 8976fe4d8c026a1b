"""Builds the command of a job: argument vector, standard input and environment of its `claude`; no side effects."""

import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jobs.claude.binary import NEWEST, CliFeatures
from jobs.errors import BadInputError
from jobs.model import PERMISSION_MODES
from jobs.spec import JobSpec, command_options, one_argument

MARKER: Final = "CLAUDE_JOBS_JOB"
"""Environment variable with the job marker, which every process of a job inherits and is found by."""

SERVER_NAME: Final = "claude-jobs"
TOKEN_KEY: Final = "claude_jobs_token"  # noqa: S105 - the name of a field, not a secret

OFF: Final = (
    "Task",
    "Agent",
    "Workflow",
    "ScheduleWakeup",
    "ListAgents",
    "SendMessage",
    "ReportFindings",
    "CronCreate",
    "CronDelete",
    "CronList",
    "Monitor",
    "EnterWorktree",
    "ExitWorktree",
    # No person is there to be asked; where permissions are asked for, the CLI would offer it.
    "AskUserQuestion",
)
"""Tools that spawn, schedule or message past the tree's limits; without them a first request is half as long."""

BUNDLED_SKILLS: Final = "Skill"
"""Name of the tool that brings the CLI's bundled skills back. Their list is 6 KB of each first request, a fifth of it
(measured on 2.1.332); the person's own skills are not among them and stay."""

USER_ONLY: Final = "user"
"""A repository's own settings could run hooks or send the API key elsewhere: only the person's are read."""

WITH_PROJECT: Final = "user,project,local"
"""For a directory that the person trusts: its settings and its CLAUDE.md too."""

PERMISSION_TOOL: Final = "claude_permit"
"""Our tool that the CLI itself calls where a permission is missing. The CLI hides it from its model (measured)."""

RETRIES: Final = "3"
"""How often the CLI tries a failed request again by itself, where the client does not say. Its own ten tries would hold
the job's slot for minutes and hide the limit from the throttle: a job gives its slot back and is queued again."""

_BASE: Final = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    # What a call consumed is in these frames alone where the process ends before it reports it.
    "--include-partial-messages",
    # In a trusted directory too: its .mcp.json would bring servers that the spawning job has no right to.
    "--strict-mcp-config",
)
_PIPED: Final = ("/bin/sh", "-c", 'trap : HUP INT TERM; cat | "$0" "$@"')
"""Passes stdin on as a pipe. The trap: the shell exits with the exit code of `claude`, not before it."""

_TOOL = re.compile(r"[A-Za-z_][\w-]{0,127}(\*|\([^()\x00-\x1f]{0,500}\))?", re.ASCII)
SESSION: Final = (
    *("AI_AGENT", "CLAUDECODE", "CLAUDE_AUTO_BACKGROUND", "CLAUDE_BG_", "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"),
    *("CLAUDE_CODE_BRIDGE_", "CLAUDE_CODE_CHILD_", "CLAUDE_CODE_DESKTOP_", "CLAUDE_CODE_ENTRYPOINT"),
    *("CLAUDE_CODE_EXECPATH", "CLAUDE_CODE_IDE_", "CLAUDE_CODE_LAUNCHED_BY_", "CLAUDE_CODE_MESSAGING_"),
    *("CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR", "CLAUDE_CODE_RELAUNCH_", "CLAUDE_CODE_REMOTE", "CLAUDE_CODE_RESUME_"),
    *("CLAUDE_CODE_SDK_", "CLAUDE_CODE_SESSION_", "CLAUDE_CODE_SSE_PORT", "CLAUDE_CODE_TASK_LIST_ID"),
    *("CLAUDE_CODE_TEAM_", "CLAUDE_CODE_WEBSOCKET_", "CLAUDE_EFFORT", "CLAUDE_JOBS_", "CLAUDE_PID", "CLAUDE_PLUGIN_"),
    "CLAUDE_PROJECT_DIR",
)
"""Prefixes of variables of the client's session, and of ours: no job inherits one from its client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """How the job's `claude` starts an MCP server.

    Args:
        command: Program.
        args: Its arguments; for ours the job's directory among them, never its token.
        env: Variables for it besides the job's own.
    """

    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchContext:
    """Inputs of one launch besides the job's specification.

    Args:
        cli: Path of the `claude` binary.
        features: Features of its version that decide how it is started.
        servers_file: Where `Command.servers` will be, for a `claude` that does not take MCP servers over stdin.
        session_id: UUID of the attempt's session, chosen and written down before the launch.
        continues: Session to continue, or None for a new one. The attempt's own id resumes that session; another id
            makes the attempt's session a copy of it.
        server: Our MCP server, or None for a job that gets none.
        more_servers: The MCP servers from the settings that the job gets, by name.
        setting_sources: Whose settings are loaded: `USER_ONLY` or `WITH_PROJECT`.
        enabled_tools: Names in `OFF`, or `BUNDLED_SKILLS`, that are to be on.
        asks_permission: Where a permission is missing our server is asked; else the call is denied.
        token: The job's token; it goes into the stdin file and nowhere else.
        briefing: Text before the task in the first user message; may be empty.
        client_env: The client's environment, cut down to what may be passed on.
        marker: The job marker, by which the job's processes are found.
        umask: Mask of the modes of the files that the job makes.
    """

    cli: str
    features: CliFeatures = NEWEST
    servers_file: str = ""
    session_id: str
    continues: str | None = None
    server: McpServer | None = None
    more_servers: Mapping[str, McpServer] = field(default_factory=dict)
    setting_sources: str = USER_ONLY
    enabled_tools: Collection[str] = ()
    asks_permission: bool = False
    token: str | None = None
    briefing: str = ""
    client_env: Mapping[str, str] = field(default_factory=dict)
    marker: str
    umask: int = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Command that is started for an attempt.

    Args:
        argv: The program and its arguments; it holds no secret, since other users can read it.
        stdin: Everything that the process will read.
        env: Its whole environment.
        umask: Mask of the modes of the files that it makes; those of the attempt are private in any case.
        servers: What is written to `LaunchContext.servers_file` before, or None where it is not needed.
    """

    argv: tuple[str, ...]
    stdin: bytes
    env: Mapping[str, str]
    umask: int = 0o022
    servers: bytes | None = None


def build(spec: JobSpec, launch: LaunchContext) -> Command:
    """Turn a job into a command.

    Every value of a caller is behind the equals sign of an option of ours or in the stdin text, so none of them
    can become an option, a slash command or a file reference.

    Raises:
        BadInputError: A value that the CLI could misread, named as the caller spells it.
    """
    argv = (
        *(() if launch.features.awaits else _PIPED),
        launch.cli,
        *_BASE,
        *(("--await-initialize",) if launch.features.awaits else ()),
        *(() if launch.features.takes_servers else (f"--mcp-config={launch.servers_file}",)),
        f"--setting-sources={launch.setting_sources}",
        *_session(launch),
        *_rights(spec, launch),
        *command_options(spec),
    )
    servers = None if launch.features.takes_servers else json.dumps({"mcpServers": _servers(launch)}).encode()
    return Command(argv=argv, stdin=_stdin(spec, launch), env=_environment(launch), umask=launch.umask, servers=servers)


def check_tools(names: Iterable[str], argument: str) -> tuple[str, ...]:
    """Return tool names as they are.

    Raises:
        BadInputError: One of them is none; "Read", "Bash(git *)" and "mcp__server" are.
    """
    checked = tuple(names)
    for name in checked:
        if not _TOOL.fullmatch(name):
            raise BadInputError(
                argument, f"{name[:80]!r} is not a tool name", "Write tools as 'Read', 'Bash(git *)' or 'mcp__server'."
            )
    return checked


def _session(launch: LaunchContext) -> tuple[str, ...]:
    session = _uuid(launch.session_id, "sessionId")
    if launch.continues is None:
        return (f"--session-id={session}",)
    continued = _uuid(launch.continues, "resumeSession")
    if continued == session:
        return (f"--resume={session}",)
    return (f"--resume={continued}", "--fork-session", f"--session-id={session}")


def _rights(spec: JobSpec, launch: LaunchContext) -> tuple[str, ...]:
    if spec.permission_mode not in PERMISSION_MODES:
        raise BadInputError(
            "permissionMode", f"{spec.permission_mode[:40]!r} is none", f"Use {_any(PERMISSION_MODES)}."
        )
    servers = (*((SERVER_NAME,) if launch.server else ()), *launch.more_servers)
    allowed = (*(f"mcp__{name}" for name in servers), *check_tools(spec.allowed_tools, "allowedTools"))
    off = (tool for tool in OFF if tool not in launch.enabled_tools)
    denied = (*off, *check_tools(spec.disallowed_tools, "disallowedTools"))
    return (
        f"--permission-mode={spec.permission_mode}",
        *(f"--add-dir={one_argument(path, 'directories')}" for path in spec.directories),
        *((f"--permission-prompt-tool=mcp__{SERVER_NAME}__{PERMISSION_TOOL}",) if launch.asks_permission else ()),
        *((f"--allowedTools={','.join(allowed)}",) if allowed else ()),
        f"--disallowedTools={','.join(dict.fromkeys(denied))}",
    )


def _stdin(spec: JobSpec, launch: LaunchContext) -> bytes:
    request = {"subtype": "initialize"} | ({"mcpServers": _servers(launch)} if launch.features.takes_servers else {})
    initialize: dict[str, Any] = {
        "type": "control_request",
        "request_id": "initialize",
        "request": request,
    }
    if launch.token is not None:
        initialize[TOKEN_KEY] = launch.token
    text = f"{launch.briefing}\n\n{spec.task}" if launch.briefing else spec.task
    # The API refuses lone surrogates, so half a character becomes a question mark.
    content = text.encode("utf-8", "replace").decode()
    if not launch.features.awaits and content.startswith("/"):
        # Behind a newline it is no command; nothing else is more than text (measured on 2.1.197).
        content = f"\n{content}"
    # client_composed: a task that begins with "/" or names "@/etc/passwd" stays text (measured on 2.1.330).
    message = {"type": "user", "client_composed": True, "message": {"role": "user", "content": content}}
    return b"".join(json.dumps(line).encode() + b"\n" for line in (initialize, message))


def _servers(launch: LaunchContext) -> dict[str, Any]:
    servers = {name: _server(server) for name, server in launch.more_servers.items()}
    return servers | ({SERVER_NAME: _server(launch.server)} if launch.server else {})


def _server(server: McpServer) -> dict[str, Any]:
    return {"type": "stdio", "command": server.command, "args": list(server.args), "env": dict(server.env)}


def _environment(launch: LaunchContext) -> dict[str, str]:
    env = {name: value for name, value in launch.client_env.items() if not name.startswith(SESSION)}
    legacy = env.pop("CLAUDE_CODE_TOKEN", None)
    if legacy:
        # The older server's name for the subscription's token.
        env.setdefault("CLAUDE_CODE_OAUTH_TOKEN", legacy)
    lean = {} if BUNDLED_SKILLS in launch.enabled_tools else {"CLAUDE_CODE_DISABLE_BUNDLED_SKILLS": "1"}
    return (
        {"CLAUDE_CODE_MAX_RETRIES": RETRIES}
        | lean
        | env
        | {
            MARKER: launch.marker,
            "DISABLE_AUTOUPDATER": "1",
            # A parent may wait for its children for hours: our own tools bound their time.
            "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": "0",
        }
    )


def _uuid(text: str, argument: str) -> str:
    try:
        value = str(uuid.UUID(text))
    except ValueError:
        value = None
    if value is None or value != text.lower():
        raise BadInputError(argument, f"{text[:40]!r} is not a UUID", "Take it from claude_status.")
    return value


def _any(names: Sequence[str]) -> str:
    return ", ".join(names)
