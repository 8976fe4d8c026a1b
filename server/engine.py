"""The composition root: builds every concrete part once, listens on the socket, and leaves when nobody needs it."""

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil
from anyio.abc import SocketStream, TaskGroup

from jobs.claude.command import McpServer
from jobs.errors import JobsError
from jobs.follow_up import FollowUp
from jobs.intake import Intake
from jobs.manager import EnhancedJobManager
from jobs.origin import OriginFiles
from jobs.persistence import insist
from jobs.ports import Store
from jobs.preparation import Preparation
from jobs.recursion_manager import RecursionManager
from jobs.runner import LocalRunner
from jobs.scheduler import Scheduler
from jobs.settings import Settings
from jobs.signals import JobSignals
from jobs.store.sqlite import SqliteStore
from jobs.throttle import Throttle
from jobs.waiting import Waiting
from server import __version__
from server.app import Connection, build_server
from server.callers import caller_of, calling_job
from server.connection import Reception, StrangerError, receive
from server.hello import Hello
from server.locate import Places, lock, prepare, pump_command
from server.tools import Services

logger = logging.getLogger(__name__)

IDLE_CHECKS = 20
"""How often within the idle time the engine looks whether it is needed."""

POKE_SECONDS = 0.05
"""How often the scheduler looks whether the gate in front of it has opened."""

LOCK_SECONDS = 2.0
"""How long a new engine waits for the lock of one that is leaving."""


_PAGE = 1000
"""How many jobs are read at once where all of them are counted."""

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead)
"""How a stream says that the client left, at whatever moment it did."""


class EngineRunningError(JobsError):
    """Another engine serves this state directory."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"An engine already serves {home}. Stop it with `claude-jobs engine stop`.")


class SystemClock:
    """Time as the system tells it."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()


@dataclass
class Presence:
    """Who is connected, and since when nobody has been."""

    clock: SystemClock
    connections: int = 0
    last_seen: float = field(default=0.0)

    def __post_init__(self) -> None:
        """Count the start as a visit."""
        self.last_seen = self.clock.monotonic()

    def come(self) -> None:
        """Count a connection in."""
        self.connections += 1

    def go(self) -> None:
        """Count a connection out."""
        self.connections -= 1
        self.last_seen = self.clock.monotonic()

    def idle_for(self) -> float:
        """Return for how many seconds nobody has been connected."""
        return 0.0 if self.connections else self.clock.monotonic() - self.last_seen


