"""A feed with seats for watchers."""

from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from server.feed import watch
from tests.unit.feed.world import Seats, World


@pytest.fixture
async def seats(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Seats]:
    # A test that asks where nothing changed gets its empty page at once.
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.05)
    world = await World.empty()
    with ExitStack() as stack:
        yield Seats(world, world.feed(), stack)
