"""An engine over either store against one model: clients submit, jobs end and are cancelled, and the engine crashes."""

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobs.errors import EngineStoppingError
from jobs.model import TERMINAL, Job, JobStatus
from jobs.store.memory import MemoryStore
from jobs.store.sqlite import SqliteStore
from tests.support.long_form import LONG
from tests.support.waiting import until
from tests.unit.jobs.support import Parts, parts

MAX_RUNNING = 3
SLOTS = {0: 1, 1: 2, 2: 1}
MAX_DEPTH = 3
MOST_JOBS = 25
SECONDS = 10.0
"""Within which an engine comes to rest; it takes milliseconds."""

picks = st.integers(0, 10_000)
batches = st.lists(st.sampled_from(["hold", "hold", "fail"]), min_size=1, max_size=3)


@dataclass(eq=False)
class Known:
    """What the model knows of a job.

    Args:
        id: Its id.
        parent: The job that spawned it.
        task: What it is told: "hold" runs until it is let go, "fail" fails at once.
        over: How it ended, or None.
    """

    id: str
    parent: "Known | None"
    task: str
    over: JobStatus | None = None

    @property
    def depth(self) -> int:
        return 1 if self.parent is None else self.parent.depth + 1

    def is_below(self, other: "Known") -> bool:
        return self is other or (self.parent is not None and self.parent.is_below(other))

    def allows(self, status: JobStatus) -> bool:
        if self.over is not None:
            return status is self.over
        return status in {JobStatus.QUEUED, JobStatus.RUNNING} or (self.task, status) == ("fail", JobStatus.FAILED)


