"""Trust in directories: their own settings are loaded only where the person trusts them, here or in Claude Code."""

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from jobs.claude.command import USER_ONLY, WITH_PROJECT
from jobs.claude.json_files import derived


def setting_sources(directory: str, env: Mapping[str, str], trusted: Iterable[Path]) -> str:
    """Return whose settings a job in this directory loads, as the CLI's option spells them. Reads files.

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

    The home directory and the root are left out: a person who opened Claude Code there did not mean everything below.
    """
    accepted = _accepted_ones(env)
    home = os.path.realpath(env["HOME"]) if env.get("HOME") else ""
    for above in (directory, *directory.parents):
        if above != directory and str(above) in {home, above.root}:
            return False
        if str(above) in accepted:
            return True
    return False


def _accepted_ones(env: Mapping[str, str]) -> Collection[str]:
    place = env.get("CLAUDE_CONFIG_DIR") or env.get("HOME")
    return derived(Path(place) / ".claude.json", _with_trust, own=True) if place else ()


def _with_trust(state: Mapping[str, Any]) -> Collection[str]:
    projects = state.get("projects")
    return frozenset(
        path
        for path, project in (projects.items() if isinstance(projects, dict) else ())
        if isinstance(project, dict) and project.get("hasTrustDialogAccepted") is True
    )
