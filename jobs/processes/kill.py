"""Kills the processes of jobs: finds them by job marker, session and parent, on request and after a job has ended."""

import logging
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TypeVar

import anyio
import anyio.to_thread

from jobs.processes import cgroup
from jobs.processes.process import Process
from jobs.processes.process_table import (
    Entry,
    Exempt,
    ProcessIdentity,
    ProcessTable,
    is_exempt,
    nothing,
    process_table,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds between the request to end and the kill. Claude Code needs 1.6 s to end its own tools (measured)."""

TRIES = 20
"""How often the process table is asked where the system refuses for now, as where too many files are open."""

TRY_PAUSE = 0.25
"""Seconds between two of these tries."""

THREADS = 4
"""Most threads that end processes at once. They are not the shared ones: each may take `KILL_SECONDS`
seconds, and no client that connects may wait for them."""

_SHARE = 10
_LEAST_PAUSE = 0.02

KILL_SECONDS = 10.0
"""Most seconds that one clearing may take."""

_CHASE_EVERY = 8
_CHASE_SECONDS = 3.0
_CHASE_CALM = 0.3
_PAUSE = 0.002

_SHIM_SECONDS = 6.0
"""Seconds that a shim has for its own end; ending its children is bounded by `kill_children.SECONDS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An attempt, with the marker and the shim that identify its processes.

    Args:
        marker: Value of the environment variable that they all inherited, or None where they are known without it.
        shim: The process that leads their session, or None where it is not known.
        known: Processes that were found to be the attempt's earlier; one whose parents have ended since, in a session
            of its own and without its environment, is found by this alone.
    """

    marker: str | None
    shim: ProcessIdentity | None = None
    known: frozenset[ProcessIdentity] = frozenset()


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
        """Kill every process of these targets at once; see `kill_all`."""
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


def find_processes(table: ProcessTable, targets: Iterable[Target], exempt: Exempt = nothing) -> list[ProcessIdentity]:
    """Return every living process of these targets, in one pass over the table.

    A process belongs to a target if it is known to, has its marker, is in its session or in a session of one that
    does, or descends from such a process. This process itself never does, nor does one that is exempt.
    """
    wanted = tuple(targets)
    entries = dict(table.entries())
    own = entries.pop(os.getpid(), None)
    hits = _marked(table, entries, _markers(wanted))
    known = {identity for target in wanted for identity in target.known}
    hits |= {pid for pid, entry in entries.items() if entry.identity in known}
    sessions = {entries[pid].session for pid in hits} | _sessions_of(entries, wanted)
    if own is not None:
        sessions.discard(own.session)
    hits |= {pid for pid, entry in entries.items() if entry.session in sessions}
    found = _with_descendants(entries, hits)
    own_shims = {target.shim for target in wanted}
    others = {pid for pid in found if entries[pid].identity not in own_shims and exempt(entries[pid].identity)}
    return [entries[pid].identity for pid in found - _with_descendants(entries, others)]


def group_of(table: ProcessTable, target: Target) -> list[ProcessIdentity]:
    """Return the members of the shim's process group, the shim excepted: `claude` and what it shares its group with."""
    entries = table.entries()
    groups = _sessions_of(entries, (target,))
    return [entry.identity for pid, entry in entries.items() if entry.group in groups and pid not in groups]


def kill_all(
    table: ProcessTable,
    targets: Sequence[Target],
    *,
    quiet: int = 2,
    seconds: float = KILL_SECONDS,
    exempt: Exempt = nothing,
) -> int:
    """Kill every process of these targets until nothing is found any more.

    A shim is left to end by itself for a while once it is alone: it writes the exit code, and as long as it lives the
    orphans of its attempt are its children and cannot get away.

    Args:
        table: The process table.
        targets: The attempts.
        quiet: Passes in a row that must find nothing before the first hit; after a hit it is always two, since a
            process can be born between the listing and the look.
        seconds: Most seconds to go on.
        exempt: Tells which processes are left alone.

    Returns:
        How many processes were killed.
    """
    began = time.monotonic()
    enclosed = cgroup.end_all(_markers(targets), partial(is_exempt, table, exempt))
    shims = frozenset(target.shim for target in targets if target.shim)
    killed: set[ProcessIdentity] = set()
    calm = passes = 0
    while (spent := time.monotonic() - began) < seconds and calm < (2 if killed else quiet):
        if passes:
            time.sleep(_PAUSE)
        found = find_processes(table, targets, exempt)
        killed |= _killed(table, found, shims if spent < _SHIM_SECONDS else frozenset())
        passes += 1
        chased = _kill_fork_chain(table, targets) if not found or passes % _CHASE_EVERY == 0 else set()
        killed |= chased
        calm = 0 if found or chased else calm + 1
    return enclosed + len(killed)


def _killed(
    table: ProcessTable, found: Iterable[ProcessIdentity], spared: frozenset[ProcessIdentity]
) -> set[ProcessIdentity]:
    for shim in spared.intersection(found):
        # A stopped process would not end.
        table.send(shim, signal.SIGCONT)
    return {one for one in found if one not in spared and table.send(one, signal.SIGKILL)}


def _markers(targets: Iterable[Target]) -> set[str]:
    return {target.marker for target in targets if target.marker}


def _marked(table: ProcessTable, entries: Mapping[int, Entry], markers: set[str]) -> set[int]:
    # Session 0 is the kernel's: its threads have no environment, and a third of a small machine's table is theirs.
    return {pid for pid, entry in entries.items() if entry.session and _bears(table, pid, markers)}


def _bears(table: ProcessTable, pid: int, markers: set[str]) -> bool:
    # Every other process of the machine has no marker or an empty one: these are never meant.
    mark = table.job_marker(pid)
    return bool(mark) and mark in markers


def _sessions_of(entries: Mapping[int, Entry], targets: Iterable[Target]) -> set[int]:
    """Return the ids of the targets' sessions, those left out whose number now belongs to another process."""
    led: set[int] = set()
    for target in targets:
        if target.shim is not None:
            leader = entries.get(target.shim.pid)
            if leader is None or leader.identity == target.shim:
                led.add(target.shim.pid)
    return led


def _with_descendants(entries: Mapping[int, Entry], hits: set[int]) -> set[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, entry in entries.items():
        children[entry.parent].append(pid)
    found: set[int] = set()
    pending = list(hits)
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending.extend(children[pid])
    return found


def _kill_fork_chain(table: ProcessTable, targets: Sequence[Target]) -> set[ProcessIdentity]:
    """Kill a chain that moves to a new process faster than a pass: look only at the ids given out last.

    Without such a chain this is one short look; with one it goes on until the chain is not seen for a while.
    """
    markers = _markers(targets)
    killed: set[ProcessIdentity] = set()
    until = time.monotonic() + _CHASE_SECONDS
    quiet_since: float | None = None
    while (now := time.monotonic()) < until:
        hits = {one for one in _newest(table, markers) if table.send(one, signal.SIGKILL)}
        killed |= hits
        quiet_since = now if hits else quiet_since
        if quiet_since is None or now - quiet_since > _CHASE_CALM:
            break
    return killed


def _newest(table: ProcessTable, markers: set[str]) -> Iterator[ProcessIdentity]:
    own = os.getpid()
    for pid in table.newest():
        # The marker is read between two looks at the identity: the one here, and the one that `send` takes.
        if pid != own and (identity := table.identify(pid)) is not None and _bears(table, pid, markers):
            yield identity
