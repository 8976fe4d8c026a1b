"""Storms of 429, 529 and usage limits: everything slows down or pauses, nothing fails, finished work stays."""

import time
from pathlib import Path

import pytest

from jobs.model import JobStatus, Reason
from server.mcp import statistics as statistics_tools
from tests.support.spending import Shop, shop
from tests.support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

JOBS = 20
IN_FLIGHT = 6


def requests_of(market: Shop) -> list[float]:
    path = market.root / "requests"
    return sorted(map(float, path.read_text().split())) if path.exists() else []


async def test_after_a_usage_limit_only_what_was_in_flight_asks_again_and_all_complete(tmp_path: Path):
    reset = tmp_path / "reset"
    resets_at = time.time() + 4.0
    reset.write_text(str(resets_at))
    async with shop(tmp_path, max_concurrent={0: IN_FLIGHT}) as market:
        [done] = await market.start([market.task()])
        [finished] = await market.engine.over(done.id)
        jobs = await market.start([market.task(reset=reset, requests=tmp_path / "requests")] * JOBS)

        async def is_paused() -> bool:
            return market.engine.throttle.of("").pause is not None

        await until(is_paused)
        first_refusal = requests_of(market)[0]
        statistics = await market.engine.recursion.statistics()
        assert "because the five-hour limit is reached" in statistics_tools.recursion_statistics(statistics)
        over = await market.engine.over(*(each.id for each in jobs))
        early = [at for at in requests_of(market) if first_refusal < at < resets_at]
        print(f"{len(early) + 1} requests before the reset, {len(requests_of(market))} in all, {JOBS} jobs")
        assert len(early) < IN_FLIGHT
        assert {each.status for each in over} == {JobStatus.COMPLETED}
        assert max(each.attempt for each in over) == 2
        assert await market.engine.job(done.id) == finished


async def test_a_limited_job_goes_on_with_its_session(tmp_path: Path):
    async with shop(tmp_path) as market:
        [job] = await market.start([market.task(calls=2, limited=1)])
        [over] = await market.engine.over(job.id)
        attempts = [await market.engine.store.attempt(job.id, number) for number in (1, 2)]
        assert [attempt.reason for attempt in attempts if attempt] == [Reason.OVERLOADED, Reason.COMPLETED]
        assert len({attempt.session_id for attempt in attempts if attempt}) == 1
        assert over.status is JobStatus.COMPLETED


async def test_a_storm_of_overload_narrows_the_window_and_every_job_completes(tmp_path: Path):
    async with shop(tmp_path, max_concurrent={0: JOBS}, max_running=16) as market:
        jobs = await market.start([market.task(calls=2, limited=1)] * JOBS)
        windows: list[int] = []

        async def is_narrowed() -> bool:
            windows.append(market.engine.throttle.window)
            return windows[-1] < 16

        await until(is_narrowed)
        over = await market.engine.over(*(each.id for each in jobs))
        assert {each.status for each in over} == {JobStatus.COMPLETED}
        print(f"window narrowed to {min(windows)}, attempts {sum(each.attempt for each in over)}")


async def test_a_job_whose_every_attempt_meets_the_limit_fails_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jobs.runner.retry_policy.MAX_LIMITED", 2)
    monkeypatch.setattr("jobs.limits.throttle.JITTER_SECONDS", 0.0)
    # Once the clock was moved, the end that the API names is long over.
    monkeypatch.setattr("jobs.limits.throttle.DEFAULT_PAUSE_SECONDS", 0.0)
    (tmp_path / "reset").write_text(str(time.time() + 3600))
    async with shop(tmp_path) as market:
        [job] = await market.start([market.task(reset=tmp_path / "reset")])
        for _ in range(2):
            await market.engine.reaches(job.id, JobStatus.QUEUED)
            market.engine.clock.moved += 4000
        [over] = await market.engine.over(job.id)
        assert (over.status, over.reason, over.attempt) == (JobStatus.FAILED, Reason.USAGE_LIMIT, 3)
