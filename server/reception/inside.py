"""Whether a process runs inside a job: it, or one above it, bears the mark that every process of a job inherits."""

import psutil

from jobs.claude.proctable import ProcessTable, process_table
from jobs.errors import JobsError

_MOST_ANCESTORS = 64


class InsideJobError(JobsError):
    """A process inside a job asked for what only a person or a program outside every tree may have."""

    def __init__(self) -> None:
        super().__init__(
            "This process runs inside a job, so it may not act as a person. "
            "Use the tools of the job's own MCP server claude-jobs: claude_run_async, claude_wait and the others."
        )


def refuse_inside_job(pid: int | None, table: ProcessTable | None = None) -> None:
    """Refuse a process of a job that comes without the job's token: it would leave its tree and every limit of it.

    A process that has cleared its environment and outlived every process above it is not recognised.

    Args:
        pid: The process, or None where the platform does not tell.
        table: The process table, or None for this platform's.

    Raises:
        InsideJobError: It runs inside a job.
    """
    if pid is not None and inside_job(pid, table or process_table()):
        raise InsideJobError


def inside_job(pid: int, table: ProcessTable) -> bool:
    """Tell whether a process or one of its ancestors bears a job's mark."""
    for _ in range(_MOST_ANCESTORS):
        if table.mark(pid) is not None:
            return True
        above = _parent(pid)
        if above is None or above <= 1:
            return False
        pid = above
    return False


def _parent(pid: int) -> int | None:
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None
