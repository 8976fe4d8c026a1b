"""What a job may do, and the meet of what its parent may do with what is asked for it: rights only shrink."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType

from jobs.errors import JobsError

RANK: Mapping[str, int] = MappingProxyType(
    {"plan": 0, "manual": 1, "dontAsk": 1, "default": 2, "acceptEdits": 3, "auto": 4, "bypassPermissions": 5}
)
"""The CLI's permission modes from the narrowest to the widest. Without a person to ask, `manual`, `dontAsk` and
`default` deny the same calls; `acceptEdits` adds edits below the working directory, `auto` what a classifier passes,
and `bypassPermissions` everything."""

EDITING = frozenset({"Edit", "Write", "NotebookEdit"})
"""What `acceptEdits` permits without an entry in the list of allowed tools."""

READING = frozenset({"Read", "Glob", "Grep", "TodoWrite", "ToolSearch"})
"""What every mode permits."""

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
            f"{field}: {asked} is more than this job has ({have}). Ask for that or less, or leave {field} out."
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
class Wish:
    """What is asked for a child; None takes what the parent has.

    Args:
        mode: Permission mode.
        allowed: Tools that need no permission.
        disallowed: Tools that are to be off besides the parent's.
        directories: Absolute directories, the working directory first.
        servers: Names of MCP servers.
    """

    mode: str | None = None
    allowed: Sequence[str] | None = None
    disallowed: Sequence[str] = ()
    directories: Sequence[str] | None = None
    servers: Sequence[str] | None = None


def meet(parent: Rights, wish: Wish) -> Rights:
    """Return the rights of a child: what is asked, never more than the parent has, and nothing silently less.

    Raises:
        RightsError: Something is asked for that the parent does not have.
    """
    return Rights(
        mode=_mode(parent, wish.mode),
        allowed=_allowed(parent, wish.allowed),
        disallowed=tuple(dict.fromkeys((*parent.disallowed, *wish.disallowed))),
        directories=_directories(parent, wish.directories),
        servers=_servers(parent, wish.servers),
    )


def within(parent: Rights, child: Rights) -> bool:
    """Tell whether a child may do nothing that its parent may not."""
    return (
        RANK[child.mode] <= RANK[parent.mode]
        and all(_permits(parent, rule) for rule in child.allowed)
        and set(parent.disallowed) <= set(child.disallowed)
        and all(_contained(path, parent.directories) for path in child.directories)
        and set(child.servers) <= set(parent.servers)
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
        if not _permits(parent, rule):
            raise RightsError("allowedTools", rule, ", ".join(parent.allowed) or f"none beside mode {parent.mode}")
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


def _permits(parent: Rights, rule: str) -> bool:
    if parent.mode == "bypassPermissions":
        return True
    tool = rule.partition("(")[0]
    by_mode = tool in READING or (tool in EDITING and RANK[parent.mode] >= RANK["acceptEdits"] and rule == tool)
    return by_mode or any(covers(own, rule) for own in parent.allowed)


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
    return outer["tool"] == inner["tool"] and _narrower(outer["what"], inner["what"])


def _of_server(server: str, tool: str) -> bool:
    whole = server.removesuffix("__*")
    return whole.startswith("mcp__") and "__" not in whole[5:] and tool.startswith(whole + "__")


def _narrower(wide: str, narrow: str | None) -> bool:
    # Only "prefix*" and "prefix:*" are understood; shell text that chains commands is never called narrower.
    if narrow is None or not wide.endswith("*") or re.search(r"[;&|<>`$()\n]", narrow):
        return False
    prefix = wide[:-1].removesuffix(":")
    inner = narrow[:-1].removesuffix(":") if narrow.endswith("*") else narrow
    return "*" not in prefix and inner.startswith(prefix)


def _contained(path: str, directories: Iterable[str]) -> bool:
    # Component by component: "/tmpx" is not below "/tmp". Resolved: a link must not lead out.
    real = PurePath(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(directory)) for directory in directories)
