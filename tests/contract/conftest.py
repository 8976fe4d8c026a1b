"""The stores that keep the contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs.ports import Store
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from jobs.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "memory", "live"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return

    async with SqliteStore.open(tmp_path / "jobs.db") as opened:
        yield LiveStore(opened) if request.param == "live" else opened
