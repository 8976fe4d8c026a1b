"""What is done about an attempt once its outcome is written: whatever it left is ended and removed."""

import logging
from collections.abc import Callable, Collection
from pathlib import Path

import anyio
import anyio.to_thread

from jobs.claude import leavings
from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError
from jobs.claude.orphans import bury, is_subreaper, orphans
from jobs.claude.proctable import ProcessIdentity, ProcessTable, process_table
from jobs.claude.reaper import Reaper
from jobs.claude.survivors import Target, clear

logger = logging.getLogger(__name__)

_SECOND_LOOK = 0.05
"""Seconds between two looks at orphans: a shim that is just being launched bears no mark for a moment."""


class Aftermath:
    """Clears up after attempts.

    Args:
        reaper: What ends processes.
        shims: Returns the shims of the attempts that live.
        marks: Returns the marks of these attempts and of those that are just being launched.
        table: The process table, or None for this platform's.
    """

    def __init__(
        self,
        reaper: Reaper,
        shims: Callable[[], Collection[ProcessIdentity]],
        marks: Callable[[], Collection[str]],
        table: ProcessTable | None = None,
    ) -> None:
        self._reaper = reaper
        self._shims = shims
        self._marks = marks
        self._table = table or process_table()

    async def of(self, target: Target, directory: AttemptDirectory, config: Path | None) -> None:
        """End what the attempt left running, and remove what its `claude` left in the file system if it was killed.

        Args:
            target: The attempt's processes.
            directory: Its files.
            config: Configuration directory of its `claude`, or None where that is not known.
        """
        try:
            await self._reaper.sweep(target)
            if is_subreaper():
                await self._end_orphans()
        except OSError:
            # This runs in the engine's own task group, where an error would end every job's engine.
            logger.exception("what %s left could not be looked for", directory.path)
        await anyio.to_thread.run_sync(self._remove_leavings, directory, config)

    async def _end_orphans(self) -> None:
        first = await self._look()
        if first:
            await anyio.sleep(_SECOND_LOOK)
            strays = first & await self._look()
            if strays:
                logger.info("ending %d orphans that no job can want any more", len(strays))
                await anyio.to_thread.run_sync(clear, self._table, (Target(marker=None, known=strays),))
        await anyio.to_thread.run_sync(bury)

    async def _look(self) -> frozenset[ProcessIdentity]:
        return await anyio.to_thread.run_sync(orphans, self._table, self._shims(), self._marks())

    def _remove_leavings(self, directory: AttemptDirectory, config: Path | None) -> None:
        try:
            pid = directory.claude_pid()
        except (UnsafeDirectoryError, OSError):
            return
        if pid is not None and self._table.identify(pid) is None:
            leavings.sweep(pid, config)
