"""How many nodes of a tree run at once at each depth."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from anyio import CancelScope, CapacityLimiter

from orchestration.limits import TreeLimits


@dataclass(slots=True)
class _Seat:
    limiter: CapacityLimiter
    held: bool = True
    waits: int = 0


class DepthSlots:
    """Hands out slots per tree and depth, first come first served.

    LangGraph's own `max_concurrency` is no substitute: it counts anew in every nested run, and a parent that waits for
    its children keeps its place (measured: three nested levels with 2 peak at 2, 4 and 8).

    Args:
        limits: Says how many slots a depth has.
    """

    def __init__(self, limits: TreeLimits) -> None:
        self._limits = limits
        self._limiters: dict[str, dict[int, CapacityLimiter]] = {}
        self._seats: dict[str, _Seat] = {}

    @asynccontextmanager
    async def held(self, node_id: str, *, root_id: str, depth: int) -> AsyncIterator[None]:
        """Hold a slot while the block runs; waits for one first."""
        limiter = self._limiter(root_id, depth)
        await limiter.acquire_on_behalf_of(node_id)
        seat = self._seats[node_id] = _Seat(limiter)
        try:
            yield
        finally:
            del self._seats[node_id]
            if seat.held:
                limiter.release_on_behalf_of(node_id)

    @asynccontextmanager
    async def parked(self, node_id: str | None) -> AsyncIterator[None]:
        """Give the slot of a node back while the block waits for its children; does nothing for a node without one.

        However the block ends, the node has a slot again afterwards, and waits for it where it must.
        """
        seat = self._seats.get(node_id) if node_id is not None else None
        if seat is None:
            yield
            return

        seat.waits += 1
        if seat.held:
            seat.held = False
            seat.limiter.release_on_behalf_of(node_id)
        try:
            yield
        finally:
            seat.waits -= 1
            if seat.waits == 0 and not seat.held:
                # Shielded: work that gave its children up goes on, and in a cancelled scope it would have no slot.
                with CancelScope(shield=True):
                    await seat.limiter.acquire_on_behalf_of(node_id)
                seat.held = True

    def forget(self, root_id: str) -> None:
        """Drop the slots of a tree that is over."""
        self._limiters.pop(root_id, None)

    def _limiter(self, root_id: str, depth: int) -> CapacityLimiter:
        levels = self._limiters.setdefault(root_id, {})
        if depth not in levels:
            levels[depth] = CapacityLimiter(self._limits.slots_at(depth))
        return levels[depth]
