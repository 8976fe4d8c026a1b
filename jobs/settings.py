"""Settings: each value that a person can set, with its scope: whom it holds for, and when a change takes effect."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import psutil
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from jobs.model import EXCERPT_LENGTH, PermissionMode
from orchestration.limits import TreeLimits

_RUN_CLAUDE = frozenset({"claude", "sh", "bash", "dash", "zsh", "node", "nodejs", "bun", "env", "timeout"})
"""Programs in which the `claude` of a job runs, or may run."""

_VARIABLES = re.compile(r"(?!\d)\w+\*?", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)

JOB_MEMORY = 250 * 1024 * 1024
"""Bytes of memory to count for one job: a headless `claude` was measured at 195 to 213 MB resident, and its shim, pump
and tools come on top."""

JOBS_PER_CPU = 16
"""Jobs for each core: a job computes for about 0.7 s in all and waits for the model otherwise (measured)."""


class SettingScope(StrEnum):
    """For whom a setting holds, and when a new value of it takes effect. Every setting names exactly one."""

    LOCATION = "location"
    """Names the state directory, which holds everything else; no file and no earlier engine can give it."""
    TREE = "tree"
    """Completes the requests of one client: its environment wins over the file, and a tree keeps what it began with.

    A change of the file holds for trees that begin later."""
    ENGINE_RELOADED = "engine"
    """The engine's, for all clients; it is read at each use, so a change of the file takes effect while it runs."""
    ENGINE_START = "engine, read at its start"
    """The engine's, for all clients; parts of it are built with it, or live jobs were admitted under it. A change
    of the file takes effect when the next engine starts."""


def default_max_running() -> int:
    """Return how many jobs this machine can hold at once, from its memory and its cores."""
    by_memory = psutil.virtual_memory().total // 2 // JOB_MEMORY
    by_cpu = (os.cpu_count() or 1) * JOBS_PER_CPU
    return max(2, min(int(by_memory), by_cpu))


