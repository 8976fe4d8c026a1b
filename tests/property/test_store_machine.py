"""Two stores that are told the same must answer the same, whatever they are told and in whatever order."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobs.errors import JobsError, RecursionLimitError, StoreError
from jobs.model import JobEvent, JobSpec, JobStatus, Outcome, Reason, Usage
from jobs.ports import NewJob, Store, Submission
from jobs.store.memory import MemoryStore
from jobs.store.sqlite import SqliteStore
from orchestration.limits import TreeLimits

LIMITS = TreeLimits(max_depth=3, max_children=4, max_nodes=7)
EVERYTHING = 10_000

# Few names, so that operations meet; "-" and "0" sort on either side of the path's "/".
job_ids = st.sampled_from([f"{stem}{tail}" for stem in ("j1", "j2", "j3", "j4") for tail in ("", "-", "0")])
batch_ids = st.sampled_from([f"b{number}" for number in range(8)])
paths = st.lists(job_ids | batch_ids, min_size=1, max_size=3).map("/".join)
times = st.integers(0, 100).map(float)
texts = st.text(max_size=5) | st.sampled_from(["", "\ud800", "x" * 501])
tokens = st.none() | st.sampled_from(["t1", "t2", "t3"])
offsets = st.integers(0, 30)
numbers = st.integers(0, 3)
# Quarters add up without rounding, so the order of a sum does not show.
usages = st.builds(
    Usage,
    cost_usd=st.integers(0, 8).map(lambda quarters: quarters / 4),
    input_tokens=offsets,
    output_tokens=offsets,
    turns=numbers,
)
outcomes = st.builds(
    Outcome,
    reason=st.sampled_from(Reason),
    status=st.sampled_from(JobStatus),
    detail=texts,
    result=st.none() | texts,
    frame=st.none() | st.fixed_dictionaries({"type": texts}),
    usage=usages,
    exit_code=st.none() | numbers,
)


async def _answer(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except StoreError as error:
        return ("StoreError", error.operation)  # the two word its cause differently
    except (JobsError, RecursionLimitError) as error:
        return (type(error).__name__, str(error))


class StoreMachine(RuleBasedStateMachine):
    """Drives both stores and compares every answer."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        opening = self._stack.enter_async_context(SqliteStore.open(Path(directory, "jobs.db")))
        self._stores: tuple[Store, Store] = (self._runner.run(opening), MemoryStore())

    def teardown(self) -> None:
        try:
            self._compare_every_read()
        finally:
            self._runner.run(self._stack.aclose())
            self._runner.close()

    def _both(self, ask: Callable[[Store], Awaitable[Any]]) -> Any:
        first, second = (self._runner.run(_answer(ask(store))) for store in self._stores)
        assert first == second
        return first

    @rule(
        batch_id=batch_ids,
        ids=st.lists(job_ids, min_size=1, max_size=3),
        parent_id=st.none() | job_ids,
        single=st.booleans(),
        key=st.none() | st.sampled_from(["", "k"]),
        at=times,
    )
    def admit(
        self, batch_id: str, ids: list[str], parent_id: str | None, single: bool, key: str | None, at: float
    ) -> None:
        jobs = [NewJob(id=id_, spec=JobSpec(task=f"at {at}", cwd="/srv")) for id_ in ids]
        submission = Submission(
            batch_id=batch_id,
            jobs=jobs[:1] if single else jobs,
            parent_id=parent_id,
            single=single,
            caller=parent_id or "",
            idempotency_key=key,
            at=at,
        )
        self._both(lambda store: store.admit(submission, LIMITS.check))

    @rule(job_id=job_ids, token_hash=tokens, at=times)
    def claim(self, job_id: str, token_hash: str | None, at: float) -> None:
        self._both(lambda store: store.claim(job_id, session_id=f"s{at}", token_hash=token_hash, at=at))

    @rule(token_hash=tokens, at=times)
    def claim_whatever_waits(self, token_hash: str | None, at: float) -> None:
        for job in self._both(lambda store: store.unfinished())[:2]:
            self.claim(job.id, token_hash, at)

    @rule(job_id=job_ids, attempt=numbers, pid=offsets)
    def launch(self, job_id: str, attempt: int, pid: int) -> None:
        self._both(lambda store: store.record_launch(job_id, attempt, pid=pid, pid_start=0.5))

    @rule(job_id=job_ids, attempt=numbers, at=st.lists(offsets, max_size=4), text=texts, offset=offsets)
    def ingest(self, job_id: str, attempt: int, at: list[int], text: str, offset: int) -> None:
        events = [
            JobEvent(job_id=job_id, attempt=attempt, offset=start, at=1.0, kind="assistant", text=text) for start in at
        ]
        self._both(lambda store: store.record_events(job_id, attempt, events, offset))

    @rule(job_id=job_ids, attempt=numbers, outcome=outcomes, at=times)
    def settle(self, job_id: str, attempt: int, outcome: Outcome, at: float) -> None:
        self._both(lambda store: store.settle(job_id, attempt, outcome, at=at))

    @rule(outcome=outcomes, at=times)
    def settle_whatever_runs(self, outcome: Outcome, at: float) -> None:
        for job in self._both(lambda store: store.unfinished())[:2]:
            self.settle(job.id, job.attempt, outcome, at)

    @rule(job_id=job_ids, outcome=outcomes, at=times)
    def fail_queued(self, job_id: str, outcome: Outcome, at: float) -> None:
        self._both(lambda store: store.fail_queued(job_id, outcome, at=at))

    @rule(path=paths, at=times)
    def cancel_anywhere(self, path: str, at: float) -> None:
        self._both(lambda store: store.cancel_under(path, at=at))

    @rule(which=numbers, at=times)
    def cancel_a_subtree(self, which: int, at: float) -> None:
        for job in self._both(lambda store: store.newest_jobs(limit=4))[which : which + 1]:
            self._both(lambda store: store.cancel_under(job.path, at=at))

    @rule(job_id=job_ids, at=times)
    def requeue(self, job_id: str, at: float) -> None:
        self._both(lambda store: store.requeue(job_id, at=at))

    @rule(path=paths, limit=numbers, before=offsets, after=st.tuples(numbers, offsets))
    def page(self, path: str, limit: int, before: int, after: tuple[int, int]) -> None:
        self._both(lambda store: store.jobs_under(path))
        self._both(lambda store: store.rollup_under(path))
        self._both(lambda store: store.newest_jobs(limit=limit, before_seq=before))
        self._both(lambda store: store.events(path, after=after, limit=limit))

    @invariant()
    def the_same_jobs_stand_in_both(self) -> None:
        self._both(lambda store: store.newest_jobs(limit=EVERYTHING))

    def _compare_every_read(self) -> None:
        jobs = self._both(lambda store: store.newest_jobs(limit=EVERYTHING))
        self._both(lambda store: store.unfinished())
        self._both(lambda store: store.jobs([job.id for job in jobs]))
        for token in ("t1", "t2", "t3"):
            self._both(lambda store, token=token: store.caller(token))
        for job in jobs:
            self._compare_reads_of(job.id, job.path)
            for number in range(job.attempt + 1):
                self._both(lambda store, id_=job.id, number=number: store.attempt(id_, number))
        for id_ in {job.batch_id for job in jobs} | {job.root_id for job in jobs}:
            self._compare_reads_of(id_, id_)

    def _compare_reads_of(self, id_: str, path: str) -> None:
        self._both(lambda store: store.job(id_))
        self._both(lambda store: store.events(id_))
        self._both(lambda store: store.batch(id_))
        self._both(lambda store: store.tree(id_))
        self._both(lambda store: store.jobs_in_batch(id_))
        self._both(lambda store: store.rollup_batch(id_))
        self._both(lambda store: store.jobs_under(path))
        self._both(lambda store: store.rollup_under(path))


TestStores = StoreMachine.TestCase
TestStores.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
