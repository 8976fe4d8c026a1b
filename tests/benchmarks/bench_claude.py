"""Real `claude` jobs, six at once, beside the same `claude` started by `xargs`, without and with an MCP server."""

import json
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.benchmarks.watched import engine_of, run_batch, told, tree_cpu
from tests.e2e import tiny_server
from tests.e2e.conftest import claude_cli as claude_cli  # noqa: PLC0414 - pytest finds fixtures by name
from tests.e2e.support import SYSTEM_PATH, print_command, print_input
from tests.support.engines import House, house

COUNT = 12
AT_ONCE = 6
ROUNDS = 3
STORY = Story.model_validate({"default": "x", "roles": {"x": [{"text": "Hello.", "delay": 1}]}})
TRIVIAL = {"tiny": {"type": "stdio", "command": sys.executable, "args": ["-I", "-S", tiny_server.__file__]}}
_LOOK_SECONDS = 0.05


class Run(NamedTuple):
    """What twelve jobs took.

    Args:
        wall: Seconds until all were over.
        cpu: Seconds of CPU of everything that ran.
    """

    wall: float
    cpu: float


@contextmanager
def summed(roots: Iterable[int]) -> Iterator[Callable[[], float]]:
    """Add up the CPU of processes and of everything below them while the block lasts.

    They are looked at from outside, again and again: who collects a job's processes keeps no account of them. What one
    did between the last look and its end is missing, on either side of the comparison alike.
    """
    roots = list(roots)
    seen: dict[tuple[int, float], float] = {}
    tree_cpu(roots, seen)
    before = dict(seen)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            tree_cpu(roots, seen)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield lambda: sum(seconds - before.get(key, 0.0) for key, seconds in list(seen.items()))
    finally:
        over.set()
        watcher.join()


def bare(cli: Path, api: ScriptedApi, directory: Path, servers: Mapping[str, Any]) -> Run:
    """Run the jobs by `xargs`."""
    home, work = directory / "home", directory / "work"
    for made in (home, work):
        made.mkdir(parents=True)
    (directory / "in").write_text(print_input("Say hello.", servers))
    line = f'exec {shlex.join(print_command(cli))} <"{directory}/in" >"{directory}/out$1" 2>&1'
    began = time.monotonic()
    with subprocess.Popen(
        ["xargs", "-P", str(AT_ONCE), "-n", "1", "/bin/sh", "-c", line, "sh"],
        stdin=subprocess.PIPE,
        cwd=work,
        env=isolated_environment(home, api.url, path=SYSTEM_PATH),
    ) as runner:
        with summed([runner.pid]) as cpu:
            runner.communicate("\n".join(map(str, range(COUNT))).encode(), timeout=300)
        took = time.monotonic() - began
    for number in range(COUNT):
        last = json.loads((directory / f"out{number}").read_text().splitlines()[-1])
        assert last["type"] == "result" and not last["is_error"], last  # noqa: PT018 - one line of output
    return Run(took, cpu())


def through_us(stage: House) -> Run:
    """Run the jobs through the engine."""
    engine = engine_of(stage)
    with stage.pump() as client, summed([engine.pid, client.process.pid]) as cpu:
        took = run_batch(client, ["Say hello."] * COUNT)
        spent = cpu()
    return Run(took, spent)


def test_twelve_real_jobs_beside_bare_ones(claude_cli: Path, tmp_path: Path):
    runs: dict[str, list[Run]] = {"ours": [], "bare": [], "trivial": []}
    with ScriptedApi(STORY) as api:
        home = tmp_path / "home"
        home.mkdir()
        settings = {"CLAUDE_JOBS_CLI": str(claude_cli), "CLAUDE_JOBS_MAX_RUNNING": str(AT_ONCE)}
        environ = isolated_environment(home, api.url, path=SYSTEM_PATH) | settings
        with house(**environ) as stage:
            through_us(stage)
            for turn in range(ROUNDS):
                runs["bare"].append(bare(claude_cli, api, tmp_path / f"bare{turn}", {}))
                runs["ours"].append(through_us(stage))
                runs["trivial"].append(bare(claude_cli, api, tmp_path / f"trivial{turn}", TRIVIAL))
    for name, each in runs.items():
        told(name, ", ".join(f"{run.wall:.2f} s / {run.cpu:.1f} CPU-s" for run in each), "none")
    told("wall beside bare claude", f"{_ratio(runs, 'bare', 'wall'):.2f}", "<= 1.05")
    told("CPU beside bare claude", f"{_ratio(runs, 'bare', 'cpu'):.2f}", "<= 1.20")
    told("CPU beside bare claude with a trivial server", f"{_ratio(runs, 'trivial', 'cpu'):.2f}", "<= 1.05")


def _ratio(runs: Mapping[str, list[Run]], other: str, what: str) -> float:
    pairs = zip(runs["ours"], runs[other], strict=True)
    return float(statistics.median(getattr(ours, what) / getattr(its, what) for ours, its in pairs))
