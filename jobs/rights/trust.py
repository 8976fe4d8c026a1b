"""Whether a directory's own settings may be loaded: only where the person has trusted it, here or in Claude Code."""

import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from jobs.claude.command import USER_ONLY, WITH_PROJECT

MOST = 16 * 1024 * 1024
"""Bytes of the largest `.claude.json` that is read; it grows with every project that the person ever opened."""


def setting_sources(directory: str, env: Mapping[str, str], trusted: Iterable[Path]) -> str:
    """Return whose settings a job in this directory loads, as the CLI's option spells them.

    Args:
        directory: Absolute path of the job's working directory.
        env: The client's environment: it says where Claude Code keeps the person's decisions.
        trusted: Directories that our own settings trust, with all below them.
    """
    real = PurePath(os.path.realpath(directory))
    if any(real.is_relative_to(os.path.realpath(one)) for one in trusted):
        return WITH_PROJECT
    return WITH_PROJECT if _accepted(real, env) else USER_ONLY


def _accepted(directory: PurePath, env: Mapping[str, str]) -> bool:
    """Tell whether the person accepted Claude Code's trust dialog for this directory or for one above it.

    The home directory and the root are left out: whoever once opened Claude Code there did not mean everything below.
    """
    projects = _projects(env)
    home = os.path.realpath(env["HOME"]) if env.get("HOME") else ""
    for above in (directory, *directory.parents):
        if above != directory and str(above) in {home, above.root}:
            return False
        project = projects.get(str(above))
        if isinstance(project, dict) and project.get("hasTrustDialogAccepted") is True:
            return True
    return False


def _projects(env: Mapping[str, str]) -> Mapping[str, Any]:
    place = env.get("CLAUDE_CONFIG_DIR") or env.get("HOME")
    if not place:
        return {}
    try:
        found = json.loads(_read(Path(place) / ".claude.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    projects = found.get("projects") if isinstance(found, dict) else None
    return projects if isinstance(projects, dict) else {}


def _read(path: Path) -> bytes:
    # Not blocking: a named pipe in the file's place must not hold the engine.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > MOST:
            return b""
        return file.read(MOST)