class McpServerSettings(BaseModel):
    """An MCP server on stdio that jobs may be given; in `config.toml` a table `[mcp_servers.NAME]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSettings:
    """The settings of `SettingScope.TREE`, which complete the requests of one client. A tree keeps them while it lives.

    Args:
        cli: The `claude` binary, or None to look it up.
        permission_mode: Permission mode of a root that names none.
        timeout_seconds: Seconds that one attempt may run.
        timeout_multiplier: The older server's formula instead, or None.
        pass_environment: Variables of the client that jobs get beyond those that they always get.
    """

    cli: str | None
    permission_mode: PermissionMode
    timeout_seconds: float
    timeout_multiplier: float | None
    pass_environment: tuple[str, ...] = ()


class Settings(BaseModel):
    """The settings of an engine; `jobs.settings_sources` reads them from their sources.

    The parts of an engine share one object of this and read it at each use. Its fields are read-only; `reload` alone
    changes it, and only what is safe to change while the engine runs. A field has an example where its default is
    none.

    Raises:
        ValidationError: A value that a setting cannot take, by its name.
    """

    # Values hidden: an error is printed and logged, and `mcp_servers` holds credentials.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    home: Annotated[Path, SettingScope.LOCATION]
    """State directory: database, job directories, log, and the socket unless its path would be too long."""
    cli: Annotated[Path | None, SettingScope.TREE, Field(examples=["/usr/local/bin/claude"])] = None
    """The `claude` binary; None looks at PATH, then at the one that `claude-agent-sdk` bundles."""
    max_depth: Annotated[NonNegativeInt, SettingScope.ENGINE_START] = 5
    """Deepest level of a tree; its root is at 0."""
    max_concurrent: Annotated[dict[int, PositiveInt], SettingScope.ENGINE_START] = Field(
        default_factory=lambda: {0: 1, 1: 10, 2: 50}, examples=[{"0": 1, "1": 10}]
    )
    """Depth to the number of jobs that run there at once, per tree; a deeper level takes the deepest given."""
    max_children: Annotated[PositiveInt, SettingScope.ENGINE_START] = 100
    """Most children of one parent."""
    max_jobs: Annotated[PositiveInt, SettingScope.ENGINE_START] = 1000
    """Most jobs of one tree."""
    max_running: Annotated[PositiveInt, SettingScope.ENGINE_START] = Field(
        default_factory=default_max_running, examples=[8]
    )
    """Most jobs that run at once on this machine."""
    timeout_seconds: Annotated[PositiveFloat, SettingScope.TREE] = 1800.0
    """Seconds that one attempt may run; half an hour was the older server's cap."""
    timeout_multiplier: Annotated[PositiveFloat | None, SettingScope.TREE, Field(examples=[1.5])] = None
    """The older server's formula instead: 300 s times this to the power of the depth, at most 1,800 s."""
    pass_environment: Annotated[tuple[str, ...], SettingScope.TREE, Field(examples=[["GH_TOKEN", "OTEL_*"]])] = ()
    """Variables of the client's environment that its jobs get beyond those that they always get: names, or beginnings
    of names with an asterisk behind. The client itself picks them, at its start."""
    grace_seconds: Annotated[PositiveFloat, SettingScope.ENGINE_START] = 5.0
    """Seconds between asking a process to end and ending it; Claude needed 1.6 s to end a running tool (measured)."""
    silence_seconds: Annotated[PositiveFloat, SettingScope.ENGINE_RELOADED] = 1200.0
    """Seconds without output after which a job is ended as stalled; waiting for descendants does not count."""
    linger_seconds: Annotated[PositiveFloat, SettingScope.ENGINE_RELOADED] = 60.0
    """Seconds that a process may live on after its answer; Claude stays while a background command runs (measured)."""
    max_output_bytes: Annotated[PositiveInt, SettingScope.ENGINE_RELOADED] = 1024**3
    """Most bytes that an attempt may write to its transcript."""
    max_starting: Annotated[PositiveInt, SettingScope.ENGINE_START] = Field(
        default_factory=lambda: 8 * (os.cpu_count() or 1), examples=[8]
    )
    """Most jobs whose process was launched and has said nothing yet: a start takes 0.66 s of CPU (measured)."""
    memory_floor_bytes: Annotated[int, SettingScope.ENGINE_START] = Field(default=512 * 1024**2, ge=0)
    """Bytes of free memory below which no job is launched while another runs."""
    idle_seconds: Annotated[PositiveFloat, SettingScope.ENGINE_RELOADED] = 1800.0
    """Seconds without a connection and without a live job after which the engine exits."""
    end_jobs_on_stop: Annotated[bool, SettingScope.ENGINE_RELOADED] = False
    """Whether an engine that is told to stop cancels every job; otherwise they go on and the next one adopts them."""
    keep_days: Annotated[PositiveFloat, SettingScope.ENGINE_START] = 30.0
    """Days for which a tree that is over is kept, its transcripts included."""
    keep_bytes: Annotated[PositiveInt, SettingScope.ENGINE_START] = 10 * 1024**3
    """Most bytes of all job directories together; of the trees that ended more than an hour ago the
    longest ended go first."""
    extra_usage: Annotated[Literal["use", "wait"], SettingScope.ENGINE_RELOADED] = "use"
    """What jobs do where their account has reached a usage limit and goes on with usage that is paid for beyond it."""
    daily_budget_usd: Annotated[PositiveFloat | None, SettingScope.ENGINE_RELOADED, Field(examples=[20.0])] = None
    """Most US dollars of an account on one local day, over all its trees; then its jobs wait for the next day."""
    monthly_budget_usd: Annotated[PositiveFloat | None, SettingScope.ENGINE_RELOADED, Field(examples=[200.0])] = None
    """The same for a month of the calendar."""
    permission_mode: Annotated[PermissionMode, SettingScope.TREE] = "acceptEdits"
    """Permission mode of a job that names none."""
    allow_bypass_permissions: Annotated[bool, SettingScope.ENGINE_RELOADED] = False
    """Whether a person allows `bypassPermissions` at all."""
    mcp_servers: Annotated[dict[str, McpServerSettings], SettingScope.ENGINE_RELOADED] = Field(
        default_factory=dict, examples=[{"github": {"command": "github-mcp-server"}}]
    )
    """MCP servers that a job may be given by name besides ours."""
    trusted_directories: Annotated[
        tuple[Path, ...], SettingScope.ENGINE_RELOADED, Field(examples=[["/home/me/project"]])
    ] = ()
    """Directories whose own settings and CLAUDE.md jobs load, with all below them, besides what Claude Code trusts."""
    enabled_tools: Annotated[frozenset[str], SettingScope.ENGINE_RELOADED, Field(examples=[["Task"]])] = frozenset()
    """Tools of the CLI that are off for jobs by default and are to be on: Task or Monitor, for example; Skill is
    the name for the skills that the CLI bundles."""
    keep_processes: Annotated[frozenset[str], SettingScope.ENGINE_START, Field(examples=[["watchman"]])] = frozenset()
    """Programs that may go on after the job that started them, with all that they start, because other jobs share
    them: a build daemon such as watchman, bazel, or org.gradle.launcher.daemon.bootstrap.GradleDaemon. A name is that
    of the executable file, of the first argument up to a parenthesis, or the main class of a Java program."""
    permission_requests: Annotated[Literal["deny", "parent", "person"], SettingScope.ENGINE_START] = "deny"
    """Who answers the permission requests of jobs."""
    permission_seconds: Annotated[PositiveFloat, SettingScope.ENGINE_START] = 300.0
    """Seconds after which a permission request that has no answer is denied."""
    max_task_chars: Annotated[PositiveInt, SettingScope.ENGINE_RELOADED] = 1_000_000
    """Longest task text, in characters."""
    excerpt_chars: Annotated[int, SettingScope.ENGINE_RELOADED] = Field(default=EXCERPT_LENGTH, ge=1, le=EXCERPT_LENGTH)
    """Most characters of a result in a line about its job; no more of it than the default is kept with the job."""
    result_chars: Annotated[PositiveInt, SettingScope.ENGINE_RELOADED] = 40_000
    """Characters of a result in one reply; Claude Code spills a larger one to a file at 50,000 (measured)."""
    wait_seconds: Annotated[PositiveFloat, SettingScope.ENGINE_RELOADED] = 110.0
    """Longest `claude_wait`; Claude Code sends a call to the background after 120 s (measured)."""
    on_end: Annotated[str | None, SettingScope.ENGINE_RELOADED, Field(examples=["cat >> ~/ended.jsonl"])] = None
    """Command, or http(s) URL, that is told when a tree has ended; None tells nobody."""
    on_attention: Annotated[
        str | None, SettingScope.ENGINE_RELOADED, Field(examples=["https://example.com/claude-jobs"])
    ] = None
    """Command, or http(s) URL, that is told when a job waits for a permission, when a budget is used up, and when a
    pause begins or ends; None tells nobody."""
    desktop_notices: Annotated[bool, SettingScope.ENGINE_RELOADED] = False
    """Whether both kinds are also shown on the desktop, where the platform's program for that is found."""
    http_port: Annotated[int | None, SettingScope.ENGINE_RELOADED, Field(ge=1024, le=65_535, examples=[8470])] = None
    """Port of the page that `claude-jobs web` opens, on 127.0.0.1; None takes one that is free. A page that is served
    already stays where it is."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], SettingScope.ENGINE_RELOADED] = "INFO"
    """Level of the engine's log."""

    @field_validator("cli", "on_end", "on_attention", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("on_end", "on_attention")
    @classmethod
    def _hook(cls, value: str | None) -> str | None:
        if value is not None and (problem := problem_of_hook(value)) is not None:
            raise ValueError(problem)
        return value

    @field_validator("max_concurrent")
    @classmethod
    def _some_level(cls, value: dict[int, int]) -> dict[int, int]:
        if not value or min(value) < 0:
            raise ValueError('give at least one level, such as {"0": 1, "1": 10}; levels count from 0')
        return value

    @field_validator("keep_processes")
    @classmethod
    def _programs_that_claude_is_not(cls, value: frozenset[str]) -> frozenset[str]:
        # A job whose own `claude` runs in a kept program could not be ended.
        if wrong := sorted(name for name in value if not name or "/" in name or name in _RUN_CLAUDE):
            raise ValueError(f"{wrong[0][:40]!r} cannot be kept; give names of daemons, such as 'watchman'")
        return value

    @field_validator("pass_environment")
    @classmethod
    def _variables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [name for name in value if not _VARIABLES.fullmatch(name)]:
            raise ValueError(f"{wrong[0][:40]!r} is not a variable; give names, or a beginning and an asterisk")
        return value

    @field_validator("mcp_servers")
    @classmethod
    def _server_names(cls, value: dict[str, McpServerSettings]) -> dict[str, McpServerSettings]:
        # The name is part of rules, "mcp__NAME__tool": two underscores in it would make one server pass for another.
        for name in value:
            if not _SERVER_NAME.fullmatch(name) or "__" in name or name == "claude-jobs":
                raise ValueError(f"{name[:40]!r} cannot be used; use letters, digits, hyphens and single underscores")
        return value

    @property
    def tree_limits(self) -> TreeLimits:
        """The limits of one tree, as `orchestration` knows them."""
        return TreeLimits(
            max_depth=self.max_depth,
            max_concurrent=dict(self.max_concurrent),
            max_children=self.max_children,
            max_nodes=self.max_jobs,
        )

    @property
    def for_trees(self) -> TreeSettings:
        """The settings that a tree takes from its client."""
        return restored_tree_settings(self.model_dump(mode="json", include=set(names(SettingScope.TREE))))

    def reload(self, newer: "Settings") -> None:
        """Take over the values of `SettingScope.ENGINE_RELOADED` from newer settings; all others stay as they are."""
        for name in names(SettingScope.ENGINE_RELOADED):
            # Past the frozen model: this is the one place where its values change.
            self.__dict__[name] = getattr(newer, name)


def is_url(hook: str) -> bool:
    """Tell whether a hook is a URL; otherwise it is a command."""
    return _SCHEME.match(hook) is not None


def problem_of_hook(hook: str) -> str | None:
    """Return why this can be neither the command nor the URL of a hook, or None; it does not repeat the value."""
    if not hook.strip() or "\0" in hook:
        return "give a command or a URL"
    if not is_url(hook):
        return None
    try:
        url = urlsplit(hook)
        _ = url.port
    except ValueError:
        return "this is no URL"
    if url.scheme not in {"http", "https"} or not url.hostname or any(char.isspace() for char in hook):
        return "give a URL that begins with http:// or https:// and has a host and no blanks, or a command"
    if "@" in url.netloc:
        return "a URL here has no user and no password; run curl from a command for that"
    return None


def restored_tree_settings(values: Mapping[str, Any]) -> TreeSettings:
    """Return the settings of a tree as they were written down, by this version or by another.

    Args:
        values: Settings by name. Names that are not known here are left alone; for one that is missing the default
            counts.
    """
    defaults = {name: Settings.model_fields[name].default for name in names(SettingScope.TREE)}
    found = {name: values.get(name, default) for name, default in defaults.items()}
    # JSON has lists where the settings have tuples.
    kept: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in found.items()}
    return TreeSettings(**kept)


def scope_of(name: str) -> SettingScope:
    """Return the scope that a setting declares.

    Raises:
        LookupError: It declares none, or more than one.
    """
    found = [mark for mark in Settings.model_fields[name].metadata if isinstance(mark, SettingScope)]
    if len(found) != 1:
        raise LookupError(f"setting {name} declares {len(found)} scopes and needs exactly one")
    return found[0]


@cache
def names(*scopes: SettingScope) -> tuple[str, ...]:
    """Return the names of the settings with one of these scopes, in the order of their declaration."""
    return tuple(name for name in Settings.model_fields if scope_of(name) in scopes)
