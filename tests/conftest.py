"""Fixtures that every test may use."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """LangGraph needs asyncio, so every asynchronous test runs on it."""
    return "asyncio"
