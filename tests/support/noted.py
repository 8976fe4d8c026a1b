"""Which processes an attempt's files name."""

from pathlib import Path

from jobs.processes.attempt_dir import AttemptDirectory


def shim_of(attempt: Path) -> int:
    """Return the process id of an attempt's shim, which must have been noted."""
    pid = AttemptDirectory(attempt).shim_pid()
    assert pid is not None
    return pid


def claude_of(attempt: Path) -> int:
    """Return the process id of an attempt's `claude`, which must have been noted."""
    pid = AttemptDirectory(attempt).claude_pid()
    assert pid is not None
    return pid