class Life:
    """Engines one after the other over one store.

    Args:
        base: An empty directory.
        memory: The store, or None for one in the directory.
    """

    def __init__(self, base: Path, memory: MemoryStore | None) -> None:
        self.engine: Parts
        self._earlier: Counter[str] = Counter()
        self._base = base
        self._memory = memory
        self._number = 0

    @property
    def starts(self) -> Counter[str]:
        return self._earlier + Counter(self.engine.runner.started)

    async def begin(self) -> None:
        """Start an engine with what an earlier one left."""
        self._end, self._begun = asyncio.Event(), asyncio.Event()
        self._task = asyncio.ensure_future(self._live())
        begun = asyncio.ensure_future(self._begun.wait())
        await asyncio.wait([self._task, begun], return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if self._task.done():
            await self._task

    async def crash(self, *dying: "asyncio.Task[Any]") -> None:
        """Drop everything that is only in memory, and go on with the files as they were before anything was closed."""
        number = self._number + 1
        if self._memory is None:
            (self._base / str(number)).mkdir()
            for name in ("jobs.db", "jobs.db-wal"):
                shutil.copyfile(self._base / str(self._number) / name, self._base / str(number) / name)
        for task in dying:
            task.cancel()
        await self.end()
        if dying:
            # What is in the middle of a write may finish it; nothing of the dead engine does anything later.
            await asyncio.wait(dying)
        self._number = number
        await self.begin()

    async def end(self) -> None:
        # A dead engine gives no slot to anybody, though its tasks are cancelled here one after the other.
        self.engine.manager.stop_admitting()
        self._end.set()
        await self._task
        self._earlier.update(self.engine.runner.started)

    async def _live(self) -> None:
        limits: dict[str, Any] = {"max_running": MAX_RUNNING, "max_concurrent": SLOTS, "max_depth": MAX_DEPTH}
        async with AsyncExitStack() as stack:
            store: Any = self._memory
            if store is None:
                home = self._base / str(self._number)
                home.mkdir(exist_ok=True)
                store = await stack.enter_async_context(SqliteStore.open(home / "jobs.db"))
            self.engine = await stack.enter_async_context(parts(self._base, store=store, **limits))
            await self.engine.manager.resume()
            self._begun.set()
            await self._end.wait()


class EngineMachine(RuleBasedStateMachine):
    """Compares the store with the model whenever the engine is at rest."""

    memory = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.known: list[Known] = []
        self.keys = 0
        self.life = Life(Path(self.directory.name), MemoryStore() if self.memory else None)
        self.runner.run(self.life.begin())

    def teardown(self) -> None:
        """Let every job end, and look at every outcome."""
        try:
            while running := self.those(JobStatus.RUNNING):
                self.release(running[0])
                self.the_store_says_what_the_model_allows()
            assert all(one.over is not None for one in self.known), "jobs are left and none of them runs"
            self.runner.run(self.check_outcomes())
        finally:
            self.runner.run(self.life.end())
            self.runner.close()
            self.directory.cleanup()

    @rule(tasks=batches, pick=st.none() | picks)
    def submit(self, tasks: list[str], pick: int | None) -> None:
        parents = [one for one in self.those(JobStatus.RUNNING) if one.depth < MAX_DEPTH]
        parent = None if pick is None or not parents else parents[pick % len(parents)]
        self.add(tasks, parent, self.ask)

    @rule(tasks=batches, turns=st.integers(0, 60))
    def submit_into_a_crash(self, tasks: list[str], turns: int) -> None:
        """The engine dies somewhere in a submission; the client repeats it before the next one."""

        async def ask_twice(tasks: list[str], parent: Known | None) -> list[str]:
            async def try_to_ask() -> None:
                with suppress(EngineStoppingError):
                    await self.ask(tasks, parent)

            first = asyncio.ensure_future(try_to_ask())
            for _ in range(turns):
                await asyncio.sleep(0)
            await self.life.crash(first)
            return await self.ask(tasks, parent)

        self.add(tasks, None, ask_twice)

    @rule(pick=picks)
    def let_go(self, pick: int) -> None:
        running = self.those(JobStatus.RUNNING)
        if running:
            self.release(running[pick % len(running)])

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        live = [one for one in self.known if one.over is None]
        if live:
            chosen = live[pick % len(live)]
            below = [one for one in live if one.is_below(chosen)]
            self.runner.run(self.cancel_of(chosen, below))
            for one in below:
                one.over = JobStatus.CANCELLED

    @rule()
    def crash(self) -> None:
        self.runner.run(self.life.crash())

    @rule(pick=picks, turns=st.integers(0, 60))
    def crash_as_a_job_ends(self, pick: int, turns: int) -> None:
        """The engine dies somewhere in writing an outcome: it is there, or the next engine finds the job running."""
        running = self.those(JobStatus.RUNNING)
        if running:
            chosen = running[pick % len(running)]
            self.runner.run(self.release_into_a_crash(chosen, turns))
            chosen.over = JobStatus.COMPLETED if chosen in self.those(JobStatus.COMPLETED) else None

    @invariant()
    def the_store_says_what_the_model_allows(self) -> None:
        self.runner.run(until(self.is_at_rest, SECONDS))
        self.runner.run(self.check())

    async def is_at_rest(self) -> bool:
        """Whether every job is queued or runs, and none is queued that may run."""
        jobs = await self.jobs()
        queued = [job for job in jobs if job.status is JobStatus.QUEUED]
        running = at_depth(jobs)
        room = sum(running.values()) < MAX_RUNNING
        idle = [job for job in queued if room and running[job.root_id, job.depth] < slots(job.depth)]
        instant = [one for one, job in zip(self.known, jobs, strict=True) if one.task == "fail" and is_running(job)]
        return not idle and not instant and self.life.engine.scheduler.waiting() == len(queued)

    async def check(self) -> None:
        jobs = await self.jobs()
        for one, job in zip(self.known, jobs, strict=True):
            if one.over is None and one.task == "fail" and job.status is JobStatus.FAILED:
                one.over = JobStatus.FAILED
            assert one.allows(job.status), f"{one} is {job.status}"
        running = at_depth(jobs)
        assert sum(running.values()) <= MAX_RUNNING
        assert all(count <= slots(depth) for (_, depth), count in running.items())
        starts = self.life.starts
        # One that was claimed just before a crash and did not come to be started is adopted: it has no process here.
        assert not [job for job in jobs if not starts[job.id] <= job.attempt <= 1], f"started: {starts}"

    async def check_outcomes(self) -> None:
        store = self.life.engine.store
        assert await store.unfinished() == []
        assert {job.id for job in await store.newest_jobs(limit=1000)} == {one.id for one in self.known}
        for one, job in zip(self.known, await self.jobs(), strict=True):
            if one.over is JobStatus.COMPLETED:
                assert job.excerpt == one.task

    def add(self, tasks: list[str], parent: Known | None, ask: Any) -> None:
        if len(self.known) + len(tasks) <= MOST_JOBS:
            self.keys += 1
            ids = self.runner.run(ask(tasks, parent))
            self.known += [Known(id=id_, parent=parent, task=task) for id_, task in zip(ids, tasks, strict=True)]

    async def ask(self, tasks: list[str], parent: Known | None) -> list[str]:
        engine = self.life.engine
        above, key = None if parent is None else parent.id, f"k{self.keys}"
        admission = await engine.manager.submit(tasks, above, client_context=engine.client_context, idempotency_key=key)
        return [job.id for job in admission.jobs]

    def release(self, one: Known) -> None:
        async def is_over() -> bool:
            return (await self.life.engine.job(one.id)).status is not JobStatus.RUNNING

        self.life.engine.runner.release(one.id)
        self.runner.run(until(is_over, SECONDS))
        one.over = JobStatus.COMPLETED

    async def release_into_a_crash(self, one: Known, turns: int) -> None:
        self.life.engine.runner.release(one.id)
        for _ in range(turns):
            await asyncio.sleep(0)
        await self.life.crash()

    async def cancel_of(self, one: Known, below: list[Known]) -> None:
        async def are_over() -> bool:
            return all([(await self.life.engine.job(each.id)).status in TERMINAL for each in below])

        await self.life.engine.manager.cancel(one.id)
        await until(are_over, SECONDS)

    async def jobs(self) -> list[Job]:
        return [await self.life.engine.job(one.id) for one in self.known]

    def those(self, status: JobStatus) -> list[Known]:
        jobs = self.runner.run(self.jobs())
        return [one for one, job in zip(self.known, jobs, strict=True) if job.status is status]


def slots(depth: int) -> int:
    return SLOTS.get(depth, SLOTS[max(SLOTS)])


def is_running(job: Job) -> bool:
    return job.status is JobStatus.RUNNING


def at_depth(jobs: list[Job]) -> Counter[tuple[str, int]]:
    return Counter((job.root_id, job.depth) for job in jobs if is_running(job))


class MemoryEngineMachine(EngineMachine):
    memory = True


EngineMachine.TestCase.settings = MemoryEngineMachine.TestCase.settings = settings(
    max_examples=200 if LONG else 8, stateful_step_count=25, deadline=None
)
test_an_engine_over_sqlite_keeps_to_the_model_through_every_crash = EngineMachine.TestCase
test_an_engine_over_memory_keeps_to_the_model_through_every_crash = MemoryEngineMachine.TestCase
