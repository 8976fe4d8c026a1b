"""What asyncio tasks share by a key: a lock, which they hold in turn, or one call in a worker thread."""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


@dataclass
class _Turn:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0


class KeyedLock:
    """Locks by key, each kept only while it is held or waited for."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold the key's lock while the block lasts; asyncio tasks that come meanwhile wait in order."""
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]


@dataclass
class _Flight(Generic[T]):
    users: int = 0
    landing: anyio.Event | None = None
    """Set when the call that is under way ends."""
    answer: list[T] = field(default_factory=list)
    """What the last call that returned has returned."""
    covers: int = -1
    """Number of the last request that had come when that call began."""


class SingleFlight(Generic[T]):
    """Makes blocking calls in threads. A call that begins after a request answers that request too.

    So no answer is older than its request, and requests that come together share one.

    Args:
        limiter: Bounds the threads; None for the shared ones.
    """

    def __init__(self, limiter: anyio.CapacityLimiter | None = None) -> None:
        self._limiter = limiter
        self._flights: dict[Hashable, _Flight[T]] = {}
        self._numbers = count()
        self._newest = -1

    async def call(self, key: Hashable, function: Callable[[], T]) -> T:
        """Return what `function` returns; what it raises is raised for the one whose call it was.

        Args:
            key: Names what is asked: requests with equal ones share calls.
            function: Called in a thread.
        """
        number = self._newest = next(self._numbers)
        flight = self._flights.setdefault(key, _Flight())
        flight.users += 1
        try:
            while flight.covers < number:
                if flight.landing is None:
                    await self._fly(flight, function)
                else:
                    # All waiters wake up together: a lock, handed on from one to the next, would take a turn of the
                    # event loop for each of them.
                    await flight.landing.wait()
            return flight.answer[0]
        finally:
            flight.users -= 1
            if not flight.users:
                del self._flights[key]

    async def _fly(self, flight: _Flight[T], function: Callable[[], T]) -> None:
        flight.landing = landing = anyio.Event()
        try:
            # The number is taken when the call begins.
            flight.covers, answer = await anyio.to_thread.run_sync(
                lambda: (self._newest, function()), limiter=self._limiter
            )
            flight.answer = [answer]
        finally:
            flight.landing = None
            landing.set()
