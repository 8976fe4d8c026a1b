"""Cleanup of attempts once their outcomes are written: ends processes and removes files that they left."""

import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import anyio
import anyio.to_thread

from jobs.claude import stale_files
from jobs.processes import cgroup
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.processes.kill import Reaper, Target
from jobs.processes.nested_claude import exempt
from jobs.processes.orphans import end_orphans, is_not_yet_a_shim, orphans, reap_zombies, reparented
from jobs.processes.process_table import Exempt, ProcessIdentity, ProcessTable, is_exempt, process_table
from jobs.processes.spawning import Spawner

logger = logging.getLogger(__name__)

BEAT = 0.1
"""Seconds over which ends are gathered: one hop and one look at what was left serve all of them."""

_LAST_SECONDS = 1.0
"""Seconds that an engine that is stopping may clean up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """An attempt that is over.

    Args:
        target: Its processes.
        directory: Its files.
        client_directories: Directories in which its `claude` may have left files.
        session_id: Its session.
        exit_code: As its shim wrote it; None where it wrote none: it was killed, or was not waited for.
    """

    target: Target
    directory: AttemptDirectory
    client_directories: stale_files.ClientDirectories
    session_id: str = ""
    exit_code: int | None = None


class AttemptCleanup:
    """Cleans up after attempts, in one asyncio task: those that end while it is at work share its next pass.

    A shim that ended by itself has ended what its job left. What it could not end, or what a killed shim left, is a
    child of the fork server then. So after an ordinary end one look at those children is enough; only where it finds
    something, or where it cannot tell, the whole process table is searched for job markers and sessions.

    Args:
        reaper: Ends processes.
        spawner: Started them.
        shims: Returns the shims of the attempts that live; called in a thread.
        marks: Returns the job markers of these attempts and of those being launched; called in a thread.
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
        self._stuck: frozenset[ProcessIdentity] = frozenset()
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
                if all(ended.exit_code is not None for ended in self._waiting):
                    await anyio.sleep(BEAT)
                batch, self._waiting = self._waiting, []
                await self._clear_up(batch)
        finally:
            self._works = False
            # An engine that is stopping does it now: nothing does it afterwards.
            batch, self._waiting = self._waiting, []
            if batch:
                with anyio.move_on_after(_LAST_SECONDS, shield=True):
                    await self._clear_up(batch)

    async def _clear_up(self, batch: Sequence[EndedAttempt]) -> None:
        unsure = await anyio.to_thread.run_sync(self._quick_pass, batch, limiter=self._thread)
        if not unsure:
            return
        try:
            await self._reaper.sweep(*(ended.target for ended in unsure))
            if self._spawner.orphan_parents():
                await self._end_orphans()
        except OSError:
            # This runs in the engine's task group, where an error would end every job's engine.
            logger.exception("what %d attempts left could not be searched for", len(batch))
        await anyio.to_thread.run_sync(self._remove_stale_files, unsure, limiter=self._thread)

    def _quick_pass(self, batch: Sequence[EndedAttempt]) -> Sequence[EndedAttempt]:
        """Do what one short look allows, and return the attempts of which a process may be left."""
        try:
            needs_full_search = self._needs_full_search()
            ordinary = [ended for ended in batch if not needs_full_search(ended)]
            spared = partial(is_exempt, self._table, self._exempt())
            cgroup.end_all([ended.target.marker or "" for ended in ordinary], spared)
            if self._spawner.orphan_parents():
                reap_zombies()
        except OSError as error:
            logger.warning("what %d attempts left cannot be searched for now: %s", len(batch), error)
            return batch
        self._remove_stale_files(ordinary)
        return [ended for ended in batch if needs_full_search(ended)]

    def _needs_full_search(self) -> Callable[[EndedAttempt], bool]:
        """Return a test whether an ended attempt needs a full search, by what was reparented to the fork server."""
        server = self._fork_server()
        if server is None or self._is_something_left(server):
            return lambda _: True
        # A shim that was killed ended nothing. One that is older than the fork server was launched by another, whose
        # death gave its orphans to another process, or by an earlier engine.
        return lambda ended: (
            ended.exit_code is None or ended.target.shim is None or ended.target.shim.start <= server.start
        )

    def _fork_server(self) -> ProcessIdentity | None:
        for pid in self._spawner.orphan_parents() - {os.getpid()}:
            entry = self._table.entry(pid)
            return None if entry is None else entry.identity
        return None

    def _is_something_left(self, server: ProcessIdentity) -> bool:
        # Twice: a shim may become itself in the middle of a look. The launches are not held up for this one.
        return all(
            any(
                identity not in self._stuck and not is_not_yet_a_shim(self._table, server.pid, identity)
                for identity in self._reparented()
            )
            for _ in range(2)
        )

    async def _end_orphans(self) -> None:
        ended = partial(end_orphans, self._table, partial(self._spawner.between_launches, self._orphans))
        if killed := await anyio.to_thread.run_sync(ended, limiter=self._thread):
            logger.info("ended %d orphans that no job needs any more", killed)
        # What is left of them cannot be ended, or belongs to a job that lives: it says nothing of those that end next.
        left = partial(self._spawner.between_launches, self._reparented)
        self._stuck = await anyio.to_thread.run_sync(left, limiter=self._thread)
        await anyio.to_thread.run_sync(reap_zombies, limiter=self._thread)

    def _reparented(self) -> frozenset[ProcessIdentity]:
        return reparented(self._table, self._spawner.orphan_parents(), self._shims(), self._marks(), self._exempt())

    def _orphans(self) -> frozenset[ProcessIdentity]:
        # Asked for at each look: what was launched since the one before is not to be taken for an orphan.
        return orphans(self._table, self._spawner.orphan_parents(), self._shims(), self._marks(), self._exempt())

    def _exempt(self) -> Exempt:
        return exempt(self._shims(), self._keep)

    def _remove_stale_files(self, batch: Sequence[EndedAttempt]) -> None:
        # A shim that ended by itself has ended everything below it.
        killed = [ended for ended in batch if ended.exit_code != 0]
        for directories in {ended.client_directories for ended in killed}:
            by_session = stale_files.sessions(directories)
            for ended in (ended for ended in killed if ended.client_directories == directories):
                for pid in {_noted(ended.directory), by_session.get(ended.session_id)}:
                    if pid is not None and self._table.identify(pid) is None:
                        stale_files.remove_stale_files(pid, directories)


def _noted(directory: AttemptDirectory) -> int | None:
    try:
        return directory.claude_pid()
    except (UnsafeDirectoryError, OSError):
        return None
