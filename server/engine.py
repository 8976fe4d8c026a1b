"""The composition root: builds every concrete part once, listens on the socket, and leaves when nobody needs it."""

import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
from anyio.abc import SocketStream, TaskGroup

from jobs.attempts.origin import OriginFiles
from jobs.attempts.preparation import Preparation
from jobs.claude.account import accounts_of
from jobs.claude.binary import ClaudeFinder
from jobs.claude.command import McpServer
from jobs.claude.spawning import spawner
from jobs.errors import JobsError
from jobs.follow_up import FollowUp
from jobs.intake import Intake
from jobs.limits.ledger import Ledger
from jobs.limits.throttle import Throttle
from jobs.manager import EnhancedJobManager
from jobs.patience import insist
from jobs.recursion_manager import RecursionManager
from jobs.rights.approvals import Approvals
from jobs.runner import LocalRunner
from jobs.scheduler import Scheduler
from jobs.settings import Settings
from jobs.signals import JobSignals
from jobs.store.sqlite import SqliteStore
from jobs.upkeep.integrity import check_after_crash
from jobs.upkeep.recovery import Recovery
from jobs.upkeep.rescue import open_rescued
from jobs.upkeep.retention import Retention
from jobs.upkeep.snapshots import Snapshots
from jobs.waiting import Waiting
from server import __version__
from server.front_door.hello import Hello, Role
from server.front_door.locate import Places, holder_of, lock, prepare, pump_command, sign_lock
from server.protocol.app import Connection, build_server
from server.protocol.callers import caller_of, calling_job
from server.protocol.tools import Services
from server.protocol.updates import Updates
from server.reception.connection import Reception, StrangerError, receive
from server.reception.control import Control
from server.reception.inside import InsideJobError, refuse_inside_job
from server.reception.peer import Peer
from server.reception.presence import Presence
from server.reception.state_watch import EngineSocket, StateWatch

logger = logging.getLogger(__name__)

IDLE_CHECKS = 20
"""How often within the idle time the engine looks whether it is needed."""

POKE_SECONDS = 0.05
"""How often the scheduler looks whether the gate in front of it has opened."""

LEAVE_SECONDS = 9.0
"""How long an engine that was told to leave may take; what it leaves undone then, a crash would leave undone too."""

END_SECONDS = 7.0
"""How much of that the end of its jobs may take, where the settings ask for it."""

LOCK_SECONDS = 2.0
"""How long a new engine waits for the lock of one that is leaving."""

_LOOKS = 4
"""How many threads look at once which process has connected; a look takes about a millisecond."""

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead)
"""How a stream says that the client left, at whatever moment it did."""


class EngineRunningError(JobsError):
    """Another engine serves this state directory.

    Args:
        home: The state directory.
        pid: Process id of that engine, or None where it cannot be told.
    """

    def __init__(self, home: Path, pid: int | None) -> None:
        self.pid = pid
        named = "" if pid is None else f" (pid {pid})"
        super().__init__(f"An engine{named} already serves {home}. Stop it with `claude-jobs engine stop`.")


