"""Tasks of a batch that wait for each other: who is meant, that nobody waits in a circle, and what they hear."""

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from jobs.errors import BadInputError
from jobs.model import JobStatus, Reason
from jobs.prompts.briefing import Prompts
from jobs.prompts.dependencies import resolve, substitute_results
from jobs.spec import TaskRequest
from jobs.waiting_for import WaitingFor
from tests.unit.jobs.support import LONG, Parts, parts
from tests.unit.mcp.world import call, call_json, refusal, world

pytestmark = pytest.mark.anyio

IDS = ["ja", "jb", "jc"]


def wanted(*waits: tuple[str | None, list[str | int], str]) -> list[TaskRequest]:
    return [TaskRequest(key=key, depends_on=others, task=task) for key, others, task in waits]


def test_keys_and_positions_name_the_same_siblings():
    tasks = wanted(("a", [], "x"), (None, ["a"], "x"), ("c", [0, "1", "a"], "x"))
    assert resolve(tasks, IDS) == [(), ("ja",), ("ja", "jb")]


@pytest.mark.parametrize(
    ("tasks", "field", "words"),
    [
        (wanted(("a", ["c"], "x"), ("b", ["a"], "x"), ("c", ["b"], "x")), "tasks", "circle (a → b → c → a)"),
        (wanted(("a", ["a"], "x"), ("b", [], "x")), "tasks[0].dependsOn", "not another task"),
        (wanted(("a", ["d"], "x"), ("b", [], "x")), "tasks[0].dependsOn", "'d' is not another task"),
        (wanted(("a", [7], "x"), ("b", [], "x")), "tasks[0].dependsOn", "from 0 to 1"),
        (wanted(("a", [], "x"), ("a", [], "x")), "tasks[1].key", "'a' is the key of another task too"),
        (wanted(("1", [], "x"), (None, [], "x")), "tasks[0].key", "is the key of another task too"),
        (wanted(("a", [], "x"), ("b", [], "{{results.a}}")), "tasks[1].task", "{{results.a}}"),
    ],
    ids=["circle", "itself", "unknown", "beyond", "twice", "position", "forgotten"],
)
def test_what_cannot_be_resolved_is_named_with_its_task(tasks: list[TaskRequest], field: str, words: str):
    with pytest.raises(BadInputError) as caught:
        resolve(tasks, IDS)
    assert caught.value.field == field
    assert words in str(caught.value)


def test_a_result_that_looks_like_a_placeholder_stays_data():
    filled = substitute_results("{{results.a}} and {{ results.b }}", {"a": "{{results.b}}", "b": "B"})
    assert filled == "{{results.b}} and B"


def test_a_placeholder_that_nobody_answers_stays_as_it_is():
    assert substitute_results("{{results.a}} {{other}}", {}) == "{{results.a}} {{other}}"


async def submit(here: Parts, *requests: TaskRequest) -> list[str]:
    return await here.manager.execute_batch_async(requests, client_context=here.client_context)


async def test_a_circle_is_refused_before_anything_is_written(tmp_path: Path):
    async with parts(tmp_path) as here:
        with pytest.raises(BadInputError, match="circle"):
            await submit(here, TaskRequest(task="x", depends_on=[1]), TaskRequest(task="y", depends_on=[0]))
        assert await here.store.newest_jobs(limit=5) == []
        assert list(here.trees.glob("*")) == []


async def test_a_task_starts_only_when_those_it_waits_for_have_completed(tmp_path: Path):
    async with parts(tmp_path) as here:
        first, second = await submit(here, TaskRequest(task="hold a", key="a"), TaskRequest(task="b", depends_on=["a"]))
        await here.reaches(first, JobStatus.RUNNING)
        assert (await here.job(second)).status is JobStatus.QUEUED
        here.runner.release(first)
        await here.over(first, second)
        assert here.runner.started == [first, second]


async def test_a_task_waits_for_siblings_until_they_have_completed_and_again_where_it_is_tried_again(tmp_path: Path):
    async with parts(tmp_path) as here:
        heard: list[WaitingFor | None] = []
        first, second = await submit(here, TaskRequest(task="hold a", key="a"), TaskRequest(task="b", depends_on=["a"]))
        here.event_bus.observe(lambda job: heard.append(job.waiting_for) if job.id == second else None)
        await here.reaches(first, JobStatus.RUNNING)
        assert (await here.job(second)).waiting_for is WaitingFor.SIBLINGS
        await here.manager.cancel(second)
        assert heard == [None]
        again = await here.store.requeue(second)
        assert again is not None
        here.group.start_soon(here.manager.run_batch, [again])
        with anyio.fail_after(LONG):
            while (await here.job(second)).waiting_for is None:
                await anyio.lowlevel.checkpoint()
        here.runner.release(first)
        await here.over(first, second)
        assert heard[1:3] == [WaitingFor.SIBLINGS, None]


