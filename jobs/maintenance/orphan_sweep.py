"""Cleans up at the start of an engine: orphans of attempts that are over, and files that hold secrets.

The decision for every unfinished job, carried out by the batch's graph as it is run again:

- queued: it starts, or waits for a slot, its siblings or its subtasks;
- running, and its process lives: it is adopted, followed from the beginning of its output, and settled when it is over;
- running, and its process has ended: it is settled from its files;
- running, and its process is gone without a word: lost; its session is resumed once, and the model is told so;
- running, and no process ever was: it runs, as another attempt.
"""

import logging
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import anyio.to_thread

from jobs.maintenance.db_recovery import subdirectories
from jobs.model import JobStatus
from jobs.ports import Store
from jobs.processes import cgroup
from jobs.processes.attempt_dir import STDIN_FILES, AttemptDirectory
from jobs.processes.kill import Target, kill_all
from jobs.processes.nested_claude import exempt
from jobs.processes.process_table import ProcessTable, process_table
from jobs.runner.launch_plan import LaunchPlanner

logger = logging.getLogger(__name__)


class OrphanSweep:
    """Removes what an earlier engine left: processes of ended attempts, and stdin files.

    Args:
        store: Where jobs are.
        launch_planner: Knows the directories and the job markers of attempts.
        table: The process table, or None for this platform's.
        keep: Names of programs that may go on after their attempts.
    """

    def __init__(
        self,
        store: Store,
        launch_planner: LaunchPlanner,
        table: ProcessTable | None = None,
        keep: Collection[str] = (),
    ) -> None:
        self._exempt = exempt((), keep)
        self._store = store
        self._launch_planner = launch_planner
        self._table = table or process_table()

    async def sweep(self) -> int:
        """End what attempts that are over left behind, and return how many processes that were.

        An engine that dies between the end of a job and its sweep leaves it to the next one.
        """
        marks = await anyio.to_thread.run_sync(self._marks)
        # Read after the listing: what was launched since is not on it.
        over = [mark for mark, job_id, attempt in marks if not await self._lives(job_id, attempt)]
        if not over:
            return 0
        targets = tuple(Target(marker=mark) for mark in over)
        killed = await anyio.to_thread.run_sync(partial(kill_all, self._table, targets, exempt=self._exempt))
        logger.info("ended %d processes of attempts that are over", killed)
        return killed

    async def remove_stdin_files(self) -> int:
        """Remove the stdin files of attempts that do not run, and return how many attempts had one.

        They hold tokens and the environments of servers. An engine that is killed while it starts or settles an attempt
        leaves them.
        """
        removed = 0
        for tree in await anyio.to_thread.run_sync(subdirectories, self._launch_planner.trees):
            # Tree by tree: others use the thread too.
            for path in await anyio.to_thread.run_sync(_attempts_with_stdin, tree):
                # Read after the listing, and claimed before the file was written: an attempt that starts now runs.
                if not await self._lives(path.parent.name, int(path.name)):
                    await anyio.to_thread.run_sync(AttemptDirectory(path).remove_stdin, STDIN_FILES)
                    removed += 1
        return removed

    def _marks(self) -> list[tuple[str, str, int]]:
        found = {self._table.job_marker(pid) for pid, entry in self._table.entries().items() if entry.session}
        found.update(cgroup.markers())
        return [
            (mark, *owner)
            for mark in found
            if mark is not None and (owner := self._launch_planner.owner(mark)) is not None
        ]

    async def _lives(self, job_id: str, attempt: int) -> bool:
        job = await self._store.job(job_id)
        return job is not None and job.status is JobStatus.RUNNING and job.attempt == attempt


def _attempts_with_stdin(tree: Path) -> list[Path]:
    return [
        attempt
        for job in subdirectories(tree)
        for attempt in subdirectories(job)
        if attempt.name.isdecimal() and any(os.path.lexists(attempt / name) for name in STDIN_FILES)
    ]
