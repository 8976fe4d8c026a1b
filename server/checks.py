"""The checks of `claude-jobs doctor`, a function for each, and their findings."""

import errno
import os
import shlex
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.claude.account import accounts_of
from jobs.claude.binary import OLDEST_VERSION, UPDATE_SECONDS, ClaudeFinder, starts
from jobs.claude.command import SESSION
from jobs.errors import ClaudeTooOldError, JobsError
from jobs.maintenance.db_recovery import last_recovery, report_path
from jobs.settings_sources import known_variables
from jobs.store.corruption import noted_damage
from jobs.store.disk_reserve import reserve_beside
from jobs.store.migrations import STEPS
from jobs.store.search_index import files_of_index, is_directory
from server import __version__
from server.client.client_env import client_environment, is_passed_on
from server.client.connect import control
from server.client.engine_socket import EngineEndpoint
from server.client.location import original_of, read_location
from server.client.state_dir import StateDirError, StatePaths, prepare, state_dir
from server.client.wire import ClientError, Hello

ANSWER_SECONDS = 5.0
"""Seconds that an engine may take to answer; chosen, not measured. A person waits that long where the engine hangs."""

_SHELL = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES"})
"""What every shell sets for itself."""

_DIRECTORY, _DATABASE = "State directory", "Job database"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Args:
        name: What was checked.
        good: Whether it is as it should be.
        detail: What was found.
        remedy: What to do where it is not good, with the command to run.
        needed: Whether jobs cannot run without it; otherwise a problem is a mere note.
        asked: The person asked for this check: a problem is an error where jobs can run without it, too.
    """

    name: str
    good: bool
    detail: str
    remedy: str = ""
    needed: bool = True
    asked: bool = False

    @property
    def mark(self) -> str:
        """Return "ok", "error", or "note" for a problem that keeps no job from running."""
        return "ok" if self.good else "error" if self.needed or self.asked else "note"


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
                f"Jobs run with it all the same. Have it pass `--version` on, so that one older than {OLDEST_VERSION} "
            )
            remedy += "is found before a job meets it."
        detail = f"{claude.path}, does not say its version"
        return Finding(name="claude", good=False, detail=detail, remedy=remedy, needed=not runs)
    passed = [*claude.passed_over, *(f"{link} (missing)" for link in claude.missing)]
    detail = f"{claude.path}, {claude.version}" + (f"; passed over: {', '.join(passed)}" if passed else "")
    if claude.missing:
        remedy = f"Repair the link or remove it: each engine waits {UPDATE_SECONDS:.0f} seconds for an update to do so."
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
        name for name in environ.keys() - _SHELL if not name.startswith(ours) and not is_passed_on(name, named)
    )
    detail = "jobs get every variable"
    if behind:
        detail = f"jobs do not get {', '.join(behind)}. Add those that they need to the setting `pass_environment`"
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
        keychain = "; the keychain, where macOS keeps a login, cannot be read" if sys.platform == "darwin" else ""
        detail = f"none seen{keychain}"
        remedy += ", or set ANTHROPIC_API_KEY"
    return Finding(
        name="Account", good=False, detail=detail, remedy=f"{remedy}. `claude-jobs demo` works without.", needed=False
    )


def find_directory(environ: Mapping[str, str]) -> tuple[StatePaths | None, Finding]:
    """Return the state directory, created where it is missing, or None where it cannot be used; and the finding."""
    try:
        paths = prepare(state_dir(environ))
    except StateDirError as error:
        return None, _bad(_DIRECTORY, f"{error.path}: {error.problem}", error.remedy)
    if refused := _refusal(paths.home):
        return None, refused
    return paths, Finding(name=_DIRECTORY, good=True, detail=f"{paths.home}, socket {paths.socket}")


def check_copy(paths: StatePaths) -> Iterator[Finding]:
    """Yield a finding where the state directory is a copy of another one."""
    location = read_location(paths.home)
    says = None if location is None else location.says()
    if says is None and (original := original_of(paths.home)) is not None:
        says = f"This state directory is a copy of {original}. Unfinished jobs are not started here by themselves."
    if says is not None:
        remedy = "`claude-jobs retry ID` runs one of its jobs; `claude-jobs list` shows them."
        yield Finding(name=_DIRECTORY, good=False, detail=says, remedy=remedy, needed=False)


def check_space(paths: StatePaths) -> Finding:
    """Check whether the engine would start jobs with the space that is left."""
    missing = reserve_beside(paths.database).shortfall()
    free = _megabytes(_free(paths.home))
    if not missing:
        return Finding(name="Disk", good=True, detail=f"{free} free")
    return _bad(
        "Disk",
        f"only {free} free at {paths.home}, so no job is started",
        f"Free at least {_megabytes(missing)} more; `df -h {shlex.quote(str(paths.home))}` shows the file system.",
    )


def check_database(paths: StatePaths) -> Iterator[Finding]:
    """Check whether this version can open the database, and report what its last recovery lost."""
    path = paths.database
    if (damage := noted_damage(path)) is not None:
        remedy = "Run `claude-jobs engine stop`: running jobs go on, and the next start repairs it."
        yield _bad(_DATABASE, f"{path} is damaged: {damage}", remedy)
    else:
        yield _file_problem(path) or _contents(path)
    report = last_recovery(path)
    if report is not None:
        remedy = f"Once you have read this, run `rm {shlex.quote(str(report_path(path)))}`."
        yield Finding(name=_DATABASE, good=False, detail=str(report), remedy=remedy, needed=False)


def check_search_index(paths: StatePaths) -> Iterator[Finding]:
    """Yield a finding for what keeps `claude-jobs search` from making its index again; all else it repairs itself."""
    for file in files_of_index(paths.search_index):
        if is_directory(file):
            named = shlex.quote(str(file))
            remedy = f"Run `mv {named} {named}.aside`; the next `claude-jobs search` makes the index again."
            detail = f"{file} is a directory, so `claude-jobs search` finds nothing"
            yield Finding(name="Search index", good=False, detail=detail, remedy=remedy, needed=False)


def _refusal(home: Path) -> Finding | None:
    """Write a file and remove it; return a finding where that fails."""
    probe = home / f"doctor-{os.getpid()}.tmp"
    try:
        handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, bytes(4096))
            os.fsync(handle)
        finally:
            os.close(handle)
            probe.unlink()
    except OSError as error:
        detail = f"{home} cannot be written: {error.strerror}"
        if error.errno in _NO_SPACE:
            # The finding on free space says how much is needed.
            return None
        if error.errno == errno.EACCES:
            return _bad(_DIRECTORY, detail, f"Run `chmod 700 {shlex.quote(str(home))}`.")
        return _bad(_DIRECTORY, detail, "Set CLAUDE_JOBS_HOME to a directory that you can write to.")
    return None


def _file_problem(path: Path) -> Finding | None:
    named = shlex.quote(str(path))
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return _bad(_DATABASE, f"{path} cannot be read: {error.strerror}", f"Look at it with `ls -l {named}`.")
    if not stat.S_ISREG(status.st_mode):
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        return _bad(_DATABASE, f"{path} is {what}", f"Move it away: `mv {named} {named}.aside`.")
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if file.exists() and not os.access(
            file, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids
        ):
            return _not_writable(file)
    return None


def _not_writable(file: Path) -> Finding:
    status, named = file.stat(), shlex.quote(str(file))
    detail = f"{file} cannot be read and written (mode {stat.S_IMODE(status.st_mode):04o}, user {status.st_uid})"
    mine = status.st_uid == os.geteuid()
    return _bad(_DATABASE, detail, f"Run `{'chmod 600' if mine else f'sudo chown {os.geteuid()}'} {named}`.")


def _contents(path: Path) -> Finding:
    if not path.exists():
        return Finding(name=_DATABASE, good=True, detail=f"{path}, made with the first job")
    try:
        # Read only: nothing is repaired or migrated here. An engine may have it open, and can still write.
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)) as connection:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        if not damaged:
            remedy = "Stop the program that has it open, then run `claude-jobs doctor` again."
            return _bad(_DATABASE, f"{path} cannot be read: {error}", remedy)
        detail = f"{path} is damaged ({error})"
        remedy = "The next engine moves it aside and brings back what it can; `claude-jobs list` starts one."
        return Finding(name=_DATABASE, good=False, detail=detail, remedy=remedy, needed=False)
    if version > len(STEPS):
        return _bad(
            _DATABASE,
            f"{path} was written by a newer claude-jobs (schema {version}; this one knows {len(STEPS)})",
            "Install the newer version again (`pip install -U claude-jobs`), or set CLAUDE_JOBS_HOME to another "
            "directory.",
        )
    return Finding(name=_DATABASE, good=True, detail=f"{path}, schema {version}")


def _bad(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name=name, good=False, detail=detail, remedy=remedy)


def _free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def _megabytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"


def check_engine(paths: StatePaths, environ: Mapping[str, str]) -> Finding:
    """Ask a running engine for its status; none is started."""
    endpoint = EngineEndpoint(paths=paths, environ=environ, timeout=ANSWER_SECONDS)
    try:
        answer = control(endpoint, {"do": "status"}, Hello(cwd="/", client="doctor"))
    except (ClientError, OSError) as error:
        return Finding(name="Engine", good=False, detail="does not answer", remedy=str(error))
    if answer is None:
        return Finding(name="Engine", good=True, detail="not running; the next call starts it")
    if not answer["ok"]:
        return Finding(name="Engine", good=False, detail="runs, but cannot do its work", remedy=answer["error"])
    paused = answer.get("paused")
    page = f"; the page is at port {answer['pagePort']}" if answer.get("pagePort") else ""
    detail = f"version {answer['version']}, pid {answer['pid']}{_in_use(answer)}{page}{f'; {paused}' if paused else ''}"
    if hooks := answer.get("hooks"):
        remedy = "`claude-jobs doctor --hooks` sends them a test message."
        return Finding(name="Engine", good=False, detail="; ".join((detail, *hooks)), remedy=remedy, needed=False)
    if answer["version"] == __version__:
        remedy = f"Jobs go on by themselves then. {to_go_on_at_once(paused or '')}"
        return Finding(name="Engine", good=not paused, detail=detail, remedy=remedy, needed=False)
    remedy = (
        f"This is version {__version__}. Run `claude-jobs engine stop`: jobs go on, and the next command starts an "
        "engine of this version."
    )
    return Finding(name="Engine", good=False, detail=detail, remedy=remedy, needed=False)


def to_go_on_at_once(paused: str) -> str:
    """Return what a person does who does not want to wait for the end of a pause."""
    if "_budget_usd" in paused:
        return "To go on at once, raise that setting in `config.toml`."
    return "To try at once, run `claude-jobs engine stop`."


def _in_use(answer: Mapping[str, Any]) -> str:
    # An engine of an older version does not report it.
    used = (*(f"{path} ({version or 'version unknown'})" for path, version in answer.get("claudes", {}).items()),)
    accounts = answer.get("accounts", ())
    return "".join(f"; its jobs use {', '.join(some)}" for some in (used, accounts) if some)
