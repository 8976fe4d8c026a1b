"""Validates requests: builds complete job specs, or raises an error that says what is wrong and what to do."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from jobs.claude.binary import ClaudeFinder
from jobs.claude.command import LaunchContext, build
from jobs.errors import BadInputError
from jobs.model import Job
from jobs.permissions.rights import Grants, RightsRequest
from jobs.prompts.decomposition import SCHEMA
from jobs.settings import Settings, TreeSettings
from jobs.spec import OPTIONS, SUBTASK_OPTIONS, JobSpec, TaskRequest, positive, values
from jobs.store.rows import writable

_KEY = re.compile(r"[\w.-]{1,64}")

_LONGEST_TIMEOUT = 24 * 3600.0
"""Seconds of the longest time-out that a caller may ask for, unless a person made the default longer. Chosen, not
measured: more than this is a slip, and a job that hangs would hold its slot for as long."""


_SHARED = attrgetter(*(one.name for one in fields(TaskRequest) if one.name not in ("task", "key", "depends_on")))
"""Fields that the requests of a batch often have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeBounds:
    """Budget and time limit of a new tree; None for no bound.

    Args:
        usd: US dollars.
        seconds: Seconds from its admission on.
    """

    usd: float | None = None
    seconds: float | None = None

    def check(self, *, new_tree: bool) -> None:
        """Make sure that the bounds can be used.

        Raises:
            BadInputError: They are no positive numbers, or there is no new tree to bind.
        """
        for field, value in (("treeBudgetUsd", self.usd), ("treeTimeoutSeconds", self.seconds)):
            if value is None:
                continue
            positive(value, field)
            if not new_tree:
                raise BadInputError(
                    field, "it limits a new tree, and this batch has a parent", "Give each task its own limit instead."
                )


class SpecBuilder:
    """Checks requests against the settings and fills in their defaults.

    Args:
        settings: The engine's settings.
        claudes: Finds the binary, or None where no process is started.
    """

    def __init__(self, settings: Settings, claudes: ClaudeFinder | None = None) -> None:
        self._settings = settings
        self._claudes = claudes
        self._grants = Grants(settings)

    async def check_claude(self, env: Mapping[str, str], settings: TreeSettings | None) -> None:
        """Make sure that a job of this client can find a `claude`, so that its caller gets the error at once.

        Args:
            env: The client's environment.
            settings: The client's settings, or None for the engine's.

        Raises:
            BadInputError: `CLAUDE_JOBS_CLI` is a relative path.
            ClaudeNotFoundError: There is none.
            ClaudeTooOldError: It is too old.
        """
        if self._claudes is not None:
            await self._claudes.check((settings or self._settings.for_trees).cli, env.get("PATH"))

    def build(
        self, requests: Sequence[TaskRequest], fields: Sequence[str], *, at: float, **situation: Any
    ) -> list[JobSpec]:
        """Return the complete spec of each request of a submission, as `spec` does.

        What a request asks for like the one before it is not checked again: to look for the same directory 200 times
        took as long as to write the 200 jobs.

        Args:
            requests: What was asked.
            fields: How the caller spelled the task's argument of each, for errors.
            at: Now, in seconds since the epoch.
            situation: The other arguments of `spec`.
        """
        specs: list[JobSpec] = []
        for number, (request, field) in enumerate(zip(requests, fields, strict=True)):
            if number and _SHARED(request) == _SHARED(requests[number - 1]):
                spec = replace(specs[-1], task=self._task(request.task, field), key=_key(request.key))
            else:
                spec = self.spec(request, field=field, at=at, **situation)
            specs.append(spec)
        return specs

    def spec(
        self,
        request: TaskRequest,
        *,
        parent: Job | None,
        cwd: str,
        home: str | None = None,
        depth: int = 0,
        at: float = 0.0,
        field: str = "task",
        defaults: TreeSettings | None = None,
    ) -> JobSpec:
        """Return the complete spec of a request.

        Args:
            request: What was asked.
            parent: The spawning job, whose rights are the defaults and the most that can be asked for, or None.
            cwd: The tree's directory, for a request without parent and without a directory of its own.
            home: The client's home directory, for a directory that begins with "~", or None where it has none.
            depth: Depth of the job, for the default of its time-out.
            at: Now, in seconds since the epoch.
            field: How the caller spelled the task's argument, for errors.
            defaults: What the tree took from its client, or None for the engine's own.

        Raises:
            BadInputError: Naming the argument and what to do.
            RightsError: More is asked for than the spawning job has.
        """
        defaults = defaults or self._settings.for_trees
        if parent is None and request.permission_mode is None:
            request = replace(request, permission_mode=defaults.permission_mode)
        rights = self._grants.grant(_asked(request), parent=parent.spec if parent else None, cwd=cwd, home=home)
        spec = JobSpec(
            **values(request, OPTIONS) | {"json_schema": _schema(request)},
            task=self._task(request.task, field),
            cwd=rights.directories[0],
            permission_mode=rights.mode,
            timeout_seconds=_timeout(request.timeout_seconds, timeout_at(depth, defaults)),
            deadline=_deadline(request.subtree_seconds, at),
            allowed_tools=rights.allowed,
            disallowed_tools=rights.disallowed,
            directories=rights.directories[1:],
            mcp_servers=rights.servers,
            key=_key(request.key),
        )
        # What the launch would refuse is refused now, while the caller can be told. That is never the text, and
        # to encode a million characters takes 20 ms (measured).
        build(spec.with_task_preview(), LaunchContext(cli="claude", session_id=str(uuid.uuid4()), marker=""))
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
        # As its row will have it: half of a surrogate pair, as a job's answer may bring, is no text.
        return writable(task)


