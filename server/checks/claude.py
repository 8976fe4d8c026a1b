"""Checks of what a job needs to run: a `claude` that is new enough, its environment, and an account."""

import sys
from collections.abc import Mapping, Sequence

from jobs.claude.account import accounts_of
from jobs.claude.binary import OLDEST_VERSION, UPDATE_SECONDS, ClaudeFinder, starts
from jobs.claude.command import SESSION
from jobs.errors import ClaudeTooOldError, JobsError
from jobs.settings_sources import known_variables
from server.checks.finding import Finding
from server.client.client_env import client_environment, goes_along

_SHELL = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES"})
"""What every shell sets for itself."""


def check_claude(explicit: str | None, path: str | None) -> Finding:
    """Find which `claude` the jobs of this environment run.

    Args:
        explicit: The setting `cli`, or None.
        path: PATH.
    """
    try:
        claude = ClaudeFinder(ask_wrappers=True, waits=False).find(explicit, path)
    except JobsError as error:
        what = f"older than {OLDEST_VERSION}" if isinstance(error, ClaudeTooOldError) else "not found"
        return Finding(name="claude", good=False, detail=what, remedy=str(error))
    if claude.version is None:
        runs = starts(claude.path, path)
        remedy = f"Run `{claude.path} --version` yourself, and install Claude Code again if it fails."
        if runs:
            remedy = (
                f"Jobs run with it all the same. Have it hand `--version` on, so that one older than {OLDEST_VERSION} "
            )
            remedy += "is found before a job meets it."
        detail = f"{claude.path}, does not say its version"
        return Finding(name="claude", good=False, detail=detail, remedy=remedy, needed=not runs)
    passed = [*claude.passed_over, *(f"{link} (missing)" for link in claude.missing)]
    detail = f"{claude.path}, {claude.version}" + (f"; passed over: {', '.join(passed)}" if passed else "")
    if claude.missing:
        remedy = f"Mend the link or remove it: each engine waits {UPDATE_SECONDS:.0f} seconds for an update to do so."
        return Finding(name="claude", good=False, detail=detail, remedy=remedy, needed=False)
    return Finding(name="claude", good=True, detail=detail)


def check_environment(environ: Mapping[str, str], named: Sequence[str]) -> Finding:
    """List the variables that jobs do not get, by name only.

    Args:
        environ: The person's environment.
        named: What the setting `pass_environment` names.
    """
    ours = (*SESSION, *known_variables())
    behind = sorted(
        name for name in environ.keys() - _SHELL if not name.startswith(ours) and not goes_along(name, named)
    )
    detail = "jobs get every variable"
    if behind:
        detail = f"jobs do not get {', '.join(behind)}. Name in the setting `pass_environment` what they need"
    return Finding(name="Environment", good=True, detail=detail)


def check_account(environ: Mapping[str, str], named: Sequence[str]) -> Finding:
    """Find which account the jobs of this environment use, by the names of variables and files only.

    Args:
        environ: The person's environment.
        named: What the setting `pass_environment` names.
    """
    env = client_environment(environ, named)
    found = accounts_of(env)
    if any(account.credentials for account in found):
        return Finding(name="Account", good=True, detail="; ".join(map(str, found)))
    remedy = "Run `claude auth status`: it asks Claude Code itself. To log in, run `claude auth login`"
    if found:
        detail = "; ".join(map(str, found))
        remedy = f"A machine's own role cannot be seen from here. {remedy}"
    else:
        keychain = "; the keychain, where macOS keeps a login, cannot be looked at" if sys.platform == "darwin" else ""
        detail = f"none seen{keychain}"
        remedy += ", or set ANTHROPIC_API_KEY"
    return Finding(
        name="Account", good=False, detail=detail, remedy=f"{remedy}. `claude-jobs demo` works without.", needed=False
    )
