"""The state of every schema version that there has been opens, migrates, and says what it said."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobs.maintenance.db_recovery import last_recovery, open_with_recovery
from jobs.model import JobStatus, Usage
from jobs.store.migrations import STEPS, prepare
from jobs.store.sqlite import SqliteStore
from tests.contract.support import ids, known
from tests.unit.store.golden import FIXTURES

VERSIONS = sorted(FIXTURES.glob("v*"), key=lambda path: int(path.name[1:]))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    copy = tmp_path / "home"
    shutil.copytree(request.param, copy)
    # A version control system keeps no modes; a job's directory must be closed to others.
    for path in copy.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return copy


def _schema(database: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    return [(name, " ".join(sql.split())) for name, sql in rows]


def test_there_is_a_golden_state_of_every_schema_version() -> None:
    assert [path.name for path in VERSIONS] == [f"v{number}" for number in range(1, len(STEPS) + 1)]


def test_the_newest_golden_state_has_the_schema_of_today(tmp_path: Path) -> None:
    prepare(tmp_path / "jobs.db")

    # Where this fails the schema was changed: write a migration and make a golden state of the new version.
    assert _schema(VERSIONS[-1] / "jobs.db") == _schema(tmp_path / "jobs.db")


@pytest.mark.anyio
async def test_an_old_database_opens_with_everything_in_it(home: Path) -> None:
    async with open_with_recovery(home / "jobs.db", home / "trees", SqliteStore.open) as store:
        await _expect_everything(store)
        assert (await known(store, "j5")).status is JobStatus.CANCELLED
        assert ids(await store.jobs_in_batch("b2")) == ["j6"]
    assert last_recovery(home / "jobs.db") is None
    assert _schema(home / "jobs.db") == _schema(VERSIONS[-1] / "jobs.db")


@pytest.mark.anyio
async def test_old_directories_bring_a_lost_database_back(home: Path) -> None:
    (home / "jobs.db").unlink()
    async with open_with_recovery(home / "jobs.db", home / "trees", SqliteStore.open) as store:
        await _expect_everything(store)
    assert last_recovery(home / "jobs.db") is not None


async def _expect_everything(store: SqliteStore) -> None:
    jobs = [await known(store, job_id) for job_id in ("j1", "j2", "j3", "j4")]
    assert [job.status for job in jobs] == ["running", "completed", "failed", "timeout"]
    assert (jobs[0].spec.task, jobs[0].spec.allowed_tools) == ("naïve “task”", ("Read",))
    assert jobs[1].usage == Usage(cost_usd=0.5, input_tokens=10, output_tokens=2, turns=1)
    caller, attempt, tree = await store.caller("t of j1"), await store.attempt("j2", 1), await store.tree("b1")
    assert caller == jobs[0]
    assert attempt is not None
    assert (attempt.result, attempt.session_id, attempt.exit_code) == ("forty-two", "s of j2", 0)
    assert tree is not None
    assert (tree.client, tree.max_budget_usd) == ("me", 9.0)
