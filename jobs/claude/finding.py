"""What became of an attempt, read from its files alone."""

from enum import StrEnum

from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError


class Finding(StrEnum):
    """Where an attempt is, by its files alone."""

    LIVES = "lives"
    """The shim or the `claude` below it holds the lock."""
    ENDED = "ended"
    """The shim wrote how it ended."""
    LOST = "lost"
    """It ran, and is gone without an exit code; what it wrote may still hold its answer."""
    NEVER_RAN = "never ran"
    """The engine ended between the claim and the launch."""


def examine(directory: AttemptDirectory) -> Finding:
    """Tell where an attempt is.

    Args:
        directory: The attempt's files.

    Raises:
        UnsafeDirectoryError: The directory is a link, or belongs to another user.
    """
    # In this order: the exit code is written before the lock is let go, and the process id after it was taken.
    if directory.lock_held():
        return Finding.LIVES
    if directory.exit_code() is not None:
        return Finding.ENDED
    return Finding.NEVER_RAN if directory.shim_pid() is None else Finding.LOST


def still_lives(directory: AttemptDirectory) -> bool:
    """Tell whether a process of the attempt is there to be ended."""
    try:
        return examine(directory) is Finding.LIVES
    except UnsafeDirectoryError:
        return True  # what its files say cannot be trusted, so it is watched like one that lives


def ever_ran(directory: AttemptDirectory) -> bool:
    """Tell whether a process of the attempt was ever started."""
    try:
        return examine(directory) is not Finding.NEVER_RAN
    except UnsafeDirectoryError:
        return True  # only a process of the attempt could have put a link in its place
