"""Makes the state directory of the current schema version that later versions must be able to open.

Run it once for each new schema version, and never again for an old one:
`python -m tests.unit.store.golden` writes `tests/fixtures/store/vN`, N being the version.
"""

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import anyio

from jobs.model import JobStatus, Outcome, Reason, Usage
from jobs.ports import NewJob, Submission
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.runner.manifest import LaunchManifest, write_end_manifest, write_launch_manifest
from jobs.spec import JobSpec
from jobs.store.migrations import STEPS
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, anything_goes, known

FIXTURES = Path(__file__).parents[2] / "fixtures" / "store"
FRAME = {"type": "result", "subtype": "success", "is_error": False, "result": "forty-two", "num_turns": 1}


async def make(home: Path) -> None:
    """Leave a tree in every status, with attempts and directories."""
    async with SqliteStore.open(home / "jobs.db") as store:
        spec = JobSpec(task="naïve “task”", cwd="/srv", model="m", allowed_tools=("Read",), max_budget_usd=2.0)
        jobs = [NewJob(id=f"j{number}", spec=spec) for number in range(1, 6)]
        await store.admit(
            Submission(
                batch_id="b1",
                jobs=jobs,
                idempotency_scope="c",
                idempotency_key="k",
                client="me",
                max_budget_usd=9.0,
                at=1.0,
            ),
            anything_goes,
        )
        await _launch(store, home, "j1")
        await admit(store, "b2", "j6", parent_id="j1")
        for job_id, status in (("j2", JobStatus.COMPLETED), ("j3", JobStatus.FAILED), ("j4", JobStatus.TIMEOUT)):
            await _launch(store, home, job_id)
            await _end(store, home, job_id, status)
        await store.cancel_under("b1/j5", at=5.0)
    (home / "jobs.db.reserve").unlink()
    with closing(sqlite3.connect(home / "jobs.db")) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")


async def _launch(store: SqliteStore, home: Path, job_id: str) -> None:
    attempt = await store.claim(job_id, session_id=f"s of {job_id}", token_hash=f"t of {job_id}", at=2.0)
    assert attempt is not None
    await store.record_launch(job_id, 1, pid=4711, pid_start=0.5)
    launched = LaunchManifest(job=await known(store, job_id), attempt=attempt, tree=await store.tree("b1"))
    write_launch_manifest(_directory(home, job_id), launched)


async def _end(store: SqliteStore, home: Path, job_id: str, status: JobStatus) -> None:
    directory = _directory(home, job_id)
    (directory.path / "out").write_text(json.dumps(FRAME) + "\n")
    (directory.path / "rc").write_text("0\n")
    reasons = {JobStatus.FAILED: Reason.MAX_TURNS, JobStatus.TIMEOUT: Reason.DEADLINE}
    usage = Usage(cost_usd=0.5, input_tokens=10, output_tokens=2, turns=1)
    reason = reasons.get(status, Reason.COMPLETED)
    outcome = Outcome(reason=reason, status=status, result="forty-two", frame=FRAME, usage=usage, exit_code=0)
    write_end_manifest(directory, await store.settle(job_id, 1, outcome, at=7.0))


def _directory(home: Path, job_id: str) -> AttemptDirectory:
    return AttemptDirectory.create(home / "trees" / "b1" / job_id / "1")


if __name__ == "__main__":
    target = FIXTURES / f"v{len(STEPS)}"
    if target.exists():
        sys.exit(f"{target} exists. It belongs to a released version: do not write it again.")
    target.mkdir(parents=True)
    try:
        anyio.run(make, target)
    except BaseException:
        shutil.rmtree(target)
        raise
