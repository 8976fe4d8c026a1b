"""Grants rights to a new job: what the settings allow a person, and at most its own rights to a spawning job."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from jobs.errors import BadInputError
from jobs.model import PERMISSION_MODES
from jobs.permissions.rights import Rights, RightsError, RightsRequest, narrow
from jobs.settings import Settings
from jobs.spec import JobSpec


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
        if parent is None:
            return self._check_bypass(self._of_root(asked, cwd, home))
        return self._check_bypass(self._of_child(asked, parent, home))

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

    def _check_bypass(self, rights: Rights) -> Rights:
        check_mode(
            rights.mode, self._settings, f"Use acceptEdits with allowedTools, or have a person {_ALLOWS_BYPASS}."
        )
        return rights


_ALLOWS_BYPASS = "set allow_bypass_permissions = true in config.toml (or CLAUDE_ALLOW_BYPASS_PERMISSIONS=1)"


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
        problem = f"{str(path)[:200]} cannot be looked at ({error.strerror})"
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
        raise BadInputError(field, f"{head[:40]} stands for no directory here", "Give an absolute path.")
    return f"{home}{separator}{rest}"
