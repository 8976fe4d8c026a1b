"""Budgets, rate limits and lingering processes with the real binary, answered by a script."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.client_context import ClientContext
from jobs.model import Job, JobStatus, Reason
from jobs.ports import NewLimits
from jobs.spec import TaskRequest
from jobs.validation import TreeBounds
from server.demo.environment import DUMMY_KEY, isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.script import Story
from tests.e2e.support import SYSTEM_PATH
from tests.support.waiting import until
from tests.unit.jobs.support import Parts, parts

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

Serve = Callable[[Story], ScriptedApi]
READ = {"name": "Read", "input": {"file_path": "/etc/hostname"}}
CALL = {"input_tokens": 100_000, "output_tokens": 10_000}
PRICE = 0.3
"""US dollars of such a call to claude-sonnet-5-5."""


def story(*turns: dict[str, Any]) -> Story:
    return Story.model_validate({"default": "x", "roles": {"x": turns}})


class Bench:
    """Runs jobs with the real binary.

    Args:
        engine: The parts.
        api: What answers.
        home: The client's home.
    """

    def __init__(self, engine: Parts, api: ScriptedApi, home: Path) -> None:
        self.engine, self.api, self.home = engine, api, home
        self.env = isolated_environment(home, api.url, path=SYSTEM_PATH)

    async def start(self, *requests: TaskRequest, usd: float | None = None) -> list[str]:
        client_context = ClientContext(cwd=str(self.engine.work), env=self.env, client="a client")
        admission = await self.engine.manager.submit(
            requests, client_context=client_context, bounds=TreeBounds(usd=usd)
        )
        return [job.id for job in admission.jobs]

    async def asked(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.api.requests) >= count

        await until(enough, 60.0)

    async def over(self, *job_ids: str) -> list[Job]:
        async def all_over() -> bool:
            return all([(await self.engine.job(job_id)).ended_at is not None for job_id in job_ids])

        await until(all_over, 90.0)
        return [await self.engine.job(job_id) for job_id in job_ids]


@asynccontextmanager
async def bench(tmp_path: Path, cli: Path, api: ScriptedApi, **settings: Any) -> AsyncIterator[Bench]:
    home = tmp_path / "client"
    home.mkdir()
    async with parts(tmp_path, processes=True, cli=cli, grace_seconds=2.0, **settings) as engine:

        async def poke() -> None:
            await until(_never(engine), 3600.0)

        engine.group.start_soon(poke)
        yield Bench(engine, api, home)


def _never(engine: Parts) -> Callable[[], Any]:
    async def poked() -> bool:
        engine.scheduler.reschedule()
        return False

    return poked


def sonnet(**fields: Any) -> TaskRequest:
    return TaskRequest(task="Go on.", model="sonnet", **fields)


async def test_a_killed_process_is_billed_for_what_it_streamed(claude_cli: Path, scripted: Serve, tmp_path: Path):
    turns = [{"text": "On.", "tool_calls": [READ], "usage": CALL}] * 2
    api = scripted(story(*turns, {"text": "Late.", "delay": 60}))
    async with bench(tmp_path, claude_cli, api) as stand:
        [job_id] = await stand.start(sonnet())
        await stand.asked(3)
        await stand.engine.manager.cancel(job_id)
        [over] = await stand.over(job_id)
        assert over.status is JobStatus.CANCELLED
        assert over.usage.cost_usd == pytest.approx(2 * PRICE)


async def test_a_trees_budget_ends_its_jobs_at_most_one_call_each_too_late(
    claude_cli: Path, scripted: Serve, tmp_path: Path
):
    api = scripted(story(*[{"text": "On.", "tool_calls": [READ], "usage": CALL, "delay": 2.0}] * 50))
    async with bench(tmp_path, claude_cli, api) as stand:
        over = await stand.over(*await stand.start(sonnet(), sonnet(), usd=4.5 * PRICE))
        spent = sum(job.usage.cost_usd for job in over)
        print(f"budget {4.5 * PRICE:.2f} USD, spent {spent:.2f} USD, {len(api.requests)} calls")
        assert {job.reason for job in over} == {Reason.BUDGET_EXHAUSTED}
        assert 4.5 * PRICE <= spent <= (4.5 + 2) * PRICE
        assert len(api.requests) <= 5 + 2


async def test_a_budget_that_is_raised_while_a_job_runs_is_used_by_it_at_once(
    claude_cli: Path, scripted: Serve, tmp_path: Path
):
    turns = [{"text": "On.", "tool_calls": [READ], "usage": CALL, "delay": 0.5}] * 4
    api = scripted(story(*turns, {"text": "Done.", "usage": CALL}))
    async with bench(tmp_path, claude_cli, api) as stand:
        [job_id] = await stand.start(sonnet(max_budget_usd=1.5 * PRICE))
        await stand.asked(1)
        raised = NewLimits(budget_usd=50 * PRICE)
        await stand.engine.store.set_limits(job_id, raised, at=time.time())
        stand.engine.runner.apply_limits((await stand.engine.job(job_id)).path)
        [over] = await stand.over(job_id)
        first = await stand.engine.store.attempt(job_id, 1)
        assert first is not None
        # Its process was started with the smaller budget and ended itself by it.
        assert (first.reason, first.status) == (Reason.BUDGET_EXHAUSTED, JobStatus.QUEUED)
        assert (over.status, over.attempt) == (JobStatus.COMPLETED, 2)


async def test_an_overloaded_job_is_resumed_and_billed_once(claude_cli: Path, scripted: Serve, tmp_path: Path):
    error = {"status": 529, "message": "Overloaded", "times": 4}
    api = scripted(
        story({"text": "On.", "tool_calls": [READ], "usage": CALL}, {"text": "Done.", "usage": CALL, "error": error})
    )
    async with bench(tmp_path, claude_cli, api) as stand:
        [over] = await stand.over(*await stand.start(sonnet()))
        first = await stand.engine.store.attempt(over.id, 1)
        assert first is not None
        assert (first.reason, over.status) == (Reason.OVERLOADED, JobStatus.COMPLETED)
        # The resumed conversation begins with the words that it was paused, after the call that was answered.
        answered = len(api.requests) - 4
        assert over.usage.cost_usd == pytest.approx(answered * PRICE)


async def test_after_a_usage_limit_real_children_ask_no_more_and_complete_when_it_ends(
    claude_cli: Path, scripted: Serve, tmp_path: Path
):
    resets_at = int(time.time()) + 9
    limit = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(resets_at),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    error = {"status": 429, "message": "limit", "times": 1, "headers": limit}
    api = scripted(story({"text": "Done.", "error": error}))
    async with bench(tmp_path, claude_cli, api, max_concurrent={0: 2}) as stand:
        # A subscription's limit is reported by an event; with an API key the CLI tries again.
        stand.env["CLAUDE_CODE_OAUTH_TOKEN"] = stand.env.pop("ANTHROPIC_API_KEY")
        assert stand.env["CLAUDE_CODE_OAUTH_TOKEN"] == DUMMY_KEY
        jobs = await stand.start(*[sonnet()] * 4)

        async def is_paused() -> bool:
            return stand.engine.throttle.of("").pause is not None

        await until(is_paused, 60.0)
        assert len(api.requests) <= 2
        # The two that had not been launched meet a limit of their own, in sessions of their own, after the reset.
        over = await stand.over(*jobs)
        assert {job.status for job in over} == {JobStatus.COMPLETED}
        print(f"{len(api.requests)} requests, attempts {[job.attempt for job in over]}")


async def test_a_process_that_waits_for_a_background_command_after_its_answer_is_ended_and_its_answer_kept(
    claude_cli: Path, scripted: Serve, tmp_path: Path
):
    command = {"command": "sleep 60", "run_in_background": True}
    api = scripted(story({"text": "", "tool_calls": [{"name": "Bash", "input": command}]}, {"text": "Answer."}))
    async with bench(tmp_path, claude_cli, api, silence_seconds=4.0, linger_seconds=2.0) as stand:
        [over] = await stand.over(*await stand.start(sonnet(allowed_tools=("Bash",))))
        assert over.status is JobStatus.COMPLETED
        assert over.excerpt == "Answer."
