"""Turns what a caller asked for into job specs, or says what is wrong with it and what to do."""

import math
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from jobs.claude.command import LaunchContext, build
from jobs.decomposition import SCHEMA
from jobs.errors import BadInputError
from jobs.model import Job, JobSpec
from jobs.settings import PermissionMode, Settings

_PERMISSION_MODES: tuple[str, ...] = get_args(PermissionMode)
_OUTPUT_FORMATS = ("json", "text", "stream-json")
_LONGEST_TIMEOUT = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """One task as a caller gives it; None asks for the default.

    Args:
        task: The text.
        cwd: Directory to work in; relative paths start at the client's directory, or at the spawning job's.
        model: Model name.
        permission_mode: The CLI's permission mode.
        output_format: "json", "text" or "stream-json".
        verbose: Keep the bulk of the CLI's result object.
        effort: The CLI's effort level.
        max_budget_usd: Most US dollars.
        timeout_seconds: Seconds that one attempt may run.
        allowed_tools: Tools that need no permission.
        disallowed_tools: Tools that are off.
        append_system_prompt: Text for the end of the system prompt.
        json_schema: JSON Schema as text.
        divisible: The job may answer with subtasks.
    """

    task: str
    cwd: str | None = None
    model: str | None = None
    permission_mode: str | None = None
    output_format: str = "json"
    verbose: bool = False
    effort: str | None = None
    max_budget_usd: float | None = None
    timeout_seconds: float | None = None
    allowed_tools: Sequence[str] = ()
    disallowed_tools: Sequence[str] = ()
    append_system_prompt: str | None = None
    json_schema: str | None = None
    divisible: bool = False


class Intake:
    """Checks requests against the settings and fills in their defaults.

    Args:
        settings: The engine's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def spec(
        self,
        request: TaskRequest,
        *,
        parent: Job | None,
        cwd: str,
        home: str | None = None,
        depth: int = 0,
        field: str = "task",
    ) -> JobSpec:
        """Return the complete spec of a request.

        Args:
            request: What was asked.
            parent: The spawning job, whose directory and permission mode are the defaults, or None.
            cwd: The tree's directory, for a request without parent and without a directory of its own.
            home: The client's home directory, for a directory that begins with "~", or None where it has none.
            depth: Depth at which the job will stand, for the default of its time-out.
            field: How the caller spelled the task's argument, for errors.

        Raises:
            BadInputError: Naming the argument and what to do.
        """
        base = parent.spec.cwd if parent else cwd
        spec = JobSpec(
            task=self._task(request.task, field),
            cwd=_directory(request.cwd, base, home),
            model=request.model,
            permission_mode=self._permission_mode(request.permission_mode, parent),
            output_format=_one_of("outputFormat", request.output_format, _OUTPUT_FORMATS),
            verbose=request.verbose,
            effort=request.effort,
            max_budget_usd=_positive("maxBudgetUsd", request.max_budget_usd),
            timeout_seconds=self._timeout(request.timeout_seconds, depth),
            allowed_tools=tuple(request.allowed_tools),
            disallowed_tools=tuple(request.disallowed_tools),
            append_system_prompt=request.append_system_prompt,
            json_schema=_schema(request),
            divisible=request.divisible,
        )
        # What the launch would refuse is refused now, where the caller still hears of it.
        build(spec, LaunchContext(cli="claude", session_id=str(uuid.uuid4()), marker=""))
        return spec

    def _task(self, task: str, field: str) -> str:
        if not task.strip():
            raise BadInputError(field, "the task is empty", "Say what the job is to do, then call again.")
        if "\x00" in task:
            raise BadInputError(field, "the task holds a NUL character", "Remove it, then call again.")
        limit = self._settings.max_task_chars
        if len(task) > limit:
            raise BadInputError(
                field,
                f"the task has {len(task)} characters, the limit is {limit}",
                "Put the material into a file that the job can read and name the file in the task.",
            )
        return task

    def _permission_mode(self, asked: str | None, parent: Job | None) -> str:
        mode = asked or (parent.spec.permission_mode if parent else self._settings.permission_mode)
        _one_of("permissionMode", mode, _PERMISSION_MODES)
        if mode == "bypassPermissions" and not self._settings.allow_bypass_permissions:
            raise BadInputError(
                "permissionMode",
                "bypassPermissions is switched off",
                "Use acceptEdits with allowedTools, or have a person set CLAUDE_ALLOW_BYPASS_PERMISSIONS=1.",
            )
        return mode

    def _timeout(self, asked: float | None, depth: int) -> float:
        if asked is None:
            return self._settings.timeout_at(depth)
        return min(_finite("timeoutSeconds", asked), _LONGEST_TIMEOUT)


def _directory(asked: str | None, base: str, home: str | None) -> str:
    path = Path(os.path.normpath(Path(base) / _at_home(asked or ".", home)))
    try:
        exists, is_directory = path.exists(), path.is_dir()
    except OSError as error:
        # A name that is too long, or a directory above that nobody may search.
        problem = f"{str(path)[:200]} cannot be looked at ({error.strerror})"
        raise BadInputError("cwd", problem, "Name a directory that you can enter, or leave cwd out.") from error
    if not exists:
        raise BadInputError("cwd", f"{path} does not exist", "Name a directory that exists, or leave cwd out.")
    if not is_directory:
        raise BadInputError("cwd", f"{path} is not a directory", "Name the directory that holds it.")
    return str(path)


def _at_home(asked: str, home: str | None) -> str:
    # The client's home, not that of whoever started the engine.
    head, separator, rest = asked.partition("/")
    if not head.startswith("~"):
        return asked
    if head != "~" or not home:
        raise BadInputError("cwd", f"{head[:40]} stands for no directory here", "Give an absolute path.")
    return f"{home}{separator}{rest}"


def _one_of(field: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise BadInputError(field, f"{value!r} is unknown", f"Use one of {', '.join(allowed)}.")
    return value


def _positive(field: str, value: float | None) -> float | None:
    return None if value is None else _finite(field, value)


def _finite(field: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(field, f"{value} is no number above 0", "Give a positive number, or leave it out.")
    return value


def _schema(request: TaskRequest) -> str | None:
    if not request.divisible:
        return request.json_schema
    if request.json_schema is not None:
        raise BadInputError(
            "jsonSchema", "a job with strategy decompose has one already", "Leave jsonSchema or the strategy out."
        )
    return SCHEMA