def subtask_request(task: str, job: Job) -> TaskRequest:
    """Return the request for one of the subtasks that a job has answered with."""
    return TaskRequest(**values(job.spec, SUBTASK_OPTIONS), task=task, can_decompose=True)


def _asked(request: TaskRequest) -> RightsRequest:
    return RightsRequest(
        cwd=request.cwd,
        mode=request.permission_mode,
        allowed=request.allowed_tools,
        disallowed=request.disallowed_tools,
        directories=request.directories,
        servers=request.mcp_servers,
    )


def timeout_at(depth: int, settings: TreeSettings) -> float:
    """Return the seconds that one attempt may run at a depth where its job names no time-out."""
    if settings.timeout_multiplier is None:
        return settings.timeout_seconds
    # 300 s and 1,800 s are constants of the older server.
    return min(300.0 * settings.timeout_multiplier**depth, 1800.0)


def _timeout(asked: float | None, default: float) -> float:
    if asked is None:
        return default
    longest = max(_LONGEST_TIMEOUT, default)
    if positive(asked, "timeoutSeconds") > longest:
        raise BadInputError(
            "timeoutSeconds",
            f"{asked:.0f} s is more than the longest time-out, {longest:.0f} s",
            "Give at most that, or leave it out.",
        )
    return asked


def _deadline(seconds: float | None, at: float) -> float | None:
    return None if seconds is None else at + positive(seconds, "subtreeSeconds")


def _key(key: str | None) -> str | None:
    # What a placeholder can name: `{{results.KEY}}`.
    if key is not None and not _KEY.fullmatch(key):
        raise BadInputError(
            "key", f"{key[:40]!r} is not a valid key", "Use up to 64 letters, digits, dots, hyphens or underscores."
        )
    return key


def _schema(request: TaskRequest) -> str | None:
    if not request.can_decompose:
        return request.json_schema
    if request.json_schema is not None:
        raise BadInputError(
            "jsonSchema", "a job with strategy decompose has one already", "Leave jsonSchema or the strategy out."
        )
    return SCHEMA
