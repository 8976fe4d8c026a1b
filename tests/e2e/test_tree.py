"""The demo's tree, played by the real `claude` through our engine: what SQLite holds, and what its jobs answered."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.picnic import ALLOWED_TOOLS, expected_answer, root_tasks, story, write_files
from server.demo.run import made_of_children
from tests.support.engines import SYSTEM_PATH, House, house

HELPERS = {"place": {"shade", "way"}, "food": {"savoury", "sweet"}, "games": {"outdoors", "rain"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A tree that is over.

    Args:
        batch: Id of the root batch.
        rows: The rows of its jobs by the role that each played.
        answers: Each job's whole answer by its id.
        status: What `claude_status` says of the batch.
        lines: What `claude_list_jobs` says of the tree.
        house: Where it was played.
    """

    batch: str
    rows: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, str]
    status: Mapping[str, Any]
    lines: list[Mapping[str, Any]]
    house: House


@pytest.fixture(scope="module")
def played(claude_cli: Path) -> Iterator[Played]:
    """Play the demo's story once."""
    with ScriptedApi(story()) as api, house(CLAUDE_JOBS_CLI=str(claude_cli), CLAUDE_JOBS_LOG_LEVEL="DEBUG") as made:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        with made.pump(environ=client) as pump:
            write_files(made.work)
            asked = {"tasks": root_tasks(), "outputFormat": "text", "allowedTools": ALLOWED_TOOLS}
            batch = pump.json("claude_run_batch_async", **asked)
            reply = pump.json("claude_wait", batchId=batch["batchId"])
            assert reply["pending"] == 0
            lines = pump.json("claude_list_jobs", under=batch["batchId"], limit=100)
            yield Played(
                batch=batch["batchId"],
                rows={role_of(row): row for row in rows_of(made.paths.database)},
                answers={line["jobId"]: pump.text("claude_result", jobId=line["jobId"]) for line in lines},
                status=pump.json("claude_status", jobId=batch["batchId"]),
                lines=lines,
                house=made,
            )


def rows_of(database: Path) -> list[Mapping[str, Any]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM job ORDER BY seq")]


def role_of(row: Mapping[str, Any]) -> str:
    return story().role_of(str(json.loads(row["spec"])["task"]))


def test_parents_and_depths_are_those_of_the_story(played: Played):
    rows = played.rows
    assert set(rows) == set(HELPERS) | {helper for helpers in HELPERS.values() for helper in helpers}
    for role, helpers in HELPERS.items():
        assert (rows[role]["parent_id"], rows[role]["depth"]) == (None, 1)
        assert rows[role]["path"] == f"{played.batch}/{rows[role]['id']}"
        for helper in helpers:
            assert (rows[helper]["parent_id"], rows[helper]["depth"]) == (rows[role]["id"], 2)
            assert rows[helper]["path"] == f"{rows[role]['path']}/{rows[helper]['id']}"
    assert {row["root_id"] for row in rows.values()} == {played.batch}


def test_every_outcome_is_a_success_at_the_first_attempt(played: Played):
    outcomes = {(row["status"], row["reason"], row["attempt"]) for row in played.rows.values()}
    assert outcomes == {("completed", "completed", 1)}
    assert all(row["created_at"] <= row["started_at"] <= row["ended_at"] for row in played.rows.values())


def test_every_cost_is_the_one_that_claude_reported(played: Played):
    for row in played.rows.values():
        out = played.house.paths.trees / row["root_id"] / row["id"] / "1" / "out"
        frames = [json.loads(line) for line in out.read_text().splitlines()]
        [reported] = [frame["total_cost_usd"] for frame in frames if frame["type"] == "result"]
        assert row["cost_usd"] == pytest.approx(reported)
        assert reported > 0
    total = sum(row["cost_usd"] for row in played.rows.values())
    assert played.status["costUsd"] == pytest.approx(total, abs=1e-6)
    assert (played.status["counts"], played.status["total"], played.status["deepest"]) == ({"completed": 9}, 9, 2)


def test_every_parents_answer_is_made_of_its_childrens(played: Played):
    assert made_of_children(played.lines, played.answers)
    for role, row in played.rows.items():
        assert played.answers[row["id"]] == expected_answer(role)


def test_nothing_secret_of_the_tree_is_left_behind(played: Played):
    paths = played.house.paths
    assert not list(paths.trees.rglob("origin.json"))
    assert not list(paths.trees.rglob("in"))
    kept = b"".join(path.read_bytes() for path in [*paths.home.glob("jobs.db*"), paths.log])
    assert b"sk-fake" not in kept
    assert b"cj1_" not in kept