class SystemClock:
    """Time as the system tells it."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()


class Engine:
    """What runs while the engine runs, and when it leaves.

    Args:
        settings: The engine's settings.
        services: What the tools call.
        presence: Who is connected.
    """

    def __init__(self, settings: Settings, services: Services, presence: Presence) -> None:
        self._settings = settings
        self._services = services
        self._presence = presence
        self._stop = anyio.Event()
        self._looks = anyio.CapacityLimiter(_LOOKS)
        self.end_jobs = settings.end_jobs_on_stop

    def stop(self) -> None:
        """Leave soon; running jobs go on without an engine."""
        self._stop.set()

    def leave_lost_state(self, removed: bool) -> None:
        """Leave soon, because the state directory is no longer where clients look for it.

        Args:
            removed: It is gone for good: its jobs end too, because no engine can take them over.
        """
        self.end_jobs = self.end_jobs or removed
        self.stop()

    @property
    def leaving(self) -> bool:
        """Whether somebody asked the engine to leave."""
        return self._stop.is_set()

    async def stopped(self) -> None:
        """Wait until somebody asked the engine to leave."""
        await self._stop.wait()

    async def admit(self, hello: Hello, peer: Peer | None) -> Connection:
        """Return the state of a client's connection; every hello passes here, whatever its role.

        A live job's token is good from every process of the user: it makes the caller that job. Without a token the
        process itself must be outside every job.

        Args:
            hello: What the client says of itself.
            peer: The process that connected, or None where that is not known.

        Raises:
            UnknownTokenError: It brought a token that no live job holds.
            InsideJobError: It is a job, or a process of one, and asks for what only a person may have.
            UnknownPeerError: It has no token, and nothing tells which process it is.
            BadInputError: Its directory or its environment cannot be kept as text.
        """
        caller = caller_of(hello)
        job = await calling_job(self._services.store, caller)
        if job is None:
            # A limiter of its own: clean-up after many jobs fills the threads that all others share.
            await anyio.to_thread.run_sync(refuse_inside_job, peer, limiter=self._looks, abandon_on_cancel=True)
        elif hello.role is not Role.MCP:
            raise InsideJobError
        return Connection(services=self._services, caller=caller)

    async def leave_when_idle(self) -> None:
        """Stop the engine once it has been idle for the set time."""
        pause = self._settings.idle_seconds / IDLE_CHECKS
        while True:
            await anyio.sleep(pause)
            if self._presence.idle_for() < self._settings.idle_seconds:
                continue
            if not await insist(self._services.store.unfinished, "asking for live jobs"):
                logger.info("leaving: nobody has needed the engine for %s s", self._settings.idle_seconds)
                self.stop()


@asynccontextmanager
async def assemble(settings: Settings, places: Places, group: TaskGroup) -> AsyncIterator[Services]:
    """Build the services over one state directory and close them in the opposite order.

    Args:
        settings: The engine's settings.
        places: A prepared state directory.
        group: Owns what outlives a request.
    """
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        store = await stack.enter_async_context(open_rescued(places.database, places.trees, SqliteStore.open))
        group.start_soon(Snapshots(store, places.database, clock).keep)
        group.start_soon(check_after_crash, places.database)
        signals = JobSignals()
        origins = OriginFiles(places.trees)
        limits = settings.tree_limits
        throttle = Throttle(
            max_running=settings.max_running,
            max_starting=settings.max_starting,
            free_memory=lambda: psutil.virtual_memory().available,
            memory_floor=settings.memory_floor_bytes,
            clock=clock,
        )
        scheduler = Scheduler(limits, settings.max_running, throttle)
        ledger = Ledger(store)
        recursion = RecursionManager(limits, store, scheduler, ledger=ledger, throttle=throttle)
        command, args = pump_command(places.home)
        claudes = ClaudeFinder()
        preparation = Preparation(
            settings=settings,
            store=store,
            origins=origins,
            trees=places.trees,
            mcp_server=McpServer(command=command, args=args),
            claudes=claudes,
        )
        runner = LocalRunner(
            settings=settings,
            store=store,
            preparation=preparation,
            scheduler=scheduler,
            throttle=throttle,
            signals=signals,
            clock=clock,
            start_soon=group.start_soon,
            ledger=ledger,
            spawner=stack.enter_context(spawner()),
        )
        group.start_soon(_poke, scheduler)
        group.start_soon(_recover, Recovery(store, preparation, keep=settings.keep_processes))
        group.start_soon(runner.patrol)
        manager = EnhancedJobManager(
            store=store,
            runner=runner,
            recursion=recursion,
            intake=Intake(settings, claudes),
            origins=origins,
            signals=signals,
            clock=clock,
            start_soon=group.start_soon,
        )
        follow_up = FollowUp(
            store=store,
            manager=manager,
            origins=origins,
            signals=signals,
            start_soon=group.start_soon,
        )
        yield Services(
            settings=settings,
            store=store,
            manager=manager,
            follow_up=follow_up,
            recursion=recursion,
            waiting=Waiting(signals),
            signals=signals,
            start_soon=group.start_soon,
            transcript=runner.transcript,
            approvals=Approvals(settings.permission_requests, settings.permission_seconds, clock.monotonic),
            now=clock.now,
            resident=_resident,
            in_use=partial(_in_use, claudes, origins),
        )


def _in_use(claudes: ClaudeFinder, origins: OriginFiles) -> dict[str, Any]:
    # Many trees come from one client: each environment is looked at once.
    environments = {tuple(sorted(env.items())) for env in origins.environments()}
    accounts = {str(account) for env in environments for account in accounts_of(dict(env))}
    return {"claudes": dict(claudes.versions), "accounts": sorted(accounts)}


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


async def _recover(recovery: Recovery) -> None:
    found = await insist(recovery.survey, "looking at what an earlier engine left")
    if found:
        logger.info("found %s", ", ".join(f"{count} {place}" for place, count in sorted(found.items())))
    await insist(recovery.sweep, "sweeping what an earlier engine left")


async def _poke(scheduler: Scheduler) -> None:
    # The gate opens by itself: a pause ends, a process has started, memory is free again.
    while True:
        await anyio.sleep(POKE_SECONDS)
        scheduler.poke()


async def serve(
    settings: Settings,
    on_ready: Callable[[], None] = lambda: None,
    on_leaving: Callable[[], None] = lambda: None,
) -> None:
    """Run the engine of a state directory until it is asked to leave or has been idle long enough.

    Args:
        settings: The engine's settings; `home` is the state directory.
        on_ready: Called once clients can connect.
        on_leaving: Called once the engine begins to leave; it should be gone `LEAVE_SECONDS` later.

    Raises:
        EngineRunningError: Another engine serves the directory.
    """
    places = prepare(settings.home)
    held = lock(places.engine_lock, patience=LOCK_SECONDS)
    if held is None:
        raise EngineRunningError(places.home, holder_of(places.engine_lock))
    try:
        sign_lock(held)
        await _serve(settings, places, held, on_ready, on_leaving)
    finally:
        os.close(held)


async def _serve(
    settings: Settings, places: Places, held: int, on_ready: Callable[[], None], on_leaving: Callable[[], None]
) -> None:
    async with anyio.create_task_group() as group, assemble(settings, places, group) as services:
        clock = SystemClock()
        presence = Presence(clock)
        engine = Engine(settings, services, presence)
        retention = Retention(
            store=services.store,
            trees=places.trees,
            keep_days=settings.keep_days,
            keep_bytes=settings.keep_bytes,
            clock=clock,
        )
        control = Control(
            places=places,
            store=services.store,
            recursion=services.recursion,
            retention=retention,
            presence=presence,
            in_use=services.in_use,
        )
        reception = Reception(
            admit=engine.admit,
            control=control.answer,
            leave=engine.stop,
            idle=control.idle,
            server=build_server(Updates(services.signals, services.start_soon)),
            pid=os.getpid(),
        )
        socket = EngineSocket(places.socket, partial(_receive, reception, presence), group)
        group.start_soon(_watch_signals, engine)
        group.start_soon(engine.leave_when_idle)
        group.start_soon(retention.keep)
        resumed = await services.manager.resume()
        logger.info("engine %s serves %s, pid %d, %d jobs resumed", __version__, places.home, os.getpid(), resumed)
        await socket.bind()
        group.start_soon(StateWatch(places, held, socket, engine.leave_lost_state).keep)
        _spare_the_collector()
        on_ready()
        await engine.stopped()
        socket.unlink()
        on_leaving()
        await _take_leave(engine.end_jobs, services)
        group.cancel_scope.cancel()
    logger.info("engine left")


def _spare_the_collector() -> None:
    # What the imports left is never garbage; each full collection walked its 100,000 objects for 65 ms (measured).
    gc.collect()
    gc.freeze()


async def _take_leave(end_jobs: bool, services: Services) -> None:
    services.manager.stop_admitting()
    if end_jobs:
        with anyio.move_on_after(END_SECONDS):
            await services.manager.cancel_all()


async def _receive(reception: Reception, presence: Presence, stream: SocketStream) -> None:
    """Serve one connection; whatever goes wrong with it ends there."""
    presence.come()
    try:
        async with stream:
            await receive(stream, reception)
    # Groups: reading and writing are tasks of their own. What escapes here would end the engine and every connection.
    except* _GONE:
        logger.debug("a client went away")
    except* StrangerError:
        logger.warning("closed a connection", exc_info=True)
    except* (JobsError, OSError, ValueError):
        logger.exception("a connection failed")
    finally:
        presence.go()


async def _watch_signals(engine: Engine) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if engine.leaving:
                os._exit(128 + number)
            logger.info("leaving on signal %d; running jobs go on", number)
            engine.stop()
