"""Kills the processes of jobs: on request, and what is left after a job has ended."""

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TypeVar

import anyio
import anyio.to_thread

from jobs.processes.process import Process
from jobs.processes.process_table import ProcessIdentity, ProcessTable, process_table
from jobs.processes.process_tree import KILL_SECONDS, Exempt, Target, find_processes, group_of, kill_all, nothing

T = TypeVar("T")

logger = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds between the request to end and the kill. Claude Code needs 1.6 s to end its own tools (measured)."""

TRIES = 20
"""How often the process table is asked where the system refuses for now, as where too many files are open."""

TRY_PAUSE = 0.25
"""Seconds between two of these tries."""

THREADS = 4
"""Most threads that end processes at once. They are not the shared ones: each may take `process_tree.KILL_SECONDS`
seconds, and no client that connects may wait for them."""

_SHARE = 10
_LEAST_PAUSE = 0.02


class Reaper:
    """Ends processes; jobs that end together share one pass over the process table.

    A pass costs about as much as the table is long, so passes are spaced: they never take more than a tenth of one
    core, however many jobs end.

    Args:
        table: The process table, or None for this platform's.
        exempt: Returns the test that tells which processes are left alone.
    """

    def __init__(self, table: ProcessTable | None = None, exempt: Callable[[], Exempt] = lambda: nothing) -> None:
        self._table = table or process_table()
        self._exempt = exempt
        self._threads = anyio.CapacityLimiter(THREADS)
        self._turn = anyio.Lock()
        self._waiting: dict[object, tuple[Target, ...]] = {}
        self._not_before = 0.0

    async def sweep(self, *targets: Target) -> None:
        """Kill what attempts that are over left behind; return when nothing of it is left.

        A daemon that forked twice and changed its session is found by its job marker. Not found is one that also
        cleared its environment and outlived its parents, the shim among them.
        """
        request = object()
        self._waiting[request] = targets
        try:
            async with self._turn:
                if request in self._waiting:
                    await anyio.sleep(max(0.0, self._not_before - time.monotonic()))
                    await self._sweep_all_waiting()
        finally:
            self._waiting.pop(request, None)

    async def end(self, process: Process, marker: str, *, grace: float = GRACE) -> int | None:
        """End an attempt's process and everything that it started, and return its exit code if it wrote one.

        `claude` is asked to end first, so that it can end its own tools and write its session down. Once begun, this
        is not cancelled.

        Args:
            process: The process.
            marker: The job marker of the attempt's processes.
            grace: Seconds to wait for an orderly end; 0 kills at once.
        """
        target = Target(marker=marker, shim=process.identity)
        with anyio.CancelScope(shield=True):
            known = await self._retrying(partial(self._ask, target, orderly=grace > 0))
            with anyio.move_on_after(grace):
                await process.wait()
            await self.clear(replace(target, known=known))
            with anyio.move_on_after(KILL_SECONDS):
                return await process.wait()
        return None

    async def clear(self, *targets: Target, quiet: int = 2) -> None:
        """Kill every process of these targets at once; see `process_tree.kill_all`."""
        await self._retrying(partial(kill_all, self._table, targets, quiet=quiet, exempt=self._exempt()))

    def _ask(self, target: Target, *, orderly: bool) -> frozenset[ProcessIdentity]:
        """Ask `claude` to end, and return what was the attempt's before it did: afterwards its orphans look foreign."""
        known = frozenset(find_processes(self._table, (target,)))
        for member in group_of(self._table, target) if orderly else ():
            self._table.send(member, signal.SIGTERM)
            # Stopped, it could not obey.
            self._table.send(member, signal.SIGCONT)
        if orderly and target.shim is not None:
            # Stopped with it, the shim could not write how it ended, and all of the grace would be waited for.
            self._table.send(target.shim, signal.SIGCONT)
        return known

    async def _sweep_all_waiting(self) -> None:
        batch = dict(self._waiting)
        began = time.monotonic()
        await self.clear(*chain.from_iterable(batch.values()), quiet=1)
        ended = time.monotonic()
        self._not_before = ended + max(_LEAST_PAUSE, _SHARE * (ended - began))
        for request in batch:
            self._waiting.pop(request, None)

    async def _retrying(self, work: Callable[[], T]) -> T:
        """Do blocking work in a thread, again for a while where the system refuses it.

        Raises:
            OSError: It refused every time.
        """
        for _ in range(TRIES - 1):
            try:
                return await anyio.to_thread.run_sync(work, limiter=self._threads)
            except OSError as error:
                logger.warning("the process table cannot be read now: %s", error)
            await anyio.sleep(TRY_PAUSE)
        return await anyio.to_thread.run_sync(work, limiter=self._threads)
