"""Says what is found on this machine, what is missing, and what to do about it."""

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jobs.claude.binary import OLDEST_VERSION, ClaudeFinder
from jobs.errors import ClaudeTooOldError, JobsError
from jobs.settings import Settings
from jobs.settings_sources import PREFIX, known_variables, load_here
from jobs.store.repair import noted_damage
from jobs.upkeep.rescue import last_rescue, report_path
from server import __version__
from server.front_door.client import door_of
from server.front_door.hello import FrontDoorError, Hello
from server.front_door.launch import JOB_MARKERS
from server.front_door.locate import Places, control, prepare, state_dir
from server.selftest.campaign import Campaign, Plan

_OLDEST_SQLITE = (3, 38, 0)
"""STRICT tables came with 3.37 and RETURNING with 3.35; one more for good measure is what is tested."""

SELFTEST_SECONDS = 110.0
"""With the start of the first engine and the settling of the last jobs that is two minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: What.
        good: Whether it is as it should be.
        detail: What was found.
        remedy: What to do where it is not good.
        needed: Whether nothing works without it.
    """

    name: str
    good: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def examine(environ: Mapping[str, str], console: Console) -> bool:
    """Print what is found and return whether everything that is needed is there."""
    findings = [look(environ) for look in _LOOKS]
    for finding in findings:
        mark, style = ("ok", "green") if finding.good else ("missing", "red") if finding.needed else ("note", "yellow")
        console.print(Text.assemble((f"{mark:>7}", style), f"  {finding.name}: {finding.detail}"), soft_wrap=True)
        if not finding.good and finding.remedy:
            console.print(f"         {finding.remedy}", markup=False, soft_wrap=True)
    return all(finding.good for finding in findings if finding.needed)


def kill_engines(console: Console, seconds: float = SELFTEST_SECONDS) -> bool:
    """Kill engines of a state directory made for this, under load, and return whether every promise was kept.

    It needs no account and starts no `claude`: a stub of a few milliseconds takes its place.

    Args:
        console: Where the figures are printed.
        seconds: How long to go on killing.
    """
    # A path of its own below the shared directory: a socket's path is short.
    base = Path(tempfile.mkdtemp(prefix="claude-jobs-selftest-")).resolve()
    console.print(f"Killing engines for {seconds:g} s while three clients submit, wait and cancel.", markup=False)
    try:
        campaign = Campaign(base, Plan(kills=1000, seconds=seconds))
        with console.status("") as status:
            report = campaign.run(status.update)
    except (FrontDoorError, OSError, EOFError) as error:
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


def _python(_: Mapping[str, str]) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(name="Python", good=True, detail=f"{version}, claude-jobs {__version__}")


def _sqlite(_: Mapping[str, str]) -> Finding:
    return Finding(
        name="SQLite",
        good=sqlite3.sqlite_version_info >= _OLDEST_SQLITE,
        detail=sqlite3.sqlite_version,
        remedy="Use a Python that is built with a newer SQLite.",
    )


def _state(environ: Mapping[str, str]) -> Finding:
    home = state_dir(environ)
    try:
        places = prepare(home)
    except FrontDoorError as error:
        return Finding(name="State directory", good=False, detail=str(home), remedy=str(error))
    return Finding(name="State directory", good=True, detail=f"{home}, socket {places.socket}")


def _settings(environ: Mapping[str, str]) -> Finding:
    settings = _settings_of(environ)
    if not isinstance(settings, Settings):
        return Finding(name="Settings", good=False, detail="cannot be used", remedy=str(settings))
    # Those of a job's processes are no settings and no mistake.
    strange = sorted({name for name in environ if name.startswith(PREFIX)} - known_variables().keys() - JOB_MARKERS)
    config = Places(settings.home).config
    file = str(config) if config.is_file() else f"from variables and defaults; there is no file {config}"
    return Finding(
        name="Settings",
        good=not strange,
        detail=f"{', '.join(strange)} is no setting" if strange else file,
        remedy="README.md lists the settings. Correct the name, or remove the variable.",
        needed=False,
    )


def _settings_of(environ: Mapping[str, str]) -> Settings | Exception:
    """Return the settings with which an engine would start now, or why it would not."""
    try:
        return load_here(state_dir(environ), environ).settings
    except JobsError as error:
        return error


def _claude(environ: Mapping[str, str]) -> Finding:
    settings = _settings_of(environ)
    explicit = str(settings.cli or "") if isinstance(settings, Settings) else environ.get("CLAUDE_JOBS_CLI")
    try:
        claude = ClaudeFinder(ask_wrappers=True).find(explicit, environ.get("PATH"))
    except JobsError as error:
        what = "too old" if isinstance(error, ClaudeTooOldError) else "not found"
        return Finding(name="claude", good=False, detail=what, remedy=str(error))
    passed = "".join(f"; passed over: {old}, older than {OLDEST_VERSION}" for old in claude.passed_over)
    return Finding(
        name="claude",
        good=claude.version is not None,
        detail=f"{claude.path}, {claude.version or 'does not say its version'}{passed}",
        remedy="Run it with --version yourself, and install Claude Code again if it fails.",
    )


def _login(environ: Mapping[str, str]) -> Finding:
    names = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_TOKEN")
    named = [name for name in names if environ.get(name)]
    config = Path(environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME", "~")).expanduser() / ".claude")
    logged_in = (config / ".credentials.json").exists()
    return Finding(
        name="Account",
        good=bool(named) or logged_in,
        detail=", ".join(named) or ("a login of Claude Code" if logged_in else "none seen"),
        remedy="Run `claude` and log in, or set ANTHROPIC_API_KEY. `claude-jobs demo` works without.",
        needed=False,
    )


def _engine(environ: Mapping[str, str]) -> Finding:
    try:
        answer = control(door_of(environ), {"do": "status"}, Hello(cwd="/", client="doctor"))
    except (FrontDoorError, OSError) as error:
        return Finding(name="Engine", good=False, detail="does not answer", remedy=str(error))
    if answer is None:
        return Finding(name="Engine", good=True, detail="not running; the next call starts it")
    if not answer["ok"]:
        return Finding(name="Engine", good=False, detail="runs and cannot do its work", remedy=answer["error"])
    return Finding(name="Engine", good=True, detail=f"version {answer['version']}, pid {answer['pid']}")


def _database(environ: Mapping[str, str]) -> Finding:
    database = Places(state_dir(environ)).database
    rescue = last_rescue(database)
    if (damage := noted_damage(database)) is not None:
        return Finding(
            name="Job database",
            good=False,
            detail=f"{database} is damaged: {damage}",
            remedy="Run `claude-jobs engine stop`: running jobs go on, and the next start repairs it.",
        )
    return Finding(
        name="Job database",
        good=rescue is None,
        detail=str(database) if rescue is None else str(rescue),
        remedy=f"Once you have seen to it, remove {report_path(database)}.",
        needed=False,
    )


_LOOKS: tuple[Callable[[Mapping[str, str]], Finding], ...] = (
    _python,
    _sqlite,
    _state,
    _settings,
    _database,
    _claude,
    _login,
    _engine,
)
