"""The schema says what the model says."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files

import pytest

from jobs.model import NEXT, JobStatus, Reason
from jobs.store.migrations import STEPS
from jobs.store.rows import attempt_of, job_of
from jobs.waiting_for import AttemptWait, WaitingFor

SCHEMA = files("jobs.store").joinpath("schema.sql").read_text()


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        for script in STEPS:
            opened.executescript(files("jobs.store").joinpath(script).read_text())
        yield opened


def _checked(table: str, column: str) -> set[str]:
    body = re.search(rf"CREATE TABLE {table} \((.*?)\n\) STRICT", SCHEMA, re.DOTALL)
    assert body is not None
    check = re.search(rf"\n    {column} TEXT[^,]*?CHECK \({column} IN \((.*?)\n?\s*\)\)", body.group(1), re.DOTALL)
    assert check is not None
    return set(re.findall(r"'(\w+)'", check.group(1)))


def test_a_job_may_have_every_status_and_no_other() -> None:
    assert _checked("job", "status") == set(JobStatus)


def test_an_attempt_leads_to_every_status_that_a_running_job_may_take() -> None:
    assert _checked("attempt", "status") == NEXT[JobStatus.RUNNING]


@pytest.mark.parametrize("table", ["job", "attempt"])
def test_every_reason_may_be_kept_and_no_other(table: str) -> None:
    assert _checked(table, "reason") == set(Reason)


@pytest.mark.parametrize("status", list(JobStatus))
def test_the_comment_of_a_status_draws_the_arrows_of_the_model(status: JobStatus) -> None:
    comment = re.search(rf"'{status}',?(?:  -- (.*))?\n", SCHEMA)
    assert comment is not None
    arrows = re.findall(r"-> ([\w, ]+)", comment.group(1) or "")

    assert {target for arrow in arrows for target in arrow.split(", ")} == NEXT[status]


def test_every_table_is_strict(connection: sqlite3.Connection) -> None:
    tables = connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()

    assert {name for name, strict in tables if strict} == {
        "tree",
        "batch",
        "job",
        "attempt",
        "task",
        "tally",
        "paused_path",
        "notice",
        "noted_pause",
        "spending",
        "ended_pause",
    }


def test_rows_are_read_in_the_order_of_the_columns(connection: sqlite3.Connection) -> None:
    connection.executescript(
        """
        INSERT INTO tree (id, created_at) VALUES ('r', 0);
        INSERT INTO batch (id, root_id, caller, created_at) VALUES ('b', 'r', '', 0);
        INSERT INTO job VALUES (7, 'id', 'r', 'parent', 'b', 5, 2, 'path', '{"task": "t", "cwd": "c"}', 'timeout',
            'deadline', 3, 'session', 'excerpt', 'error', 0.5, 11, 12, 13, 1, 1.5, 2.5, 3.5, 'children');
        INSERT INTO attempt VALUES ('id', 3, 'session', NULL, 4711, 0.5, 'timeout', 'deadline', 4, 'result', '{}',
            0.25, 21, 22, 23, 'user,project', 2.5, 3.5, 'cli', 'version', 'model', '[["children", 2.5, 3.0]]');
        """
    )
    job = job_of(connection.execute("SELECT * FROM job").fetchone())
    attempt = attempt_of(connection.execute("SELECT * FROM attempt").fetchone())

    assert (job.seq, job.id, job.root_id, job.parent_id, job.batch_id) == (7, "id", "r", "parent", "b")
    assert (job.depth, job.path, job.status, job.reason, job.attempt) == (2, "path", "timeout", "deadline", 3)
    assert (job.session_id, job.excerpt, job.error, job.cancel_requested) == ("session", "excerpt", "error", True)
    assert (job.created_at, job.started_at, job.ended_at, job.usage.turns) == (1.5, 2.5, 3.5, 13)
    assert job.waiting_for == "children"
    assert (attempt.pid, attempt.pid_start, attempt.exit_code) == (4711, 0.5, 4)
    assert (attempt.usage.cost_usd, attempt.usage.turns, attempt.setting_sources) == (0.25, 23, "user,project")
    assert (attempt.cli, attempt.cli_version, attempt.model) == ("cli", "version", "model")
    assert attempt.waits == (AttemptWait(what=WaitingFor.CHILDREN, since=2.5, until=3.0),)
    assert (attempt.result, attempt.frame, attempt.started_at, attempt.ended_at) == ("result", {}, 2.5, 3.5)


@pytest.mark.parametrize(
    "change",
    [
        "status = 'paused'",
        "reason = 'because'",
        "status = 'completed', ended_at = 1.0",
        "status = 'failed', reason = 'lost'",
        "ended_at = 1.0",
        "status = 'running'",
        "cancel_requested = 2",
        "waiting_for = 'slot'",
        "depth = -1",
        "attempt = 'many'",
    ],
)
def test_a_row_that_contradicts_the_model_is_refused(connection: sqlite3.Connection, change: str) -> None:
    connection.executescript(
        """
        INSERT INTO tree (id, created_at) VALUES ('r', 0);
        INSERT INTO batch (id, root_id, caller, created_at) VALUES ('b', 'r', '', 0);
        INSERT INTO job (id, root_id, batch_id, position, depth, path, spec, status, created_at)
        VALUES ('j', 'r', 'b', 0, 0, 'j', '{}', 'queued', 0);
        """
    )

    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(f"UPDATE job SET {change}")
