"""Backup of a state directory in one archive: its rows and its transcripts, and no secrets."""

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from jobs.processes.attempt_dir import LOCK, STDERR, STDOUT
from jobs.runner.manifest import END, JOB
from jobs.store.corruption import copy_without_tokens

KEPT = (JOB, END, STDOUT, STDERR, LOCK, "rc")
"""Files of an attempt that are kept, `rc` and `END` of those that an earlier engine launched. Its stdin has the token.
"""

ROOT = "claude-jobs"
"""The only directory in an archive."""


def back_up(database: Path, trees: Path, target: Path, notes: Mapping[str, bytes]) -> int:
    """Write a state directory to a gzipped tar file of mode 0600, and return how many attempts of jobs it has.

    The rows are those of one moment; a transcript that grows meanwhile is kept as far as it had been written. An engine
    may run and go on writing. Blocks for as long as the disk takes.

    Args:
        database: The job database.
        trees: Directory of the job directories, one directory a tree.
        target: The archive; its directory exists and there is no such file.
        notes: Further files of the archive, by name.

    Raises:
        FileExistsError: There is such a file.
        FileNotFoundError: There is no database, or no directory for the archive.
        sqlite3.Error: The database cannot be read.
        OSError: The archive cannot be written.
    """
    database.stat()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with ExitStack() as unfinished:
        unfinished.callback(target.unlink, missing_ok=True)
        # The rows are copied next to the archive, so that they need no space elsewhere.
        with (
            os.fdopen(descriptor, "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz") as archive,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch,
        ):
            rows = Path(scratch) / database.name
            roots = copy_without_tokens(database, rows)
            _add_directory(archive, ROOT)
            _add_file(archive, f"{ROOT}/{database.name}", rows)
            for name, data in notes.items():
                _add(archive, f"{ROOT}/{name}", io.BytesIO(data), len(data))
            _add_directory(archive, f"{ROOT}/{trees.name}")
            # The trees of the copied rows: one that began since would be a directory without rows.
            attempts = sum(_add_tree(archive, f"{ROOT}/{trees.name}/{root}", trees / root) for root in roots)
        unfinished.pop_all()
    return attempts


def _add_tree(archive: tarfile.TarFile, name: str, tree: Path) -> int:
    attempts = sorted(path for path in tree.glob("*/*") if path.name.isdecimal() and not path.is_symlink())
    if not attempts:
        return 0
    _add_directory(archive, name)
    for job in sorted({path.parent.name for path in attempts}):
        _add_directory(archive, f"{name}/{job}")
    for path in attempts:
        place = f"{name}/{path.parent.name}/{path.name}"
        _add_directory(archive, place)
        for kept in KEPT:
            _add_file(archive, f"{place}/{kept}", path / kept)
    return len(attempts)


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        # A job may remove its files, or replace them by a link or a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            _add(archive, name, file, status.st_size)


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o600, size
    archive.addfile(entry, file)


def _add_directory(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o700
    archive.addfile(entry)
