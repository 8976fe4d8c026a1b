"""Ends the unfinished jobs in a copy of a state directory, and leaves the original alone.

The original's processes are recorded in the copy, and its waiting jobs wait in both. A job that is wanted in the copy
too is started by `claude-jobs retry`.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio.to_thread

from jobs.model import Job, JobStatus, Outcome, Reason
from jobs.ports import Store
from jobs.processes import cgroup
from jobs.processes.attempt_dir import STDIN_FILES, AttemptDirectory, UnsafeDirectoryError
from jobs.processes.process_table import process_table
from jobs.runner.manifest import write_end_manifest


def processes_live(key: str) -> bool:
    """Tell whether any process has a job marker that begins with this key. Blocks for some milliseconds.

    Args:
        key: The part of a job marker that names the state directory.
    """
    table = process_table()
    marks = {table.job_marker(pid) for pid, entry in table.entries().items() if entry.session} | set(cgroup.markers())
    return any(mark is not None and mark.startswith(f"{key}:") for mark in marks)


async def end_copied_jobs(store: Store, path: Callable[[Job, int], Path], *, original: str, at: float) -> int:
    """Write an end for every unfinished job without looking for its processes, and return how many there were.

    Args:
        store: The copy's store.
        path: Returns the directory of an attempt of a job.
        original: Path of the original state directory, for a person to read.
        at: Now, in seconds since the epoch.

    Raises:
        StoreError: The rows cannot be written now.
    """
    jobs = await store.unfinished()
    for job in jobs:
        if job.status is JobStatus.QUEUED:
            said = f"It waited in {original}, of which this is a copy, and was not started here."
            outcome = Outcome(reason=Reason.CANCELLED, status=JobStatus.CANCELLED, detail=f"{said} {_RETRY}")
            await store.fail_queued(job.id, outcome, at=at)
            continue
        said = f"It ran in {original}, of which this is a copy, and may still run there."
        outcome = Outcome(reason=Reason.LOST, status=JobStatus.FAILED, detail=f"{said} {_RETRY}")
        settled = await store.settle(job.id, job.attempt, outcome, at=at)
        await anyio.to_thread.run_sync(_close, AttemptDirectory(path(job, job.attempt)), settled)
    return len(jobs)


_RETRY = "To run it here, call claude_retry (`claude-jobs retry ID`)."


def _close(directory: AttemptDirectory, settled: Job) -> None:
    with suppress(OSError, UnsafeDirectoryError):
        # The token in it is the original's.
        directory.remove_stdin(STDIN_FILES)
        write_end_manifest(directory, settled)
