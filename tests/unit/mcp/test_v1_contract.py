"""The older server's eight tools, as its callers know them: a call each, and the reply's exact keys and error text."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.model import JobStatus
from server.mcp.tools import BY_NAME
from tests.support.waiting import until
from tests.unit.mcp.world import call, call_json, refusal, world

pytestmark = pytest.mark.anyio

HOLD = "stub:wait=/nonexistent"

PARAMETERS = {
    "claude_run": {"task", "cwd", "outputFormat", "permissionMode", "verbose", "parentJobId"},
    "claude_run_async": {"task", "cwd", "outputFormat", "permissionMode", "verbose", "parentJobId"},
    "claude_status": {"jobId"},
    "claude_result": {"jobId"},
    "claude_list_jobs": set(),
    "claude_kill_job": {"jobId"},
    "claude_dashboard": set(),
    "claude_recursion_stats": set(),
}
STATUS_KEYS = ["jobId", "status", "task", "startTime", "endTime", "error", "recursionDepth", "parentJobId"]
DASHBOARD_KEYS = [
    "activeJobs",
    "completedJobs",
    "failedJobs",
    "averageDuration",
    "parallelEfficiency",
    "nestedDepth",
    "systemLoad",
    "recursionStats",
]
NEWER_DASHBOARD_KEYS = ["cancelledJobs", "costUsd"]
STATISTICS_KEYS = ["max_depth", "depth_counts", "root_job_counts", "active_contexts"]


@pytest.mark.parametrize("tool", PARAMETERS)
def test_every_parameter_of_the_older_server_is_accepted_and_only_its_required_ones_are_required(tool: str):
    fields = BY_NAME[tool].arguments.model_fields
    accepted = {field.alias or name for name, field in fields.items()}
    assert PARAMETERS[tool] <= accepted
    required = {field.alias or name for name, field in fields.items() if field.is_required()}
    assert required <= PARAMETERS[tool] & {"task", "jobId"}


async def test_a_run_answers_with_the_clis_result_object_two_spaces_deep(home: Path):
    async with world(home) as here, here.client() as client:
        text = await call(client, "claude_run", {"task": "stub:say=four"})
        result = json.loads(text)
        assert text == json.dumps(result, indent=2)
        kept = ["type", "subtype", "is_error", "result", "session_id", "total_cost_usd", "num_turns", "stop_reason"]
        assert list(result) == [*kept, "usage", "jobId"]
        assert (result["result"], result["is_error"], result["usage"]) == (
            "four",
            False,
            {"input_tokens": 10, "output_tokens": 20},
        )
        assert "terminal_reason" not in result
        verbose = json.loads(await call(client, "claude_run", {"task": "stub:say=four", "verbose": True}))
        assert set(verbose) > set(result)


async def test_a_run_as_text_answers_with_the_text_alone(home: Path):
    async with world(home) as here, here.client() as client:
        assert await call(client, "claude_run", {"task": "stub:say=four", "outputFormat": "text"}) == "four"


async def test_an_asynchronous_run_answers_with_three_keys(home: Path):
    async with world(home) as here, here.client() as client:
        text = await call(client, "claude_run_async", {"task": "x"})
        job_id = json.loads(text)["jobId"]
        assert text == (
            f'{{\n  "jobId": "{job_id}",\n  "status": "started",\n  "message": "Job started successfully"\n}}'
        )


async def test_a_status_begins_with_the_older_keys_and_words(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        status = await call_json(client, "claude_status", jobId=job.id)
        assert list(status)[: len(STATUS_KEYS)] == STATUS_KEYS
        assert (status["status"], status["endTime"], status["error"], status["parentJobId"]) == (
            "running", None, None, None,
        )  # fmt: skip
        assert datetime.fromisoformat(status["startTime"]).tzinfo is None
        await call_json(client, "claude_kill_job", jobId=job.id)
        done = await call_json(client, "claude_run_async", task="x")
        failed = await call_json(client, "claude_run_async", task="stub:exit=1")
        await call(client, "claude_wait", {"jobIds": [done["jobId"], failed["jobId"]]})
        assert (await call_json(client, "claude_status", jobId=done["jobId"]))["status"] == "completed"
        assert (await call_json(client, "claude_status", jobId=failed["jobId"]))["status"] == "failed"


async def test_a_job_that_outlives_its_time_is_a_timeout(home: Path):
    async with world(home) as here, here.client() as client:
        words = await refusal(client, "claude_run", task=HOLD, timeoutSeconds=0.2)
        assert words.startswith("Execution error: Job timeout: ")
        [job] = await here.services.store.newest_jobs(limit=2)
        assert (await call_json(client, "claude_status", jobId=job.id))["status"] == "timeout"
        assert (await refusal(client, "claude_result", jobId=job.id)).startswith("Job error: Job timeout: ")


async def test_the_error_texts_are_those_that_callers_match(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        assert (await refusal(client, "claude_status", jobId="j404")).startswith("Job j404 not found")
        assert (await refusal(client, "claude_result", jobId="j404")).startswith("Job error: Job not found")
        assert (await refusal(client, "claude_result", jobId=job.id)).startswith("Job error: Job is still running")
        assert (await refusal(client, "claude_run", task="stub:exit=3")).startswith("Execution error: Job failed: ")
        tasks = [HOLD, HOLD, {"task": "x", "dependsOn": [0]}]
        waiting = (await call_json(client, "claude_run_batch_async", tasks=tasks))["jobIds"][2]
        words = await refusal(client, "claude_result", jobId=waiting)
        assert words.startswith("Job error: Job is still running (queued)")


async def test_a_batch_of_the_older_server_is_answered_with_its_keys(home: Path):
    spelled = {"output_format": "text", "permission_mode": "plan", "verbose": False, "model": "sonnet"}
    async with world(home, max_concurrent={0: 4}) as here, here.client() as client:
        tasks = [{"task": "stub:say=a", **spelled}, {"task": "stub:exit=1", **spelled}]
        batch = await call_json(client, "claude_run_batch", tasks=tasks, parent_job_id=None, max_concurrent=2)
        assert list(batch)[:5] == ["batch_id", "job_ids", "parent_job_id", "execution_time_ms", "results_summary"]
        assert batch["results_summary"] == {"total": 2, "successful": 1, "failed": 1, "pending": 0}
        jobs = await here.services.store.jobs(batch["job_ids"])
        assert {(job.spec.output_format, job.spec.permission_mode, job.spec.model) for job in jobs} == {
            ("text", "plan", "sonnet")
        }


async def test_a_batch_that_is_started_answers_with_the_older_keys(home: Path):
    async with world(home) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=["x"], parent_job_id=None)
        assert list(batch) == ["jobIds", "batchId", "count", "status", "parentJobId"]
        assert (batch["count"], batch["status"], batch["parentJobId"]) == (1, "all_spawned_parallel", None)


async def test_no_more_of_a_batch_run_at_once_than_it_says(home: Path):
    async with world(home, max_concurrent={0: 4}) as here, here.client() as client:
        batch = await call_json(client, "claude_run_batch_async", tasks=[HOLD] * 3, maxConcurrent=2)

        async def two_run() -> bool:
            status = await call_json(client, "claude_status", jobId=batch["batchId"])
            return bool(status["counts"] == {"queued": 1, "running": 2})

        await until(two_run)
        other = await here.waiting_job(client)
        assert other.status is JobStatus.RUNNING
        await until(two_run)
        assert "maxConcurrent" in await refusal(client, "claude_run_batch_async", tasks=["x"], maxConcurrent=0)


async def test_a_limit_is_refused_in_the_older_words(home: Path):
    async with world(home, max_depth=0) as here, here.client() as client:
        job = await here.waiting_job(client)
        words = await refusal(client, "claude_run_async", task="x", parentJobId=job.id)
        assert words.startswith("Recursion depth limit exceeded: 1/0")


async def test_a_kill_is_always_an_answer(home: Path):
    async with world(home) as here, here.client() as client:
        job = await here.waiting_job(client)
        assert await call_json(client, "claude_kill_job", jobId=job.id) == {
            "success": True,
            "message": f"Job {job.id} killed",
        }
        await call(client, "claude_wait", {"jobIds": [job.id]})
        for job_id in (job.id, "j404"):
            assert await call_json(client, "claude_kill_job", jobId=job_id) == {
                "success": False,
                "message": f"Job {job_id} not found or already completed",
            }


async def test_a_list_is_an_array_of_statuses(home: Path):
    async with world(home) as here, here.client() as client:
        assert await call_json(client, "claude_list_jobs") == []
        await call(client, "claude_run", {"task": "x"})
        [line] = await call_json(client, "claude_list_jobs")
        assert list(line)[:6] == [key for key in STATUS_KEYS if key not in {"error", "parentJobId"}]
        await refusal(client, "claude_run", task="stub:exit=1")
        parent = await here.waiting_job(client)
        child = await here.waiting_job(client, parentJobId=parent.id)
        child_line, _, failed_line, _ = await call_json(client, "claude_list_jobs")
        assert (child_line["jobId"], child_line["parentJobId"]) == (child.id, parent.id)
        assert failed_line["error"]


async def test_the_dashboard_has_the_older_keys_and_true_figures(home: Path):
    async with world(home) as here, here.client() as client:
        empty = await call_json(client, "claude_dashboard")
        assert list(empty) == [*DASHBOARD_KEYS, *NEWER_DASHBOARD_KEYS]
        assert (empty["averageDuration"], empty["parallelEfficiency"], empty["nestedDepth"]) == (0, 0, 0)
        await call(client, "claude_run", {"task": "stub:sleep=0.2"})
        await refusal(client, "claude_run", task="stub:exit=1")
        killed = await here.waiting_job(client)
        await call_json(client, "claude_kill_job", jobId=killed.id)
        await call(client, "claude_wait", {"jobIds": [killed.id]})
        parent = await here.waiting_job(client)
        await here.waiting_job(client, parentJobId=parent.id)
        figures = await call_json(client, "claude_dashboard")
        # The older server counted a job that was cancelled among those that failed.
        assert (figures["activeJobs"], figures["completedJobs"], figures["failedJobs"]) == (2, 1, 2)
        assert figures["cancelledJobs"] == 1
        assert figures["nestedDepth"] == 1
        # One of the three that are over slept for 0.2 s.
        assert figures["averageDuration"] >= 0.06
        assert figures["parallelEfficiency"] > 0
        assert 20 < figures["systemLoad"] < 4096
        assert figures["recursionStats"] == await call_json(client, "claude_recursion_stats")


async def test_a_job_sees_the_figures_of_its_own_subtree(home: Path):
    async with world(home, max_concurrent={0: 4}) as here, here.client() as person:
        one, _ = await here.waiting_job(person), await here.waiting_job(person)
        async with here.client(token=here.token(one)) as client:
            assert (await call_json(client, "claude_dashboard"))["activeJobs"] == 1


async def test_recursion_statistics_begin_with_the_older_keys(home: Path):
    async with world(home) as here, here.client() as client:
        figures: dict[str, Any] = await call_json(client, "claude_recursion_stats")
        assert list(figures) == [*STATISTICS_KEYS, "running", "waiting", "limits", "window"]
        assert figures["depth_counts"] == figures["root_job_counts"] == {}
