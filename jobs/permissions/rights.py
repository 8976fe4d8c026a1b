"""Rights of a job, and how a request for them is narrowed to the rights of its parent: rights only shrink."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from jobs.errors import JobsError
from jobs.model import PERMISSION_MODES

RANK: Mapping[str, int] = MappingProxyType(
    {mode: PERMISSION_MODES.index("default" if mode == "manual" else mode) for mode in PERMISSION_MODES}
)
"""The CLI's permission modes from the narrowest to the widest. `dontAsk` denies what `default` asks for; `acceptEdits`
adds edits inside the directories, `auto` what a classifier passes, and `bypassPermissions` everything."""

ALWAYS_ALLOWED = frozenset({"TodoWrite", "ToolSearch"})
"""What every mode permits everywhere. Reading and editing are not among them: a mode permits these inside the job's
directories, while a rule "Read" or "Write" permits them on the whole machine (measured on 2.1.330)."""

EDITING = frozenset({"Edit", "Write"})
"""What `acceptEdits` and wider modes permit inside the job's directories."""

OWN_SERVER_RULE = "mcp__claude-jobs"
"""The rule for our own tools, which every job has."""

_DOUBTFUL = re.compile(r"[;&|<>`$()\n*?\[\]{}!\\]|\.\.")
_RULE = re.compile(r"(?P<tool>[^()]+)(?:\((?P<what>.*)\))?", re.DOTALL)


class RightsError(JobsError):
    """A spawn asked for more than the parent has.

    Args:
        field: The argument that asks too much, as the caller spells it.
        asked: What was asked for.
        have: What the parent has.
    """

    def __init__(self, field: str, asked: str, have: str) -> None:
        self.field = field
        self.asked = asked
        self.have = have
        super().__init__(
            f"{field}: {asked} is more than the spawning job has ({have}). Ask for that or less, or leave {field} out."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a job may do.

    Args:
        mode: The CLI's permission mode.
        allowed: Tools that need no permission, in the CLI's spelling.
        disallowed: Tools that are off, in the CLI's spelling.
        directories: Absolute directories that the job may work in, its working directory first.
        servers: Names of MCP servers that it gets besides ours.
    """

    mode: str
    allowed: tuple[str, ...] = ()
    disallowed: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RightsRequest:
    """The rights that a caller asks for; None takes the parent's, or the default of a job without parent.

    Args:
        cwd: Directory to work in; a relative path starts at the parent's directory, or at the client's.
        mode: Permission mode.
        allowed: Tools that need no permission.
        disallowed: Tools that are to be off, in addition to the parent's.
        directories: Further directories; for `narrow` all of them, absolute, the working directory first.
        servers: Names of MCP servers from the settings.
    """

    cwd: str | None = None
    mode: str | None = None
    allowed: Sequence[str] | None = None
    disallowed: Sequence[str] = ()
    directories: Sequence[str] | None = None
    servers: Sequence[str] | None = None


def narrow(parent: Rights, request: RightsRequest) -> Rights:
    """Return the rights of a child: exactly what is asked, where the parent has it.

    Raises:
        RightsError: Something is asked for that the parent does not have.
    """
    return Rights(
        mode=_mode(parent, request.mode),
        allowed=_allowed(parent, request.allowed),
        disallowed=tuple(dict.fromkeys((*parent.disallowed, *request.disallowed))),
        directories=_directories(parent, request.directories),
        servers=_servers(parent, request.servers),
    )


def _mode(parent: Rights, asked: str | None) -> str:
    if asked is None:
        return parent.mode
    if RANK[asked] > RANK[parent.mode]:
        raise RightsError("permissionMode", asked, parent.mode)
    return asked


def _allowed(parent: Rights, asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        return parent.allowed
    for rule in asked:
        if not permits(parent, rule):
            raise RightsError("allowedTools", rule, ", ".join(parent.allowed) or f"no rule, mode {parent.mode}")
    return tuple(dict.fromkeys(asked))


def _directories(parent: Rights, asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        return parent.directories
    for path in asked:
        if not _contained(path, parent.directories):
            raise RightsError("cwd", path, ", ".join(parent.directories))
    return tuple(dict.fromkeys(asked))


def _servers(parent: Rights, asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is None:
        return parent.servers
    for name in asked:
        if name not in parent.servers:
            raise RightsError("mcpServers", name, ", ".join(parent.servers) or "none")
    return tuple(dict.fromkeys(asked))


def permits(parent: Rights, rule: str) -> bool:
    """Tell whether everything that a rule of the CLI permits is permitted to this job already, in any directory."""
    if parent.mode == "bypassPermissions" or rule in ALWAYS_ALLOWED:
        return True
    own = (*parent.allowed, OWN_SERVER_RULE, *(f"mcp__{name}" for name in parent.servers))
    return any(covers(one, rule) for one in own)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether one rule of the CLI permits everything that another does; where in doubt it does not.

    "Bash" covers "Bash(git status)", "Bash(git *)" covers "Bash(git status)", "mcp__box" covers "mcp__box__open".
    """
    if wide == narrow:
        return True
    outer, inner = _RULE.fullmatch(wide), _RULE.fullmatch(narrow)
    if outer is None or inner is None:
        return False
    if outer["what"] is None:
        return inner["tool"] == outer["tool"] or _of_server(outer["tool"], inner["tool"])
    # The patterns of other tools are paths, whose meaning hangs on where they begin: "Edit(*)" is not "Edit(//etc/*)".
    return outer["tool"] == inner["tool"] == "Bash" and _narrower(outer["what"], inner["what"])


def _of_server(server: str, tool: str) -> bool:
    whole = server.removesuffix("__*")
    return whole.startswith("mcp__") and "__" not in whole[5:] and tool.startswith(whole + "__")


def _narrower(wide: str, narrow: str | None) -> bool:
    # Only one asterisk at the end is understood. Text that chains commands, leads upwards or holds a pattern of its own
    # is never called narrower.
    if narrow is None or not wide.endswith("*") or "*" in wide[:-1]:
        return False
    inner = narrow.removesuffix("*").removesuffix(":")
    if _DOUBTFUL.search(inner):
        return False
    if wide.endswith(":*"):
        # "git:*" permits "git" and "git status", but not "gitx" (measured).
        prefix = wide[:-2]
        return inner.startswith(f"{prefix} ") or (inner == prefix and not narrow.endswith(f"{prefix}*"))
    return inner.startswith(wide[:-1])


def _contained(path: str, directories: Iterable[str]) -> bool:
    # Component by component: "/tmpx" is not below "/tmp". Resolved: a link must not lead out.
    real = PurePath(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(directory)) for directory in directories)


def permits_call(rights: Rights, tool: str, arguments: Mapping[str, Any]) -> bool:
    """Tell whether a job may make a tool call without a permission request; where in doubt it may not.

    Args:
        rights: What the job may do.
        tool: The tool.
        arguments: Its arguments.
    """
    if any(covers(off, tool) or off.partition("(")[0] == tool for off in rights.disallowed):
        return False
    command = arguments.get("command")
    rule = f"Bash({command})" if tool == "Bash" and isinstance(command, str) else tool
    return permits(rights, rule) or _in_place(rights, tool, arguments)


def _in_place(rights: Rights, tool: str, arguments: Mapping[str, Any]) -> bool:
    path = arguments.get("file_path")
    if not isinstance(path, str) or not _contained(path, rights.directories):
        return False
    return tool == "Read" or (tool in EDITING and RANK[rights.mode] >= RANK["acceptEdits"])
