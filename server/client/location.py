"""The location file of a state directory: it names its own directory, so that a copy can be recognised.

Processes of the original are recorded in a copy too, and its waiting jobs wait there as well. An engine of the copy
must touch neither. Standard library only: the pump imports this module.
"""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

NAME = "location.json"


class Relation(StrEnum):
    """How a state directory relates to the one that its location file names."""

    NEW = "new"
    """It has no location file: it was just made, or by a version that wrote none."""
    SAME = "same"
    """The same directory, perhaps under another name."""
    MOVED = "moved"
    """Another directory, and the named one does not exist any more: it was moved to another file system."""
    COPIED = "copied"
    """Another directory: a copy, a restored backup or a snapshot."""


class Location(NamedTuple):
    """What the location file says.

    Args:
        key: Part of the mark of every process that belongs to the directory's jobs. A copy gets another key.
        path: Absolute path of the directory.
        device: Number of its file system, or None in a backup.
        inode: Its number in the file system, or None in a backup. A rename keeps it; a copy has another one.
        copied_from: For a copy: path of the original.
        copied_at: For a copy: when an engine first found it to be one, in seconds since the epoch.
        not_started: For a copy: how many jobs were not started there.
    """

    key: str
    path: str
    device: int | None = None
    inode: int | None = None
    copied_from: str | None = None
    copied_at: float | None = None
    not_started: int = 0

    def encode(self) -> bytes:
        """Return the text of the file."""
        return json.dumps(self._asdict(), indent=2).encode() + b"\n"

    def says(self) -> str | None:
        """Return a sentence for a person that the directory is a copy; None where it is none."""
        if self.copied_from is None:
            return None
        return (
            f"This state directory is a copy of {self.copied_from}. {self.not_started} unfinished jobs were not "
            "started here; `claude-jobs retry ID` runs one. Nothing of the original is touched."
        )


def read_location(home: Path) -> Location | None:
    """Return what the location file of a state directory says, or None where there is none that can be read."""
    try:
        handle = os.open(home / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            return Location(**json.load(file))
    except (OSError, ValueError, TypeError):
        return None


def write_location(home: Path, location: Location) -> None:
    """Write the location file, flushed to disk before it gets its name.

    Raises:
        OSError: It cannot be written.
    """
    part = home / f"{NAME}.part"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        file.write(location.encode())
        file.flush()
        os.fsync(file.fileno())
    part.rename(home / NAME)


def relation_of(home: Path, known: Location | None) -> Relation:
    """Return how a state directory relates to the one that its location file names.

    Args:
        home: The state directory, absolute.
        known: What its location file says.
    """
    if known is None:
        return Relation.NEW
    status = home.stat()
    # The inode and one of the two: the number of a file system can change with a restart of the machine, and a
    # path with a rename.
    if known.inode == status.st_ino and (known.path == str(home) or known.device == status.st_dev):
        return Relation.SAME
    if known.inode is None or known.path == str(home):
        return Relation.COPIED
    there = read_location(Path(known.path))
    return Relation.COPIED if there is not None and there.key == known.key else Relation.MOVED


def original_of(home: Path) -> str | None:
    """Return of which directory a state directory is a copy that no engine has served yet; None where it is none."""
    known = read_location(home)
    return known.path if known is not None and relation_of(home, known) is Relation.COPIED else None
