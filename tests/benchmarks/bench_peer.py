"""Forty empty jobs through our front, and through a package that only starts processes and keeps nothing on disk."""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.watched import ROOMY, run_batch, told
from tests.support.engines import SHELL_STUB, SYSTEM_PATH, Pump, house

PEER = "claudecode-mcp-async==1.0.0"
PEER_FILES = Path("/tmp/claude_code_tasks")
"""Where the package puts its tasks, whatever its environment says."""

COUNT = 40
ROUNDS = 7


@pytest.fixture(scope="module")
def peer_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the peer's program, installed into an environment of its own."""
    directory = tmp_path_factory.mktemp("peer")
    venv.create(directory, with_pip=True)
    installed = subprocess.run(
        [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", PEER],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"{PEER} cannot be installed here: {installed.stderr.strip().splitlines()[-1:]}")
    return directory / "bin" / "claudecode-mcp-async"


@contextmanager
def peer(program: Path, directory: Path) -> Iterator[Pump]:
    """Start the peer with a `claude` that is the stub, in an environment built from nothing."""
    home, path = directory / "home", directory / "path"
    for made in (home, path):
        made.mkdir()
    (path / "claude").symlink_to(SHELL_STUB)
    process = subprocess.Popen(
        [program],
        env={"HOME": str(home), "PATH": f"{path}:{SYSTEM_PATH}", "LANG": "C.UTF-8"},
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            client = Pump(process)
            client.shake_hands()
            yield client
        finally:
            process.kill()


def forty_of_the_peer(client: Pump) -> float:
    """Start the tasks, ask for each until it is over, and return the seconds."""
    began = time.monotonic()
    ids = [_task_id(client.text("claude_code_execute_async", prompt="hello")) for _ in range(COUNT)]
    for task in ids:
        while "completed" not in client.text("claude_code_check_result", task_id=task).splitlines()[0]:
            pass
    took = time.monotonic() - began
    for task in ids:
        for kind in ("meta", "stdout", "stderr"):
            with contextlib.suppress(FileNotFoundError):
                (PEER_FILES / f"{task}.{kind}").unlink()
    return took


def _task_id(text: str) -> str:
    found = re.search(r"Task ID: (\S+)", text)
    assert found is not None, text
    return found[1]


def test_forty_empty_jobs_beside_a_package_that_keeps_nothing(peer_program: Path, tmp_path: Path):
    ours, theirs = [], []
    with house(**ROOMY) as built, built.pump() as client, peer(peer_program, tmp_path) as other:
        run_batch(client, ["hello"] * COUNT)
        for _ in range(ROUNDS):
            theirs.append(forty_of_the_peer(other))
            ours.append(run_batch(client, ["hello"] * COUNT))
    mine, its = (COUNT / statistics.median(seconds) for seconds in (ours, theirs))
    told(
        f"{COUNT} empty jobs beside {PEER}, {sys.version_info.major}.{sys.version_info.minor}, {os.cpu_count()} cores",
        f"{mine / its:.2f} ({mine:.0f}/s against {its:.0f}/s)",
        ">= 1.5",
    )
