"""Fixtures that every test may use."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from blockbuster import BlockBuster

SLOW = ("time.sleep", "sqlite3.Connection.execute", "sqlite3.Cursor.execute", "sqlite3.Connection.executescript")
"""What must never happen on the event loop. Small files on the local disk that SQLite demands are read there by choice:
each takes some microseconds, and a thread switch takes more."""


TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Give each test the marker of its directory."""
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio, so every asynchronous test runs on it."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_slow_on_the_loop() -> Iterator[None]:
    """Fail a test in which our code sleeps or talks to SQLite on the event loop."""
    guard = BlockBuster(scanned_modules=["server", "jobs", "orchestration"])
    guarded = [guard.functions[name] for name in SLOW]
    for function in guarded:
        function.activate()
    yield
    for function in guarded:
        function.deactivate()


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """Keep the mask of new files from test to test: an engine that runs in this process narrows it for good."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
