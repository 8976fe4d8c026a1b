"""The engine's lifecycle: which clients it admits, how many are connected, and when it exits."""

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from jobs.effective_settings import EffectiveSettings
from jobs.ports import Clock
from jobs.util.retrying import retry_while_unavailable
from server.client.wire import Hello, Role
from server.engine.peer import InsideJobError, Peer, refuse_inside_job
from server.engine.settings_notices import FILE_SECONDS
from server.engine.supervised_tasks import beat
from server.mcp.connection_state import Connection, Services, caller_of, calling_job


@dataclass
class ConnectionCounter:
    """Counts open connections, and how long there has been none.

    Args:
        clock: Time.
    """

    clock: Clock
    connections: int = field(default=0, init=False)
    _last_seen: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Begin the idle time at the start."""
        self._last_seen = self.clock.monotonic()

    def come(self) -> None:
        """Count an opened connection."""
        self.connections += 1

    def go(self) -> None:
        """Count a closed connection."""
        self.connections -= 1
        self._last_seen = self.clock.monotonic()

    def idle_for(self) -> float:
        """Return for how many seconds no client has been connected."""
        return 0.0 if self.connections else self.clock.monotonic() - self._last_seen


logger = logging.getLogger(__name__)

IDLE_CHECKS = 20
"""How often within a short idle time the engine checks whether it is needed."""

_LOOKS = 4
"""How many threads check at once which process has connected; a check takes about a millisecond."""


class Engine:
    """The engine: admits clients, and exits when asked or idle.

    Args:
        settings: The engine's settings.
        services: What the tools call.
        connection_counter: Counts the connections.
    """

    def __init__(self, settings: EffectiveSettings, services: Services, connection_counter: ConnectionCounter) -> None:
        self._effective = settings
        self._settings = settings.settings
        self._services = services
        self._connection_counter = connection_counter
        self._stop = anyio.Event()
        self._looks = anyio.CapacityLimiter(_LOOKS)
        self._state_removed = False

    def stop(self) -> None:
        """Stop soon; running jobs go on without an engine."""
        self._stop.set()

    def stop_for_lost_state(self, removed: bool) -> None:
        """Stop soon, because the state directory is no longer where clients look for it.

        Args:
            removed: It is gone for good: its jobs end too, because no engine can take them over.
        """
        self._state_removed = self._state_removed or removed
        self.stop()

    @property
    def end_jobs(self) -> bool:
        """Whether the jobs end with the engine."""
        return self._state_removed or self._settings.end_jobs_on_stop

    @property
    def stopping(self) -> bool:
        """Whether the engine was asked to stop."""
        return self._stop.is_set()

    async def stopped(self) -> None:
        """Wait until the engine is asked to stop."""
        await self._stop.wait()

    async def admit(self, hello: Hello, peer: Peer | None) -> Connection:
        """Return the state of a client's connection; called for every hello, of either role.

        A live job's token is valid from every process of the user: the caller is then that job. Without a token the
        process must be outside every job.

        Args:
            hello: What the client says about itself.
            peer: The process that connected, or None where that is not known.

        Raises:
            UnknownTokenError: It brought a token that no live job holds.
            InsideJobError: It is a job, or a process of one, and asks for what only a person may have.
            UnknownPeerError: It has no token, and its process is not known.
            BadInputError: Its directory or its environment cannot be kept as text.
            InvalidSettingsError: A variable of a person's client is no value for a setting that its trees take.
        """
        caller = caller_of(hello)
        job = await calling_job(self._services.store, caller)
        if job is None:
            # Its own limiter: clean-up after many jobs fills the threads that the rest shares.
            look = partial(refuse_inside_job, peer, own_commands=self._services.own_commands)
            await anyio.to_thread.run_sync(look, limiter=self._looks, abandon_on_cancel=True)
            self._effective.for_tree(hello.settings)
        elif hello.role != Role.MCP:
            raise InsideJobError
        return Connection(services=self._services, caller=caller)

    async def stop_when_idle(self) -> None:
        """Stop the engine once it has been idle for the set time."""
        while True:
            # In step with the check of the settings file, which may make the time shorter.
            await beat(min(self._settings.idle_seconds / IDLE_CHECKS, FILE_SECONDS))
            if self._connection_counter.idle_for() < self._settings.idle_seconds:
                continue
            # Paused jobs need no engine: `resume` starts one. But where the engine ends its jobs as it stops, it stays.
            work = self._services.store.has_unfinished if self.end_jobs else self._services.recursion.has_work
            if not await retry_while_unavailable(work, "asking for live jobs"):
                logger.info("stopping: no client and no job to run for %s s", self._settings.idle_seconds)
                self.stop()


async def stop_on_signals(is_stopping: Callable[[], bool], stop: Callable[[], None]) -> None:
    """Ask the engine to stop on SIGTERM or SIGINT; a second signal ends the process at once.

    Args:
        is_stopping: Tells whether the engine is stopping already.
        stop: Asks it to stop.
    """
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if is_stopping():
                os._exit(128 + number)
            logger.info("stopping on signal %d; running jobs go on", number)
            stop()