async def test_the_failure_of_one_cancels_those_that_wait_for_it_and_nobody_else(tmp_path: Path):
    async with parts(tmp_path) as here:
        ids = await submit(
            here,
            TaskRequest(task="fail", key="a"),
            TaskRequest(task="b", key="b", depends_on=["a"]),
            TaskRequest(task="c", depends_on=["b"]),
            TaskRequest(task="d"),
        )
        a, b, c, d = await here.over(*ids)
        assert (a.status, d.status) == (JobStatus.FAILED, JobStatus.COMPLETED)
        for job, culprit in ((b, a), (c, b)):
            assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.DEPENDENCY_FAILED)
            assert culprit.id in (job.error or "")
        assert b.error == f"It depends on a ({a.id}), which is failed ({a.reason})."
        assert c.error == f"It depends on b ({b.id}), which is cancelled (dependency_failed)."
        assert here.runner.started == [a.id, d.id] or here.runner.started == [d.id, a.id]


async def test_a_job_after_a_cancelled_one_names_that_one_and_its_state_once(tmp_path: Path):
    async with parts(tmp_path) as here:
        first, second = await submit(here, TaskRequest(task="hold a"), TaskRequest(task="b", depends_on=[0]))
        await here.reaches(first, JobStatus.RUNNING)
        await here.manager.cancel(first)
        _, job = await here.over(first, second)
        assert job.error == f"It depends on {first}, which is cancelled."


async def test_answers_of_siblings_are_put_into_the_task(tmp_path: Path):
    async with parts(tmp_path) as here:
        ids = await submit(
            here,
            TaskRequest(task="{{sly}}", key="a"),
            TaskRequest(task="two"),
            TaskRequest(task="<{{results.a}}|{{results.1}}>", depends_on=["a", 1]),
        )
        last = (await here.over(*ids))[-1]
        prompt = await Prompts(here.store, here.settings.tree_limits).compose(last, None)
        assert prompt.text == "<{{sly}}|two>"


async def test_braces_in_a_task_of_its_own_are_text(tmp_path: Path):
    async with parts(tmp_path) as here:
        admission = await here.manager.submit(
            ["Explain {{results.a}}"], client_context=here.client_context, as_root=True
        )
        [job] = await here.over(admission.jobs[0].id)
        prompt = await Prompts(here.store, here.settings.tree_limits).compose(job, None)
        assert prompt.text == "Explain {{results.a}}"


@pytest.mark.parametrize("name", ["zebra", "b", "1", "items.0", "7"])
def test_what_names_no_other_task_is_text(name: str):
    tasks = wanted(("a", [], "x"), ("b", ["a"], f"{{{{results.{name}}}}} of {{{{results.a}}}}"))
    assert resolve(tasks, ["ja", "jb"]) == [(), ("ja",)]


async def test_tasks_are_named_and_wait_through_the_tool(home: Path):
    async with world(home) as here, here.client() as client:
        tasks = [{"task": "stub:say=seed", "key": "a"}, {"task": "stub:say=grown {{results.a}}", "dependsOn": ["a"]}]
        batch = await call_json(client, "claude_run_batch_async", tasks=tasks)
        reply = await call_json(client, "claude_wait", batchId=batch["batchId"])
        assert [(line.get("key"), line["status"]) for line in reply["done"]] == [
            ("a", "completed"),
            (None, "completed"),
        ]
        words = await refusal(client, "claude_run_batch_async", tasks=[{"task": "x", "dependsOn": [3]}])
        assert "tasks[0].dependsOn" in words
        assert await call(client, "claude_recursion_stats", {})


async def test_a_key_that_no_placeholder_could_name_is_refused(home: Path):
    async with world(home) as here, here.client() as client:
        assert "key: 'a b' is not a valid key" in await refusal(
            client, "claude_run_batch_async", tasks=[{"task": "x", "key": "a b"}]
        )
