"""A state directory with a short path, and an end for every engine that a test started in it."""

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.client.engine_socket import EngineEndpoint
from server.client.state_dir import StatePaths, prepare
from tests.unit.client import stand_in

MakeEndpoint = Callable[..., EngineEndpoint]


def noted(paths: StatePaths, name: str) -> list[dict[str, Any]]:
    """What stand-in engines wrote down under this name."""
    path = paths.home / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def paths() -> Iterator[StatePaths]:
    # Not tmp_path: its length would decide where the socket stands.
    base = Path(tempfile.mkdtemp(prefix="cj-")).resolve()
    made = prepare(base / "state")
    yield made
    for start in noted(made, "starts"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(start["pid"], signal.SIGKILL)
    shutil.rmtree(base)


@pytest.fixture
def make_endpoint(paths: StatePaths) -> MakeEndpoint:
    """Make an endpoint whose engine is a stand-in with the options given."""

    def make(*options: str, timeout: float = 20.0, notes: list[str] | None = None, **environ: str) -> EngineEndpoint:
        return EngineEndpoint(
            paths=paths,
            environ={"PATH": os.environ["PATH"]} | environ,
            command=stand_in.command(*options),
            timeout=timeout,
            note=(notes if notes is not None else []).append,
        )

    return make
