"""What is done about attempts once their outcomes are written: what they left is ended and removed."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from jobs.claude import leavings
from jobs.claude.directory import AttemptDirectory, UnsafeDirectoryError
from jobs.claude.exempt import exempt
from jobs.claude.orphans import bury, end_orphans, orphans
from jobs.claude.proctable import ProcessIdentity, ProcessTable, process_table
from jobs.claude.reaper import Reaper
from jobs.claude.spawning import Spawner
from jobs.claude.survivors import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """An attempt that is over.

    Args:
        target: Its processes.
        directory: Its files.
        config: Configuration directory of its `claude`, or None where that is not known.
    """

    target: Target
    directory: AttemptDirectory
    config: Path | None


class Aftermath:
    """Clears up after attempts, in one task: those that end while it is at work share its next pass.

    Args:
        reaper: What ends processes.
        spawner: What started them.
        shims: Returns the shims of the attempts that live; called in a thread.
        marks: Returns the marks of these attempts and of those that are just being launched; called in a thread.
        start_soon: Starts a coroutine function in the engine's task group.
        keep: Names of programs that may go on after their attempts.
        table: The process table, or None for this platform's.
    """

    def __init__(
        self,
        reaper: Reaper,
        spawner: Spawner,
        shims: Callable[[], Collection[ProcessIdentity]],
        marks: Callable[[], Collection[str]],
        start_soon: Callable[..., object],
        keep: Collection[str] = (),
        table: ProcessTable | None = None,
    ) -> None:
        self._reaper = reaper
        self._spawner = spawner
        self._shims = shims
        self._marks = marks
        self._start_soon = start_soon
        self._keep = keep
        self._table = table or process_table()
        self._thread = anyio.CapacityLimiter(1)
        self._waiting: list[EndedAttempt] = []
        self._works = False

    def add(self, ended: EndedAttempt) -> None:
        """End soon what the attempt left running, and remove what its `claude` left if it was killed."""
        self._waiting.append(ended)
        if not self._works:
            self._works = True
            self._start_soon(self._work)

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._clear_up(batch)
        finally:
            self._works = False

    async def _clear_up(self, batch: Sequence[EndedAttempt]) -> None:
        try:
            await self._reaper.sweep(*(ended.target for ended in batch))
            if self._spawner.adopters():
                await self._end_orphans()
        except OSError:
            # This runs in the engine's own task group, where an error would end every job's engine.
            logger.exception("what %d attempts left could not be looked for", len(batch))
        await anyio.to_thread.run_sync(self._remove_leavings, batch, limiter=self._thread)

    async def _end_orphans(self) -> None:
        ended = partial(end_orphans, self._table, partial(self._spawner.between_launches, self._look))
        if killed := await anyio.to_thread.run_sync(ended, limiter=self._thread):
            logger.info("ended %d orphans that no job can want any more", killed)
        await anyio.to_thread.run_sync(bury, limiter=self._thread)

    def _look(self) -> frozenset[ProcessIdentity]:
        # Asked for at each look: what was launched since the one before is not to be taken for an orphan.
        return orphans(
            self._table, self._spawner.adopters(), self._shims(), self._marks(), exempt(self._shims(), self._keep)
        )

    def _remove_leavings(self, batch: Sequence[EndedAttempt]) -> None:
        for ended in batch:
            try:
                pid = ended.directory.claude_pid()
            except (UnsafeDirectoryError, OSError):
                continue
            if pid is not None and self._table.identify(pid) is None:
                leavings.sweep(pid, ended.config)
