"""Checks of the state directory: whether it can be written, has space, and has a usable database."""

import errno
import os
import shlex
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from jobs.maintenance.db_recovery import last_rescue, report_path
from jobs.store.corruption import noted_damage
from jobs.store.disk_reserve import reserve_beside
from jobs.store.migrations import STEPS
from server.checks.finding import Finding
from server.client.location import original_of, read_location
from server.client.state_dir import StateDirError, StatePaths, prepare, state_dir

_DIRECTORY, _DATABASE = "State directory", "Job database"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def find_directory(environ: Mapping[str, str]) -> tuple[StatePaths | None, Finding]:
    """Return the state directory, created where it is missing, or None where it cannot be used; and the finding."""
    try:
        places = prepare(state_dir(environ))
    except StateDirError as error:
        return None, _bad(_DIRECTORY, f"{error.path}: {error.problem}", error.remedy)
    if refused := _refusal(places.home):
        return None, refused
    return places, Finding(name=_DIRECTORY, good=True, detail=f"{places.home}, socket {places.socket}")


def check_copy(places: StatePaths) -> Iterator[Finding]:
    """Yield a finding where the state directory is a copy of another one."""
    location = read_location(places.home)
    says = None if location is None else location.says()
    if says is None and (original := original_of(places.home)) is not None:
        says = f"This state directory is a copy of {original}. Unfinished jobs are not started here by themselves."
    if says is not None:
        remedy = "`claude-jobs retry ID` runs one of its jobs; `claude-jobs list` shows them."
        yield Finding(name=_DIRECTORY, good=False, detail=says, remedy=remedy, needed=False)


def check_space(places: StatePaths) -> Finding:
    """Check whether the engine would start jobs with the space that is left."""
    missing = reserve_beside(places.database).shortfall()
    free = _megabytes(_free(places.home))
    if not missing:
        return Finding(name="Disk", good=True, detail=f"{free} free")
    return _bad(
        "Disk",
        f"only {free} free at {places.home}, so no job is started",
        f"Free at least {_megabytes(missing)} more; `df -h {shlex.quote(str(places.home))}` shows the file system.",
    )


def check_database(places: StatePaths) -> Iterator[Finding]:
    """Check whether this version can open the database, and report what its last recovery lost."""
    path = places.database
    if (damage := noted_damage(path)) is not None:
        remedy = "Run `claude-jobs engine stop`: running jobs go on, and the next start repairs it."
        yield _bad(_DATABASE, f"{path} is damaged: {damage}", remedy)
    else:
        yield _file_problem(path) or _contents(path)
    rescue = last_rescue(path)
    if rescue is not None:
        remedy = f"Once you have read this, run `rm {shlex.quote(str(report_path(path)))}`."
        yield Finding(name=_DATABASE, good=False, detail=str(rescue), remedy=remedy, needed=False)


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
        return _bad(_DATABASE, f"{path} cannot be looked at: {error.strerror}", f"Look at it with `ls -l {named}`.")
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
            return _bad(_DATABASE, f"{path} cannot be read: {error}", "Stop what has it open, and look again.")
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
