"""A state directory with a short path, so that the socket stands in it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    # Not tmp_path: its length would decide where the socket stands.
    base = Path(tempfile.mkdtemp(prefix="cj-")).resolve()
    yield base
    shutil.rmtree(base)
