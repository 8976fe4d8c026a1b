"""Rights of a job: narrowed to those of its parent, granted as far as the settings allow, and trust in directories."""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from jobs.claude.command import USER_ONLY, WITH_PROJECT
from jobs.claude.json_files import derived
from jobs.errors import BadInputError, JobsError
from jobs.model import PERMISSION_MODES
from jobs.settings import Settings
from jobs.spec import JobSpec

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

_ALLOWS_BYPASS = "set allow_bypass_permissions = true in config.toml (or CLAUDE_ALLOW_BYPASS_PERMISSIONS=1)"

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


def rights_of(spec: JobSpec) -> Rights:
    """Return what a job may do."""
    return Rights(
        mode=spec.permission_mode,
        allowed=spec.allowed_tools,
        disallowed=spec.disallowed_tools,
        directories=(spec.cwd, *spec.directories),
        servers=spec.mcp_servers,
    )


class Grants:
    """Decides what a new job may do.

    Args:
        settings: The engine's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def grant(self, asked: RightsRequest, *, parent: JobSpec | None, cwd: str, home: str | None) -> Rights:
        """Return the rights of a new job, its working directory first among the directories.

        Args:
            asked: What is asked for.
            parent: The spawning job, or None for a person or a program outside every tree.
            cwd: The client's directory, for a job without parent.
            home: The client's home directory, for a path that begins with "~", or None.

        Raises:
            BadInputError: A value that cannot be used, or that a person may not ask for.
            RightsError: A spawning job asks for more than it has.
        """
        self._check_names(asked)
        rights = self._of_root(asked, cwd, home) if parent is None else self._of_child(asked, parent, home)
        check_mode(
            rights.mode, self._settings, f"Use acceptEdits with allowedTools, or have a person {_ALLOWS_BYPASS}."
        )
        return rights

    def _of_root(self, asked: RightsRequest, cwd: str, home: str | None) -> Rights:
        work = existing_directory(asked.cwd, cwd, home, "cwd")
        return Rights(
            mode=asked.mode or self._settings.permission_mode,
            allowed=tuple(asked.allowed or ()),
            disallowed=tuple(asked.disallowed),
            directories=(
                work,
                *(existing_directory(one, work, home, "directories") for one in asked.directories or ()),
            ),
            servers=tuple(dict.fromkeys(asked.servers or ())),
        )

    def _of_child(self, asked: RightsRequest, parent: JobSpec, home: str | None) -> Rights:
        # Resolved: the path that was compared is kept, so a link that is changed afterwards has no effect.
        work = os.path.realpath(existing_directory(asked.cwd, parent.cwd, home, "cwd"))
        more = [
            os.path.realpath(existing_directory(one, work, home, "directories"))
            for one in (parent.directories if asked.directories is None else asked.directories)
        ]
        return narrow(rights_of(parent), replace(asked, directories=(work, *more)))

    def _check_names(self, asked: RightsRequest) -> None:
        if asked.mode is not None and asked.mode not in PERMISSION_MODES:
            raise BadInputError(
                "permissionMode", f"{asked.mode[:80]!r} is unknown", f"Use one of {', '.join(PERMISSION_MODES)}."
            )
        known = self._settings.mcp_servers
        for name in asked.servers or ():
            if name not in known:
                there = ", ".join(known) or "there are none"
                raise BadInputError("mcpServers", f"{name[:80]!r} is not in the settings ({there})", "Leave it out.")


def check_mode(mode: str, settings: Settings, remedy: str) -> None:
    """Make sure that a person allows a permission mode at this moment.

    Args:
        mode: The mode of a job that is to be admitted or launched.
        settings: The engine's settings.
        remedy: What to do next, as a sentence.

    Raises:
        BadInputError: It is `bypassPermissions`, and that is switched off.
    """
    if mode == "bypassPermissions" and not settings.allow_bypass_permissions:
        raise BadInputError("permissionMode", "bypassPermissions is switched off", remedy)


def check_mode_at_launch(spec: JobSpec, settings: Settings) -> None:
    """Make sure that a job which was admitted earlier may still run in its permission mode.

    A queued, retried or resumed job may meet other settings than those under which it was admitted.

    Raises:
        BadInputError: It may not.
    """
    remedy = f"Start the task as a new job with another mode, or have a person {_ALLOWS_BYPASS} and retry this one."
    check_mode(spec.permission_mode, settings, remedy)


def verify_directories_unchanged(directories: Iterable[str]) -> None:
    """Make sure that a child's directories are still the ones that were compared with its parent's.

    A job can rename one of its directories and put a link that leads out in its place, after its child was admitted.
    Blocks.

    Args:
        directories: Those of the child.

    Raises:
        RightsError: One of them leads elsewhere now.
    """
    for path in directories:
        if (real := os.path.realpath(path)) != path:
            raise RightsError("cwd", real, path)


def existing_directory(asked: str | None, base: str, home: str | None, field: str) -> str:
    """Return the absolute path of a directory that a caller names.

    Raises:
        BadInputError: It is not there, cannot be looked at, or is no directory.
    """
    path = Path(os.path.normpath(Path(base) / _at_home(asked or ".", home, field)))
    try:
        exists, is_directory = path.exists(), path.is_dir()
    except OSError as error:
        # A name that is too long, or a directory above that may not be searched.
        problem = f"{str(path)[:200]} cannot be read ({error.strerror})"
        raise BadInputError(field, problem, f"Name a directory that you can enter, or leave {field} out.") from error
    if not exists:
        raise BadInputError(field, f"{path} does not exist", f"Name a directory that exists, or leave {field} out.")
    if not is_directory:
        raise BadInputError(field, f"{path} is not a directory", "Name the directory that holds it.")
    return str(path)


def _at_home(asked: str, home: str | None, field: str) -> str:
    # The client's home, not that of the user who started the engine.
    head, separator, rest = asked.partition("/")
    if not head.startswith("~"):
        return asked
    if head != "~" or not home:
        raise BadInputError(field, f"{head[:40]} names no home directory that is known here", "Give an absolute path.")
    return f"{home}{separator}{rest}"


def setting_sources(
    directory: str, env: Mapping[str, str], trusted: Iterable[Path], *, parent: str | None = None
) -> str:
    """Return whose settings a job in this directory loads, as the CLI's option spells them. Reads files.

    Args:
        directory: Absolute path of the job's working directory.
        env: The client's environment: it says where Claude Code keeps the person's decisions.
        trusted: Directories that our own settings trust, with all below them.
        parent: Directory whose settings the parent loads, or None: a child loads no others.
    """
    real = PurePath(os.path.realpath(directory))
    if parent is not None and str(real) != os.path.realpath(parent):
        return USER_ONLY
    if any(real.is_relative_to(os.path.realpath(one)) for one in trusted):
        return WITH_PROJECT
    return WITH_PROJECT if _accepted(real, env) else USER_ONLY


def _accepted(directory: PurePath, env: Mapping[str, str]) -> bool:
    """Tell whether the person accepted Claude Code's trust dialog for this directory or for one above it.

    The home directory and the root are left out: a person who opened Claude Code there did not mean everything below.
    """
    place = env.get("CLAUDE_CONFIG_DIR") or env.get("HOME")
    accepted = derived(Path(place) / ".claude.json", _with_trust, own=True) if place else ()
    home = os.path.realpath(env["HOME"]) if env.get("HOME") else ""
    for above in (directory, *directory.parents):
        if above != directory and str(above) in {home, above.root}:
            return False
        if str(above) in accepted:
            return True
    return False


def _with_trust(state: Mapping[str, Any]) -> Collection[str]:
    projects = state.get("projects")
    return frozenset(
        path
        for path, project in (projects.items() if isinstance(projects, dict) else ())
        if isinstance(project, dict) and project.get("hasTrustDialogAccepted") is True
    )
