"""The control request `limits`: its reply, its question before it ends jobs, and its refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.model import JobStatus
from jobs.spec import TaskRequest
from server.engine.limit_requests import answer_limits
from tests.unit.jobs.support import Parts, parts

pytestmark = pytest.mark.anyio


async def ask(engine: Parts, identity: str, **more: Any) -> dict[str, Any]:
    """Ask as a client does, with values that went through JSON."""
    request = json.loads(json.dumps({"do": "limits", "id": identity, **more}))
    answer: dict[str, Any] = json.loads(json.dumps(await answer_limits(engine.limits, request)))
    return answer


async def test_a_request_without_changes_tells_what_is_in_force_and_used(tmp_path: Path):
    async with parts(tmp_path, max_running=1) as engine:
        first, failed, *_ = await engine.run(TaskRequest(task="hold", max_budget_usd=2.0), "fail", "hold", "x")
        await engine.reaches(first, JobStatus.RUNNING)
        root = (await engine.job(first)).root_id
        assert await ask(engine, first) == {
            "ok": True,
            "id": first,
            "budgetUsd": 2.0,
            "spentUsd": 0.0,
            "leftUsd": 2.0,
            "leftOf": None,
            "deadline": None,
            "maxJobs": None,
            "jobsBelow": 0,
            "maxConcurrent": None,
            "running": 1,
            "queued": 0,
            "failed": 0,
        }
        assert await ask(engine, root, set={"budget_usd": 1.5}) == await ask(engine, root, set={})
        assert (await ask(engine, first))["leftOf"] == f"tree {root}"

        engine.runner.release(first)
        await engine.over(failed)
        whole = await ask(engine, root)
        assert (whole["running"] + whole["queued"], whole["failed"], whole["jobsBelow"]) == (2, 1, 4)


async def test_a_deadline_is_told_as_a_time_with_its_zone(tmp_path: Path):
    async with parts(tmp_path) as engine:
        [job_id] = await engine.run("hold")
        answer = await ask(engine, job_id, set={"timeout_seconds": 900, "max_jobs": 5, "max_concurrent": 3})
        assert answer["deadline"].endswith(("Z", "+00:00"))
        assert (answer["maxJobs"], answer["maxConcurrent"], answer["budgetUsd"]) == (5, 3, None)


async def test_a_change_that_would_end_jobs_is_answered_with_a_question_until_it_is_confirmed(tmp_path: Path):
    async with parts(tmp_path, processes=True) as engine:
        [parent] = await engine.run(f"stub:wait={tmp_path}/never")
        await engine.reaches(parent, JobStatus.RUNNING)
        [child] = await engine.run("stub:cost=0.5", parent=parent)
        await engine.over(child)
        asked = {"set": {"budget_usd": 0.3}}
        answer = await ask(engine, parent, **asked, confirmed=False)
        assert answer.keys() == {"ok", "confirm"}
        assert "0.5000 USD have been spent already" in answer["confirm"]
        assert (await ask(engine, parent))["budgetUsd"] is None

        answer = await ask(engine, parent, **asked, confirmed=True)
        assert (answer["budgetUsd"], answer["spentUsd"], answer["leftUsd"]) == (0.3, 0.5, 0.0)
        await engine.over(parent)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"max_concurrent": 0}, "--max-concurrent: 0 is less than 1"),
        ({"max_jobs": "many"}, "--max-jobs: give a whole number. Nothing was done; correct the request and repeat it."),
        ({"budget_usd": [1], "max_concurrent": 1.5}, "--budget-usd: give a number; --max-concurrent: give a whole"),
        ({"timeout_seconds": float("inf")}, "--timeout: inf is not a number above 0"),
        ({"budget": 3}, "budget: there is no such field."),
        ({f"x{number}": 3 for number in range(7)}, "x4: there is no such field; and 2 more."),
        ([1], "set: give an object."),
    ],
)
async def test_a_request_that_cannot_be_done_is_refused_in_words_and_changes_nothing(
    tmp_path: Path, asked: Any, said: str
):
    async with parts(tmp_path) as engine:
        [job_id] = await engine.run("hold")
        before = await ask(engine, job_id)
        answer = await ask(engine, job_id, set=asked)
        assert answer["ok"] is False
        assert said in answer["error"]
        assert not any(word in answer["error"] for word in ("pydantic", "AskedLimits", "validation", "\n"))
        assert await ask(engine, job_id) == before


@pytest.mark.parametrize("identity", ["j404", None, 7])
async def test_what_is_unknown_is_refused(tmp_path: Path, identity: Any):
    async with parts(tmp_path) as engine:
        answer = await ask(engine, identity)
        assert answer == {"ok": False, "error": f"Job {identity} not found"}
