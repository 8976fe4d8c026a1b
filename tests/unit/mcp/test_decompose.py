"""Jobs that answer with subtasks: run below them by the graph, and the session resumed with what came of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.activity import Activity
from jobs.event_bus import JobEventBus
from jobs.model import EXCERPT_LENGTH, TERMINAL, Job, JobStatus, Outcome, Reason
from jobs.ports import Store
from jobs.prompts import decomposition
from jobs.prompts.briefing import Prompts
from jobs.runner.launch_plan import resumable_attempt
from jobs.runner.retry_policy import MAX_SUBTASK_REQUESTS, RetryPolicy
from jobs.settings import Settings
from jobs.spec import JobSpec, TaskRequest
from jobs.store.live import LiveStore
from jobs.waiting_for import WaitingFor
from tests.unit.jobs.support import LONG, Parts, given_up, known, parts

pytestmark = pytest.mark.anyio


class Dividing:
    """Runs jobs without processes: "split a|b" asks for the subtasks a and b, and answers once they are over.

    Args:
        settings: The engine's settings.
        store: Where trees are kept.
        event_bus: Where changes are announced.
    """

    def __init__(self, settings: Settings, store: Store, event_bus: JobEventBus) -> None:
        self.told: dict[tuple[str, int], str] = {}
        self.held = anyio.Event()
        self.running: list[str] = []
        self._store, self._event_bus, self._prompts = store, event_bus, Prompts(store, settings.tree_limits)
        self._retry_policy = RetryPolicy(store, settings.max_depth)

    async def run(self, job_id: str, on_launched: Callable[[], None] = lambda: None) -> Job:
        await self.start(job_id)
        on_launched()
        return await self.result(job_id)

    async def start(self, job_id: str) -> None:
        job = await known(self._store, job_id)
        resumed = await resumable_attempt(self._store, job_id, job.attempt)
        attempt = await self._store.claim(job_id, session_id="s", token_hash=None, at=1.0)
        if attempt is not None:
            self.running.append(job_id)
            self.told[job_id, attempt.number] = (await self._prompts.compose(job, resumed)).text

    async def result(self, job_id: str) -> Job:
        job = await known(self._store, job_id)
        if job.status is not JobStatus.RUNNING:
            return job
        if job.spec.task.startswith("hold"):
            await self.held.wait()
        attempt = await self._store.attempt(job_id, job.attempt)
        assert attempt is not None
        outcome = await self._retry_policy.decide(job, attempt, self._outcome(job))
        settled = await self._store.settle(job_id, job.attempt, outcome, at=2.0)
        self._event_bus.publish(settled)
        return settled

    async def cancel(self, job_id: str) -> None:
        self.held.set()

    def apply_limits(self, path: str) -> None:
        pass

    def end_paused(self) -> None:
        pass

    async def abandon(self, job_id: str, why: str) -> Job:
        return await given_up(self._store, self._event_bus, job_id, why)

    def activity(self, job_id: str) -> Activity | None:
        return None

    def _outcome(self, job: Job) -> Outcome:
        task, again = job.spec.task, job.attempt > 1
        if task.startswith("fail"):
            return Outcome(reason=Reason.MAX_TURNS, status=JobStatus.FAILED, detail="told to")
        verb, _, rest = task.partition(" ")
        if job.spec.can_decompose and (verb == "endless" or (verb == "split" and not again)):
            return _completed({"subtasks": rest.replace(";", "|").split("|") if verb == "endless" else _parts(rest)})
        return _completed({"answer": f"answer to {task}"})


def _parts(rest: str) -> list[str]:
    # "split a|(split b|c)" nests once; "NUL" is a character that no task may hold.
    found, depth, current = [], 0, ""
    for character in rest:
        depth += (character == "(") - (character == ")")
        if character == "|" and not depth:
            found.append(current)
            current = ""
        else:
            current += character
    return [one.strip("()").replace("NUL", "\x00") for one in [*found, current]]


def _completed(structured: Mapping[str, Any]) -> Outcome:
    frame = {"structured_output": structured}
    return Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, result="{}", frame=frame)


class Divided:
    """Parts whose runner divides."""

    def __init__(self, here: Parts) -> None:
        self.here = here
        self.runner: Dividing = here.runner

    async def start(self, task: str) -> Job:
        request = TaskRequest(task=task, can_decompose=True)
        admission = await self.here.manager.submit([request], client_context=self.here.client_context, as_root=True)
        return admission.jobs[0]

    async def over(self, job: Job) -> Job:
        return await self.here.reaches(job.id, *TERMINAL)

    async def below(self, job: Job) -> list[Job]:
        return [one for one in await self.here.store.jobs_under(job.path) if one.id != job.id]


async def answer_of(store: Store, job: Job) -> str | None:
    attempt = await store.attempt(job.id, job.attempt)
    return attempt.result if attempt else None


async def test_a_job_that_needs_no_subtasks_answers_at_once(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("plain"))
        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 1)
        assert await answer_of(here.store, job) == "answer to plain"
        assert await divided.below(job) == []


async def test_subtasks_run_below_the_job_and_it_hears_what_came_of_each(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("split one|fail two"))
        children = await divided.below(job)
        assert [(child.spec.task, child.parent_id, child.depth) for child in children] == [
            ("one", job.id, 1),
            ("fail two", job.id, 1),
        ]
        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
        told = divided.runner.told[job.id, 2]
        assert "answer to one" in told
        assert "Subtask 2 (failed: max_turns" in told
        assert "give `answer`" in told


async def test_subtasks_may_have_subtasks(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("split (split a|b)|c"))
        assert sorted((child.spec.task, child.depth) for child in await divided.below(job)) == [
            ("a", 2),
            ("b", 2),
            ("c", 1),
            ("split a|b", 1),
        ]
        assert {child.status for child in await divided.below(job)} == {JobStatus.COMPLETED}
        assert job.status is JobStatus.COMPLETED


async def test_at_the_deepest_level_nobody_is_asked_to_divide(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing, max_depth=1) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("split (split a|b)"))
        [leaf] = await divided.below(job)
        assert (leaf.depth, leaf.spec.can_decompose, leaf.spec.json_schema) == (1, False, None)
        assert job.status is JobStatus.COMPLETED


async def test_subtasks_over_a_limit_are_refused_and_the_job_does_the_work_itself(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing, max_children=1) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("split a|b"))
        assert await divided.below(job) == []
        assert (job.status, job.attempt) == (JobStatus.COMPLETED, 2)
        assert "refused" in divided.runner.told[job.id, 2]


async def test_a_subtask_that_cannot_be_a_task_is_refused_and_ends_nothing_else(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("split NUL"))
        assert job.status is JobStatus.COMPLETED
        assert await divided.below(job) == []


async def test_a_job_that_divides_without_end_is_stopped(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing, max_depth=1) as here:
        divided = Divided(here)
        job = await divided.over(await divided.start("endless a"))
        assert job.attempt == MAX_SUBTASK_REQUESTS + 1
        assert len(await divided.below(job)) == MAX_SUBTASK_REQUESTS


async def test_a_job_that_waits_for_its_subtasks_can_be_cancelled_with_them(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing) as here:
        divided = Divided(here)
        job = await divided.start("split hold a|b")
        with anyio.fail_after(LONG):
            while len(divided.runner.running) < 3:  # noqa: ASYNC110 - the fake announces nothing
                await anyio.sleep(0.001)
        await here.manager.cancel(job.id)
        assert (await divided.over(job)).status is JobStatus.CANCELLED


class Dying(Dividing):
    """Does so in an engine that is killed at a moment: there it stands still.

    Args:
        at: The moment: a parent has asked for subtasks, a subtask is to be begun, or a parent is to go on.
    """

    def __init__(self, *given: Any, at: str) -> None:
        super().__init__(*given)
        self.dies = anyio.Event()
        self._at = at

    async def start(self, job_id: str) -> None:
        job = await known(self._store, job_id)
        if (self._at == "a subtask begins" and job.parent_id) or (self._at == "the parent goes on" and job.attempt):
            await self._die()
        await super().start(job_id)

    async def result(self, job_id: str) -> Job:
        job = await super().result(job_id)
        if self._at == "the parent has asked" and job.status is JobStatus.QUEUED:
            await self._die()
        return job

    async def _die(self) -> None:
        self.dies.set()
        await anyio.sleep_forever()


async def left_by_an_engine(tmp_path: Path, at: str) -> tuple[Dividing, Job, LiveStore]:
    """The runner, the parent and the store of an engine that was killed at a moment."""
    async with parts(tmp_path, runner=partial(Dying, at=at)) as here:
        job = await Divided(here).start("split a|b")
        with anyio.fail_after(LONG):
            await here.runner.dies.wait()
        job = await here.job(job.id)
    return here.runner, job, here.store


@pytest.mark.parametrize(("at", "known_children"), [("the parent has asked", 0), ("a subtask begins", 2)])
async def test_an_engine_that_ends_in_the_middle_goes_on_and_runs_each_subtask_once(
    tmp_path: Path, at: str, known_children: int
):
    before, job, store = await left_by_an_engine(tmp_path, at)
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 1)
    assert len(await store.jobs_under(job.path)) == 1 + known_children
    async with parts(tmp_path, store=store, runner=Dividing) as here:
        divided = Divided(here)
        await here.manager.resume()
        over = await divided.over(job)
        assert (over.status, over.attempt) == (JobStatus.COMPLETED, 2)
        children = await divided.below(job)
        assert len(children) == 2
        ran = [*before.running, *divided.runner.running]
        assert sorted(ran) == sorted([job.id, job.id, *(child.id for child in children)])


@pytest.mark.parametrize("reason", [Reason.LOST, Reason.STARTUP])
async def test_an_attempt_that_came_to_nothing_neither_divides_anew_nor_loses_what_the_subtasks_said(
    tmp_path: Path, reason: Reason
):
    _, job, store = await left_by_an_engine(tmp_path, "the parent goes on")
    # The next engine is killed before the process that is to hear of them exists.
    await store.claim(job.id, session_id="s", token_hash=None, at=3.0)
    await store.settle(job.id, 2, Outcome(reason=reason, status=JobStatus.QUEUED), at=4.0)
    async with parts(tmp_path, store=store, runner=Dividing) as here:
        divided = Divided(here)
        await here.manager.resume()
        over = await divided.over(job)
        assert (over.status, over.attempt) == (JobStatus.COMPLETED, 3)
        assert len(await divided.below(job)) == 2
        assert "answer to a" in divided.runner.told[job.id, 3]


@pytest.mark.parametrize("length", [EXCERPT_LENGTH - 1, EXCERPT_LENGTH, EXCERPT_LENGTH + 1])
async def test_what_a_subtask_said_is_heard_to_its_last_character(tmp_path: Path, length: int):
    async with parts(tmp_path, runner=Dividing) as here:
        divided = Divided(here)
        task = "long ".ljust(length - len("answer to !"), "x") + "!"
        job = await divided.over(await divided.start(f"split {task}"))
        assert divided.runner.told[job.id, 2].endswith(f"\n\nanswer to {task}")
        assert len(f"answer to {task}") == length


async def test_a_parent_waits_for_its_children_once_more_where_they_are_tried_again_with_it(tmp_path: Path):
    async with parts(tmp_path, runner=Dividing) as here:
        divided, heard = Divided(here), list[WaitingFor | None]()
        job = await divided.start("split fail a|hold b")
        with anyio.fail_after(LONG):
            while len(divided.runner.running) < 3:  # noqa: ASYNC110 - the fake announces nothing
                await anyio.sleep(0.001)
        assert (await known(here.store, job.id)).waiting_for is WaitingFor.CHILDREN
        await here.manager.cancel(job.id)
        assert (await divided.over(job)).waiting_for is None
        for child in await divided.below(job):
            await here.reaches(child.id, *TERMINAL)
        here.event_bus.observe(lambda changed: heard.append(changed.waiting_for) if changed.id == job.id else None)
        again = await here.store.requeue(job.id)
        assert again is not None
        for child in await divided.below(job):
            await here.store.requeue(child.id)
        here.group.start_soon(here.manager.run_batch, [again])
        over = await divided.over(job)
        assert (over.status, over.attempt) == (JobStatus.COMPLETED, 2)
        assert heard[:2] == [WaitingFor.CHILDREN, None]
        assert "answer to hold b" in divided.runner.told[job.id, 2]


def test_an_answer_of_another_shape_is_an_answer():
    frames: tuple[Any, ...] = (None, {}, {"structured_output": []}, {"structured_output": {"subtasks": "x"}})
    for frame in frames:
        assert decomposition.read(frame, "as it stands") == decomposition.Answer("as it stands")
    assert decomposition.read({"structured_output": {"subtasks": [" ", 7]}}, "x") == decomposition.Answer("x")


def test_long_results_are_cut_where_the_session_hears_of_them():
    job = Job(
        seq=1, id="j1", root_id="j0", parent_id="j0", batch_id="b", depth=1, path="j0/j1",
        spec=JobSpec(task="t", cwd="/"), status=JobStatus.COMPLETED,
    )  # fmt: skip
    message = decomposition.results_message([(job, "y" * 20_000)])
    assert len(message) < 9_000
    assert "12000 more characters" in message