class Engine:
    """Everything that runs while the engine runs.

    Args:
        settings: The engine's settings.
        places: A prepared state directory.
        services: What the tools call.
        presence: Who is connected.
    """

    def __init__(self, settings: Settings, places: Places, services: Services, presence: Presence) -> None:
        self.settings = settings
        self.places = places
        self.services = services
        self._presence = presence
        self._stop = anyio.Event()

    def stop(self) -> None:
        """Leave soon; running jobs go on without an engine."""
        self._stop.set()

    @property
    def leaving(self) -> bool:
        """Whether somebody asked the engine to leave."""
        return self._stop.is_set()

    async def stopped(self) -> None:
        """Wait until somebody asked the engine to leave."""
        await self._stop.wait()

    async def admit(self, hello: Hello) -> Connection:
        """Return the state of a client's connection.

        Raises:
            UnknownTokenError: It brought the token of a job that is over.
            BadInputError: Its directory or its environment cannot be kept as text.
        """
        caller = caller_of(hello)
        await calling_job(self.services.store, caller)
        return Connection(services=self.services, caller=caller)

    async def control(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a control request: stop or status; `leaving` in the answer asks for `stop` once it is sent."""
        match request.get("do"):
            case "status":
                return await self._status()
            case "stop":
                if request.get("if_idle") and not await self.idle():
                    return {"ok": False, "error": "The engine has work."}
                return {"ok": True, "pid": os.getpid(), "leaving": True}
            case other:
                return {"ok": False, "error": f"Unknown request {str(other)[:40]!r}; there are stop and status."}

    async def idle(self) -> bool:
        """Tell whether nothing would be lost if the engine left: nobody else is connected and no job is live."""
        return self._presence.connections <= 1 and not await self.services.store.unfinished()

    async def leave_when_idle(self) -> None:
        """Stop the engine once it has been idle for the set time."""
        pause = self.settings.idle_seconds / IDLE_CHECKS
        while True:
            await anyio.sleep(pause)
            if self._presence.idle_for() < self.settings.idle_seconds:
                continue
            if not await insist(self.services.store.unfinished, "asking for live jobs"):
                logger.info("leaving: nobody has needed the engine for %s s", self.settings.idle_seconds)
                self.stop()

    async def _status(self) -> dict[str, Any]:
        counts, cost = await _figures(self.services.store)
        return {
            "ok": True,
            "pid": os.getpid(),
            "version": __version__,
            "socket": str(self.places.socket),
            "connections": self._presence.connections,
            "jobs": counts,
            "costUsd": round(cost, 6),
        }


async def _figures(store: Store) -> tuple[dict[str, int], float]:
    """Return the number of jobs by status, and what all of them cost in US dollars."""
    counts: Counter[str] = Counter()
    cost, before = 0.0, None
    # In pages: the store sums up a tree or a batch, and has nothing that sums up all of them.
    while page := await store.newest_jobs(limit=_PAGE, before_seq=before):
        counts.update(str(job.status) for job in page)
        cost += sum(job.usage.cost_usd for job in page)
        before = page[-1].seq
    return dict(sorted(counts.items())), cost


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
        store = await stack.enter_async_context(SqliteStore.open(places.database))
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
        recursion = RecursionManager(limits, store, scheduler)
        command, args = pump_command(places.home)
        runner = LocalRunner(
            settings=settings,
            store=store,
            preparation=Preparation(
                settings=settings,
                store=store,
                origins=origins,
                trees=places.trees,
                mcp_server=McpServer(command=command, args=args),
            ),
            scheduler=scheduler,
            throttle=throttle,
            signals=signals,
            clock=clock,
            start_soon=group.start_soon,
        )
        group.start_soon(_poke, scheduler)
        manager = EnhancedJobManager(
            store=store,
            runner=runner,
            recursion=recursion,
            intake=Intake(settings),
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
            clock=clock,
            start_soon=group.start_soon,
        )
        yield Services(
            settings=settings,
            store=store,
            manager=manager,
            follow_up=follow_up,
            recursion=recursion,
            waiting=Waiting(signals),
            transcript=runner.transcript,
            now=clock.now,
            resident=_resident,
        )


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


async def _poke(scheduler: Scheduler) -> None:
    # The gate opens by itself: a pause ends, a process has started, memory is free again.
    while True:
        await anyio.sleep(POKE_SECONDS)
        scheduler.poke()


async def serve(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Run the engine of a state directory until it is asked to leave or has been idle long enough.

    Args:
        settings: The engine's settings; `home` is the state directory.
        on_ready: Called once clients can connect.

    Raises:
        EngineRunningError: Another engine serves the directory.
    """
    places = prepare(settings.home)
    held = lock(places.engine_lock, patience=LOCK_SECONDS)
    if held is None:
        raise EngineRunningError(places.home)
    try:
        await _serve(settings, places, on_ready)
    finally:
        os.close(held)


async def _serve(settings: Settings, places: Places, on_ready: Callable[[], None]) -> None:
    async with anyio.create_task_group() as group, assemble(settings, places, group) as services:
        presence = Presence(SystemClock())
        engine = Engine(settings, places, services, presence)
        reception = Reception(
            admit=engine.admit,
            control=engine.control,
            leave=engine.stop,
            idle=engine.idle,
            server=build_server(),
            pid=os.getpid(),
        )
        places.socket.unlink(missing_ok=True)
        async with await anyio.create_unix_listener(places.socket, mode=0o600) as listener:
            group.start_soon(_watch_signals, engine)
            group.start_soon(engine.leave_when_idle)
            resumed = await services.manager.resume()
            logger.info("engine %s serves %s, pid %d, %d jobs resumed", __version__, places.home, os.getpid(), resumed)
            group.start_soon(listener.serve, partial(_receive, reception, presence))
            on_ready()
            await engine.stopped()
            places.socket.unlink(missing_ok=True)
            group.cancel_scope.cancel()
    logger.info("engine left")


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
