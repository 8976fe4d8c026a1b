"""Connections that bring a job's token: through the pump as the job does it, and straight to the socket as a thief."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.client.tool_client import Client, connected
from server.client.wire import Hello
from tests.support.engines import MAIN, House, Pump
from tests.support.waiting import until_now


def attempt_directory(house: House, status: dict[str, Any]) -> Path:
    """Return where the files of a job's attempt are."""
    return Path(house.paths.trees, status["rootId"], status["jobId"], str(status["attempt"]))


def token_of(directory: Path) -> str:
    """Return the token in a running attempt's stdin file."""
    # A job counts as running from its claim on; its files come a moment later.
    _wait_for_token(directory)
    return str(json.loads((directory / "in").read_bytes().splitlines()[0])["claude_jobs_token"])


def _wait_for_token(directory: Path) -> None:
    stdin = directory / "in"
    until_now(lambda: stdin.exists() and stdin.stat().st_size > 0, 20.0, "the job's token")


def running(pump: Pump, job_id: str) -> dict[str, Any]:
    """Wait until a job runs and return its status."""
    found: dict[str, Any] = {}

    def runs() -> bool:
        found.update(pump.json("claude_status", jobId=job_id))
        return bool(found["status"] == "running")

    until_now(runs, 30.0, f"the start of {job_id}")
    return found


@contextmanager
def pump_of_job(house: House, directory: Path) -> Iterator[Pump]:
    """Start the pump of a running job, as its `claude` would."""
    _wait_for_token(directory)
    process = subprocess.Popen(
        [sys.executable, str(MAIN), "mcp", "--job", str(directory)],
        env=dict(house.environ),
        cwd=house.work,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            pump = Pump(process)
            pump.shake_hands()
            yield pump
        finally:
            process.kill()


@contextmanager
def thief(house: House, token: str) -> Iterator[Client]:
    """Connect with somebody else's token, from another directory and under another name."""
    with connected(house.endpoint, Hello(cwd="/", token=token, client="a thief")) as client:
        yield client
