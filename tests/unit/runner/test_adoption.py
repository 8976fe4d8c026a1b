"""A second runner over the same store and directory takes over what the first one left."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.errors import IllegalTransitionError, NotFoundError
from jobs.limits.throttle import Pause
from jobs.model import Job, JobStatus, Reason
from jobs.ports import NewJob, Submission
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.process import Process
from jobs.runner import supervise as supervisor_module
from jobs.runner.runner import LocalRunner
from jobs.spec import JobSpec
from tests.support.waiting import until
from tests.unit.jobs.support import LONG, Parts, admit_anything, parts
from tests.unit.runner.test_runner import answers, attempt_directory, ends, kill_everything, speaks

pytestmark = pytest.mark.anyio

DAY = 86_400.0


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    monkeypatch.setattr(supervisor_module, "TICK", 0.02)
    async with parts(tmp_path, processes=True) as built:
        yield built


class Followed:
    """A job that a runner follows in the background.

    Args:
        runner: The runner.
    """

    def __init__(self, runner: LocalRunner) -> None:
        self._runner = runner
        self._ended: list[Job] = []
        self._over = anyio.Event()
        self.launched = anyio.Event()
        self.scope = anyio.CancelScope()

    async def follow(self) -> None:
        with self.scope:
            self._ended.append(await self._runner.run("j1", self.launched.set))
        self._over.set()

    async def left(self) -> None:
        """Wait until nobody follows it any more, as after the end of an engine."""
        self.scope.cancel()
        await self._over.wait()

    async def result(self) -> Job:
        with anyio.fail_after(LONG):
            await self._over.wait()
        return self._ended[0]


async def begin(engine: Parts, runner: LocalRunner) -> Followed:
    """Have a runner launch the job, or adopt it."""
    followed = Followed(runner)
    engine.group.start_soon(followed.follow)
    with anyio.fail_after(LONG):
        await followed.launched.wait()
    return followed


async def left_running(engine: Parts, task: str, **fields: object) -> Job:
    """A job whose process runs and whom nobody follows, as after the end of an engine."""
    spec = JobSpec(**{"task": task, "cwd": str(engine.work), **fields})  # type: ignore[arg-type]  # a test's own fields
    submission = Submission(batch_id="b1", jobs=[NewJob(id="j1", spec=spec)], as_root=True)
    await engine.store.admit(submission, admit_anything)
    await engine.client_contexts.save("j1", engine.client_context)
    followed = await begin(engine, engine.runner)
    job = await engine.job("j1")
    await followed.left()
    await speaks(attempt_directory(engine, job) / "out")
    return job


async def result(runner: LocalRunner) -> Job:
    with anyio.fail_after(LONG):
        return await runner.run("j1")


async def test_a_running_job_is_adopted_and_settled_once(engine: Parts):
    await left_running(engine, f"stub:wait={engine.work}/go stub:ledger={engine.work}/ledger stub:say=kept")
    second = engine.local_runner()
    followed = await begin(engine, second)
    (engine.work / "go").touch()
    job = await followed.result()
    assert (job.status, job.attempt, job.excerpt) == (JobStatus.COMPLETED, 1, "kept")
    assert (engine.work / "ledger").read_text().count("begin") == 1
    with pytest.raises(IllegalTransitionError):
        await result(engine.runner)
    assert await engine.job("j1") == job


async def test_a_job_that_ended_while_no_engine_ran_is_settled_from_its_files(engine: Parts):
    job = await left_running(engine, "stub:say=early stub:cost=0.5")
    await ends(attempt_directory(engine, job))
    second = engine.local_runner()
    followed = await begin(engine, second)
    ended = await followed.result()
    assert (ended.status, ended.excerpt, ended.usage.cost_usd) == (JobStatus.COMPLETED, "early", 0.5)
    assert not (attempt_directory(engine, job) / "in").exists()


async def test_starting_twice_attaches_and_launches_nothing(engine: Parts):
    await left_running(engine, f"stub:wait={engine.work}/go stub:ledger={engine.work}/ledger")
    followed = await begin(engine, engine.runner)
    (engine.work / "go").touch()
    assert (await followed.result()).attempt == 1
    assert (await result(engine.runner)).status is JobStatus.COMPLETED
    assert (engine.work / "ledger").read_text().count("begin") == 1


@pytest.mark.parametrize("hours", [0, 8])
async def test_a_job_that_vanished_goes_back_in_line_with_its_session(
    engine: Parts, monkeypatch: pytest.MonkeyPatch, hours: int
):
    job = await left_running(engine, f"stub:wait={engine.work}/never")
    directory = AttemptDirectory(attempt_directory(engine, job))
    await answers(directory.path / "out")
    kill_everything(directory.path)

    async def is_gone() -> bool:
        return not directory.lock_held()

    await until(is_gone)
    second = engine.local_runner()
    with monkeypatch.context() as asleep:
        # No engine ran for longer than the job had: that is nothing that it could have used up.
        asleep.setattr(Process, "age", lambda _: 3600.0 * hours)
        asleep.setattr(supervisor_module, "TICK", 1e-6)
        followed = await begin(engine, second)
        lost = await followed.result()
    assert (lost.status, lost.reason, lost.session_id) == (JobStatus.QUEUED, Reason.LOST, job.session_id)
    followed = await begin(engine, second)
    assert (await followed.result()).status is JobStatus.COMPLETED


async def test_a_job_that_was_claimed_long_ago_and_never_launched_runs(engine: Parts, monkeypatch: pytest.MonkeyPatch):
    spec = JobSpec(task="x", cwd=str(engine.work))
    await engine.store.admit(Submission(batch_id="b1", jobs=[NewJob(id="j1", spec=spec)], as_root=True), admit_anything)
    await engine.client_contexts.save("j1", engine.client_context)
    await engine.store.claim("j1", session_id="00000000-0000-4000-8000-000000000001", token_hash="h", at=1.0)
    monkeypatch.setattr(supervisor_module, "TICK", 1e-6)
    second = engine.local_runner()
    followed = await begin(engine, second)
    lost = await followed.result()
    assert (lost.status, lost.reason) == (JobStatus.QUEUED, Reason.LOST)
    assert await engine.store.caller("h") is None
    followed = await begin(engine, second)
    assert (await followed.result()).status is JobStatus.COMPLETED


async def test_a_cancel_that_was_ordered_before_the_engine_ended_is_carried_out_by_the_next(engine: Parts):
    await left_running(engine, f"stub:wait={engine.work}/never")
    await engine.store.cancel_under("j1", at=1.0)
    second = engine.local_runner()
    followed = await begin(engine, second)
    job = await followed.result()
    assert (job.status, job.reason) == (JobStatus.CANCELLED, Reason.CANCELLED)


async def test_the_time_that_an_adopted_job_has_left_is_reckoned_from_the_age_of_its_process(
    engine: Parts, monkeypatch: pytest.MonkeyPatch
):
    await left_running(engine, f"stub:wait={engine.work}/never", timeout_seconds=1000.0)
    monkeypatch.setattr(Process, "age", lambda _: 1001.0)
    second = engine.local_runner()
    followed = await begin(engine, second)
    job = await followed.result()
    assert (job.status, job.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


async def test_the_time_of_day_that_was_set_forward_takes_no_time_from_an_adopted_job(engine: Parts):
    await left_running(engine, f"stub:wait={engine.work}/go", timeout_seconds=1000.0)
    engine.clock.set_by = DAY
    second = engine.local_runner()
    followed = await begin(engine, second)
    (engine.work / "go").touch()
    assert (await followed.result()).status is JobStatus.COMPLETED


@pytest.mark.parametrize("age", [0.0, None])
async def test_the_time_of_day_that_was_set_back_gives_an_adopted_job_no_more_time_than_it_had(
    engine: Parts, monkeypatch: pytest.MonkeyPatch, age: float | None
):
    await left_running(engine, f"stub:wait={engine.work}/never", timeout_seconds=1000.0)
    monkeypatch.setattr(Process, "age", lambda _: age)
    engine.clock.set_by = -DAY
    second = engine.local_runner()
    followed = await begin(engine, second)
    engine.clock.moved = 1001.0
    job = await followed.result()
    assert (job.status, job.reason) == (JobStatus.TIMEOUT, Reason.DEADLINE)


async def test_an_unknown_job_is_not_found_and_its_cancel_does_nothing(engine: Parts):
    await engine.runner.cancel("j-none")
    with pytest.raises(NotFoundError):
        await engine.runner.run("j-none")


async def test_the_transcript_is_the_last_attempts_output(engine: Parts):
    job = await left_running(engine, "x")
    path = Path(engine.runner.transcript(job))
    assert path == attempt_directory(engine, job) / "out"
    await ends(path.parent)
    assert b'"type"' in path.read_bytes()
    await result(engine.runner)


BUSY = {"type": "system", "subtype": "api_retry", "error_status": 529}


def limit(resets_at: float | None) -> dict[str, Any]:
    info = {"status": "rejected", "rateLimitType": "five_hour"} | ({} if resets_at is None else {"resetsAt": resets_at})
    return {"type": "rate_limit_event", "rate_limit_info": info}


@pytest.mark.parametrize(
    ("frame", "paused"),
    [
        pytest.param(BUSY, False, id="busy"),
        pytest.param(limit(None), False, id="a-limit-that-does-not-say-when-it-ends"),
        pytest.param(limit(1.0), False, id="a-limit-that-is-over"),
        pytest.param(limit(time.time() + 3600), True, id="a-limit-that-holds"),
    ],
)
async def test_what_was_written_before_an_adoption_slows_nothing_down_again_unless_it_still_holds(
    engine: Parts, frame: dict[str, Any], paused: bool
):
    job = await left_running(engine, f"stub:wait={engine.work}/go")
    directory = attempt_directory(engine, job)
    await answers(directory / "out")
    with (directory / "out").open("a") as output:
        output.write(json.dumps(frame) + "\n")
    pauses: list[Pause | None] = []
    engine.throttle.observe(lambda: pauses.append(engine.throttle.of("").pause))
    second = engine.local_runner()
    followed = await begin(engine, second)
    (engine.work / "go").touch()
    assert (await followed.result()).status is JobStatus.COMPLETED
    # Its own success then lifts the limit.
    assert [pause is not None for pause in pauses] == ([True, False] if paused else [])
    assert engine.throttle.window == engine.settings.max_running


async def test_what_is_written_after_an_adoption_slows_down(engine: Parts):
    job = await left_running(engine, f"stub:wait={engine.work}/go")
    directory = attempt_directory(engine, job)
    await answers(directory / "out")
    second = engine.local_runner()
    followed = await begin(engine, second)
    with (directory / "out").open("a") as output:
        output.write(json.dumps(BUSY) + "\n")
    (engine.work / "go").touch()
    assert (await followed.result()).status is JobStatus.COMPLETED
    assert engine.throttle.window < engine.settings.max_running
