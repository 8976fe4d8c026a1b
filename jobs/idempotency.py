"""What tells a repeated request from another one with the same idempotency key."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from jobs.intake import TaskRequest, TreeBounds

_DEFAULTS = {field.name: field.default for field in fields(TaskRequest)}


def request_digest(tasks: Sequence[TaskRequest], bounds: TreeBounds, *, single: bool, cwd: str) -> str:
    """Return a digest of a submission as its caller asked for it: 64 hexadecimal digits.

    What the caller left to a default is left out: a setting may change the default between two calls, and a later
    version may know more options. Paths count as they resolve, so one text in two directories is two requests.

    Args:
        tasks: The tasks, in their order.
        bounds: The bounds of a new tree.
        single: The one task is a tree's root.
        cwd: Absolute directory at which relative paths of the tasks start.
    """
    asked = {
        "tasks": [_given(task, cwd) for task in tasks],
        "bounds": [bounds.usd, bounds.seconds],
        "single": single,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _given(request: TaskRequest, cwd: str) -> dict[str, Any]:
    given = {
        name: value
        for name, default in _DEFAULTS.items()
        if _frozen(value := getattr(request, name)) != default or name == "task"
    }
    # A task may have a megabyte. Half a surrogate pair has no UTF-8 of its own.
    given["task"] = hashlib.sha256(request.task.encode("utf-8", "surrogatepass")).hexdigest()
    given["cwd"] = os.path.normpath(os.path.join(cwd, request.cwd or "."))  # noqa: PTH118 - a text, not yet a path
    return given


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
