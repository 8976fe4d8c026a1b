"""One hop to a thread for all who ask the same thing while the hop before is under way."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


@dataclass
class _Flight(Generic[T]):
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    users: int = 0
    answer: list[T] = field(default_factory=list)
    """What the last call returned, if it returned."""
    covers: int = -1
    """Number of the last request that had come when that call began."""


class SingleFlight(Generic[T]):
    """Makes blocking calls in threads. A call that begins after a request answers that request too.

    So nobody gets an answer that is older than the question, and those who come together share one.

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
            async with flight.lock:
                if flight.covers < number:
                    flight.covers, covers = -1, self._newest
                    flight.answer = [await anyio.to_thread.run_sync(function, limiter=self._limiter)]
                    flight.covers = covers
                return flight.answer[0]
        finally:
            flight.users -= 1
            if not flight.users:
                del self._flights[key]
