"""What the tests of `jobs.claude` share: stubs, commands and recorded streams."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.claude.command import Command, LaunchContext, build
from jobs.claude.ndjson import LineDecoder
from jobs.claude.outcome import OutcomeReader
from jobs.model import Outcome, Reason
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.process import Process, launch
from jobs.processes.spawning import DirectSpawner, Spawner
from jobs.spec import JobSpec

DIRECTLY = DirectSpawner()
TESTS = Path(__file__).parents[2]
QUICK_STUB = TESTS / "fakes" / "claude_stub.sh"
TORTURE_STUB = TESTS / "fakes" / "claude_stub.py"
RECORDED = TESTS / "fixtures" / "claude"
STREAMS = sorted(path.stem for path in RECORDED.glob("*.ndjson"))
CLIENT_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}


def spec(task: str = "say hello", **fields: Any) -> JobSpec:
    return JobSpec(task=task, cwd="/", **fields)


def context(**fields: Any) -> LaunchContext:
    defaults: dict[str, Any] = {
        "cli": "claude",
        "session_id": str(uuid.uuid4()),
        "marker": f"test:{uuid.uuid4().hex}",
        "client_env": CLIENT_ENV,
    }
    return LaunchContext(**(defaults | fields))


def command(task: str, *, stub: Path = QUICK_STUB, marker: str | None = None) -> Command:
    return build(spec(task), context(cli=str(stub), **({"marker": marker} if marker else {})))


async def start(
    path: Path, task: str, *, stub: Path = QUICK_STUB, marker: str | None = None, spawner: Spawner = DIRECTLY
) -> Process:
    directory = AttemptDirectory.create(path / "attempt")
    return await launch(directory, command(task, stub=stub, marker=marker), str(path), spawner)


def frames(data: bytes) -> list[Mapping[str, Any]]:
    decoder = LineDecoder()
    return [line.frame for line in [*decoder.feed(data), *decoder.close()] if line.frame is not None]


def recorded(name: str) -> tuple[bytes, int, str]:
    """A recorded stream, its exit code and its stderr."""
    meta = json.loads((RECORDED / f"{name}.meta.json").read_bytes())
    return (RECORDED / f"{name}.ndjson").read_bytes(), meta["rc"], meta["stderr"]


def classify(
    frames: list[Mapping[str, Any]],
    *,
    exit_code: int | None,
    stderr: str = "",
    asked_schema: bool = False,
    stop_reason: Reason | None = None,
) -> Outcome:
    """Say how an attempt ended from all of its frames at once; see `OutcomeReader.conclude`."""
    reader = OutcomeReader()
    for frame in frames:
        reader.feed(frame)
    return reader.conclude(exit_code=exit_code, stderr=stderr, asked_schema=asked_schema, stop_reason=stop_reason)
