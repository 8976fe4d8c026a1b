"""Fixtures of the tests of limits."""

import pytest

from tests.unit.jobs.support import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()
