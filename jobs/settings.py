"""The engine's settings: one frozen object from the environment, a TOML file and the older server's variables."""

import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from jobs.errors import BadInputError
from jobs.model import PermissionMode
from orchestration.limits import TreeLimits

_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)

JOB_MEMORY = 250 * 1024 * 1024
"""Bytes of memory to reckon for one job: a headless `claude` was measured at 195 to 213 MB resident, and its shim, pump
and tools come on top."""

JOBS_PER_CPU = 16
"""A job computes for about 0.7 s in all and waits for the model otherwise (measured), so many share a core."""


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


class Settings(BaseSettings):
    """Everything that a person can set; `CLAUDE_JOBS_` and the upper-case name, or the name in `config.toml`.

    Where a name is given twice, the environment wins over the file, the file over the older server's variables.

    Raises:
        ValidationError: A value that a setting cannot take, by its name.
        BadInputError: A source that cannot be read at all, or a name in the file that is no setting.
    """

    # Values hidden: an error is printed and logged, and `mcp_servers` holds credentials. Unknown variables are ignored,
    # since they may be another program's; the file is ours alone.
    model_config = SettingsConfigDict(env_prefix="CLAUDE_JOBS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    home: Path
    """State directory: database, job directories, log, and the socket unless its path would be too long."""
    cli: Path | None = None
    """The `claude` binary; None looks at PATH, then at the one that `claude-agent-sdk` bundles."""
    max_depth: NonNegativeInt = 5
    """Deepest level of a tree; its root stands at 0."""
    max_concurrent: dict[int, PositiveInt] = Field(default_factory=lambda: {0: 1, 1: 10, 2: 50})
    """Depth to the number of jobs that run there at once, per tree; a deeper level takes the deepest given."""
    max_children: PositiveInt = 100
    """Most children of one parent."""
    max_jobs: PositiveInt = 1000
    """Most jobs of one tree."""
    max_running: PositiveInt = Field(default_factory=default_max_running)
    """Most jobs that run at once on this machine."""
    timeout_seconds: PositiveFloat = 1800.0
    """Seconds that one attempt may run; half an hour was the older server's cap."""
    timeout_multiplier: PositiveFloat | None = None
    """The older server's formula instead: 300 s times this to the power of the depth, at most 1,800 s."""
    grace_seconds: PositiveFloat = 5.0
    """Seconds between asking a process to end and ending it; Claude needed 1.6 s to end a running tool (measured)."""
    silence_seconds: PositiveFloat = 1200.0
    """Seconds without output after which a job is ended as stalled; waiting for descendants does not count."""
    linger_seconds: PositiveFloat = 60.0
    """Seconds that a process may live on after its answer; Claude stays while a background command runs (measured)."""
    max_output_bytes: PositiveInt = 1024**3
    """Most bytes that an attempt may write to its transcript."""
    max_starting: PositiveInt = Field(default_factory=lambda: 8 * (os.cpu_count() or 1))
    """Most jobs whose process was launched and has said nothing yet: a start takes 0.66 s of CPU (measured)."""
    memory_floor_bytes: int = Field(default=512 * 1024**2, ge=0)
    """Bytes of free memory below which no further job is launched."""
    idle_seconds: PositiveFloat = 1800.0
    """Seconds without a connection and without a live job after which the engine leaves."""
    end_jobs_on_stop: bool = False
    """Whether an engine that is told to leave cancels every job; otherwise they go on and the next one adopts them."""
    keep_days: PositiveFloat = 30.0
    """Days for which a tree that is over is kept, its transcripts included."""
    keep_bytes: PositiveInt = 10 * 1024**3
    """Most bytes of all job directories together; of the trees that are over the longest ended go first."""
    permission_mode: PermissionMode = "acceptEdits"
    """Permission mode of a job that names none."""
    allow_bypass_permissions: bool = False
    """Whether a person allows `bypassPermissions` at all."""
    mcp_servers: dict[str, McpServerSettings] = Field(default_factory=dict)
    """MCP servers that a job may be given by name besides ours."""
    trusted_directories: tuple[Path, ...] = ()
    """Directories whose own settings and CLAUDE.md jobs load, with all below them, besides what Claude Code trusts."""
    enabled_tools: frozenset[str] = frozenset()
    """Tools of the CLI that are off for jobs by default and are to be on: Task or Monitor, for example; Skill stands
    for the skills that the CLI bundles."""
    permission_requests: Literal["deny", "parent", "person"] = "deny"
    """Who answers where a job wants to do what it has no permission for."""
    permission_seconds: PositiveFloat = 300.0
    """Seconds after which a request for permission that nobody has answered is denied."""
    max_task_chars: PositiveInt = 1_000_000
    """Longest task text, in characters."""
    excerpt_chars: PositiveInt = 500
    """Characters of a result that a line of `claude_wait` shows."""
    result_chars: PositiveInt = 40_000
    """Characters of a result in one reply; Claude Code spills a larger one to a file at 50,000 (measured)."""
    wait_seconds: PositiveFloat = 110.0
    """Longest `claude_wait`; Claude Code sends a call to the background after 120 s (measured)."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What the engine's log holds."""

    @field_validator("max_concurrent")
    @classmethod
    def _some_level(cls, value: dict[int, int]) -> dict[int, int]:
        if not value or min(value) < 0:
            raise ValueError('give at least one level, such as {"0": 1, "1": 10}; levels count from 0')
        return value

    @field_validator("mcp_servers")
    @classmethod
    def _server_names(cls, value: dict[str, McpServerSettings]) -> dict[str, McpServerSettings]:
        # The name stands in rules, "mcp__NAME__tool": two underscores in it would make one server pass for another.
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

    def timeout_at(self, depth: int) -> float:
        """Return the seconds that one attempt may run at this depth where the job names no time-out."""
        if self.timeout_multiplier is None:
            return self.timeout_seconds
        # 300 s and 1,800 s are constants of the older server.
        return min(300.0 * self.timeout_multiplier**depth, 1800.0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, `config.toml` of the state directory, older variables."""
        home = init_settings().get("home") or os.environ.get("CLAUDE_JOBS_HOME")
        ranked = [init_settings, _Ranked(settings_cls, env_settings)]
        if home:
            ranked.append(_Ranked(settings_cls, _file(settings_cls, Path(home) / "config.toml")))
        return (*ranked, _Ranked(settings_cls, lambda: older_settings(os.environ)))


class _Ranked(PydanticBaseSettingsSource):
    """A source below others: what they give it leaves alone, where pydantic-settings would merge two dictionaries.

    Args:
        settings_cls: The settings.
        read: Returns what the source gives.
    """

    def __init__(self, settings_cls: type[BaseSettings], read: Callable[[], dict[str, Any]]) -> None:
        super().__init__(settings_cls)
        self._read = read

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: `__call__` reads all of them at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the settings that no higher source gives."""
        try:
            given = self._read()
        except SettingsError as error:
            raise BadInputError(
                "CLAUDE_JOBS_ environment variables",
                f"{error}",
                'Several values are a JSON object, as in CLAUDE_JOBS_MAX_CONCURRENT=\'{"0": 1, "1": 10}\'.',
            ) from error
        return {name: value for name, value in given.items() if name not in self.current_state}


def _file(settings_cls: type[BaseSettings], path: Path) -> PydanticBaseSettingsSource:
    try:
        source = TomlConfigSettingsSource(settings_cls, path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInputError(str(path), f"it cannot be read as TOML: {error}", "Repair or remove the file.") from error
    _refuse_unknown(path, source.toml_data.keys() - settings_cls.model_fields.keys(), settings_cls.model_fields)
    return source


def _refuse_unknown(path: Path, unknown: Collection[str], known: Collection[str]) -> None:
    # A limit whose name is misspelt would not hold, and nobody would know.
    if not unknown:
        return
    named = ", ".join(repr(name) for name in sorted(unknown))
    meant = [close for name in sorted(unknown) for close in get_close_matches(name, known, 1)]
    hint = f"Did you mean {', '.join(map(repr, meant))}?" if meant else "Correct or remove it."
    raise BadInputError(str(path), f"there is no setting {named}", hint)


def older_settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Translate the older server's environment variables.

    Its depth limit counted levels, ours names the deepest one; its concurrency was one number for every level.
    """
    plain: dict[str, str] = {
        "CLAUDE_MAX_TOTAL_JOBS": "max_jobs",
        "CLAUDE_TIMEOUT_MULTIPLIER": "timeout_multiplier",
        "CLAUDE_ALLOW_BYPASS_PERMISSIONS": "allow_bypass_permissions",
        "CLAUDE_DEFAULT_PERMISSION_MODE": "permission_mode",
        "CLAUDE_LOG_LEVEL": "log_level",
    }
    found: dict[str, Any] = {name: environ[old] for old, name in plain.items() if environ.get(old)}
    if "log_level" in found:
        found["log_level"] = found["log_level"].upper()
    if depth := environ.get("CLAUDE_MAX_RECURSION_DEPTH"):
        found["max_depth"] = int(depth) - 1 if depth.isdecimal() else depth
    if slots := environ.get("CLAUDE_MAX_CONCURRENT_AT_DEPTH"):
        found["max_concurrent"] = {0: slots}
    return found
