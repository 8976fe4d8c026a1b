"""Runs the checks of `claude-jobs doctor`: what is there, what is missing, and what to do about it."""

import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from jobs.errors import JobsError
from jobs.settings import Settings
from jobs.settings_sources import load_here, misspelt
from server import __version__
from server.checks import (
    ANSWER_SECONDS,
    Finding,
    check_account,
    check_claude,
    check_copy,
    check_database,
    check_engine,
    check_environment,
    check_search_index,
    check_space,
    find_directory,
)
from server.cli.lines import show, width_of, wrapped
from server.cli.times import here
from server.cli.wording import for_a_person
from server.client.client_env import named_in
from server.client.connect import control
from server.client.state_dir import StatePaths, state_dir
from server.client.tool_client import endpoint_of
from server.client.wire import HOOK_VARIABLES, JOB_MARKERS, ClientError, Hello, setting_variables
from server.hook_checks import check_hooks
from server.selftest.kill_test import KillTest, Plan

_OLDEST_SQLITE = (3, 38, 0)
"""STRICT tables came with 3.37 and RETURNING with 3.35; 3.38 is the oldest that is tested."""

SELFTEST_SECONDS = 110.0
"""Seconds of killing; with the first engine's start and the end of the last jobs, about two minutes."""


def examine(
    environ: Mapping[str, str], console: Console | None, *, try_hooks: bool = False
) -> tuple[bool, dict[str, Any]]:
    """Print each finding once it is known, and return whether none is an error, and the object that `--json` prints.

    The object has `jobsCanRun`, and `findings` with `name`, `status` ("ok", "note" or "error"), `detail` and `remedy`.

    Args:
        environ: The environment of the person.
        console: Where to print, or None.
        try_hooks: Send a test message to each hook; one that does not take it is an error then.
    """
    found: list[Finding] = []
    for finding in _findings(environ, try_hooks):
        found.append(finding)
        if console is not None:
            _print(finding, console)
    can_run = all(finding.good for finding in found if finding.needed)
    shown = [{"name": one.name, "status": one.mark, "detail": one.detail, "remedy": _remedy(one)} for one in found]
    return all(finding.mark != "error" for finding in found), {"jobsCanRun": can_run, "findings": shown}


def kill_engines(console: Console, seconds: float = SELFTEST_SECONDS) -> bool:
    """Kill engines of a temporary state directory under load, and return whether every promise was kept.

    It needs no account and starts no `claude`: a stub that runs for milliseconds replaces it.

    Args:
        console: Where the figures are printed.
        seconds: How long to kill engines.
    """
    # Below the shared temporary directory: a socket's path must be short.
    base = Path(tempfile.mkdtemp(prefix="claude-jobs-selftest-")).resolve()
    console.print(f"Killing engines for {seconds:g} s while three clients submit, wait and cancel.", markup=False)
    try:
        campaign = KillTest(base, Plan(kills=1000, seconds=seconds))
        with console.status("") as status:
            report = campaign.run(status.update)
    except (ClientError, OSError, EOFError) as error:
        console.print(f"The selftest could not go on: {error} Its files are in {base}.", markup=False, soft_wrap=True)
        return False
    except KeyboardInterrupt:
        shutil.rmtree(base, ignore_errors=True)
        raise
    for line in report.lines():
        console.print(line, markup=False, soft_wrap=True)
    if report.good:
        console.print("Every promise was kept.")
        shutil.rmtree(base, ignore_errors=True)
    else:
        console.print(f"A promise was broken. Please report it with the files in {base}.", markup=False, soft_wrap=True)
    return report.good


def _findings(environ: Mapping[str, str], try_hooks: bool) -> Iterator[Finding]:
    yield _python()
    yield _sqlite()
    paths, directory = find_directory(environ)
    yield directory
    explicit = environ.get("CLAUDE_JOBS_CLI")
    named: tuple[str, ...] = ()
    settings: Settings | Exception | None = None
    if paths is not None:
        engine = check_engine(paths, environ)
        # An engine that did not answer is not asked again: that would take as long once more.
        yield _settings(environ, ask_engine=engine.mark != "error")
        settings = _settings_of(environ)
        explicit = settings.for_trees.cli if isinstance(settings, Settings) else explicit
        named = named_in(environ, paths.directory)
    yield check_claude(explicit, environ.get("PATH"))
    yield check_account(environ, named)
    if not isinstance(settings, Exception):
        # Where the settings are refused, `pass_environment` is not known.
        yield check_environment(environ, named)
    if paths is not None:
        yield from check_copy(paths)
        if isinstance(settings, Settings):
            yield from check_hooks(settings, environ, tried=try_hooks)
        yield check_space(paths)
        yield from check_database(paths)
        yield from check_search_index(paths)
        yield engine


def _remedy(finding: Finding) -> str:
    # Some remedies are the engine's errors, which are written for a model.
    return "" if finding.good else for_a_person(finding.remedy)


def _print(finding: Finding, console: Console) -> None:
    style = {"ok": "green", "note": "yellow"}.get(finding.mark, "red")
    width, indent = width_of(console), " " * 9
    first, *others = wrapped(f"{indent}{finding.name}: {here(finding.detail, time.time())}", width)
    if remedy := _remedy(finding):
        others += wrapped(f"{indent}{remedy}", width)
    show(console, [Text.assemble((f"{finding.mark:>7}", style), first[7:]), *others])


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(name="Python", good=True, detail=f"{version}, claude-jobs {__version__}")


def _sqlite() -> Finding:
    return Finding(
        name="SQLite",
        good=sqlite3.sqlite_version_info >= _OLDEST_SQLITE,
        detail=sqlite3.sqlite_version,
        remedy="Use a Python that is built with a newer SQLite.",
    )


def _settings(environ: Mapping[str, str], *, ask_engine: bool) -> Finding:
    settings = _settings_of(environ)
    if not isinstance(settings, Settings):
        return Finding(name="Settings", good=False, detail="cannot be used", remedy=str(settings))
    # The markers of a job's processes are no settings and no mistake.
    strange = misspelt(environ.keys() - JOB_MARKERS - HOOK_VARIABLES)
    said = [strange] if strange else []
    if ask_engine and (differs := _difference_from_engine(environ)):
        said.append(differs)
    config = StatePaths(settings.home).config
    file = str(config) if config.is_file() else f"from variables and defaults; there is no file {config}"
    return Finding(
        name="Settings",
        good=not said,
        detail=" ".join(said) or file,
        remedy="`claude-jobs settings` lists each setting, its value in force and where it came from.",
        needed=False,
    )


def _difference_from_engine(environ: Mapping[str, str]) -> str | None:
    """Return how the settings here differ from those of the running engine, or None where they do not."""
    request = {"do": "settings", "variables": setting_variables(environ)}
    try:
        answer = control(endpoint_of(environ).replace(timeout=ANSWER_SECONDS), request, Hello(cwd="/", client="doctor"))
    except (ClientError, OSError):
        # It has ended since it answered.
        return None
    return answer.get("note") if answer else None


def _settings_of(environ: Mapping[str, str]) -> Settings | Exception:
    """Return the settings with which an engine would start now, or the error that would stop it."""
    try:
        return load_here(StatePaths(state_dir(environ)).home, environ).settings
    except JobsError as error:
        return error
