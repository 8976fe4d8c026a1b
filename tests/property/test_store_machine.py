"""Two stores, and the memory in front of one, that are told the same must answer the same, whatever that is."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.errors import JobsError, StoreError
from jobs.model import Job, JobStatus, Outcome, Reason, Usage
from jobs.ports import NewJob, Store, Submission
from jobs.spec import JobSpec
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from jobs.store.sqlite import SqliteStore
from jobs.waiting_for import WaitingFor
from orchestration.limits import RecursionLimitError, TreeLimits
from tests.support.long_form import LONG

# Thirty runs of forty steps took more than two minutes while other work had both cores.
pytestmark = pytest.mark.timeout(900)

LIMITS = TreeLimits(max_depth=3, max_children=4, max_nodes=7)
EVERYTHING = 10_000
NOBODY = 12

# Siblings whose names differ in their ends only: "-" and "0" sort on either side of the path's "/".
tails = st.lists(st.sampled_from(["", "-", "0"]), min_size=1, max_size=3)
picks = st.integers(0, NOBODY)
shifts = st.sampled_from([0, 0, 0, 0, -1, 1])
times = st.integers(0, 100).map(float)
texts = st.text(max_size=5) | st.sampled_from(["", "\ud800", "x" * 501])
tokens = st.none() | st.sampled_from(["t1", "t2", "t3"])
offsets = st.integers(0, 9)
numbers = st.integers(0, 3)
# Quarters add up without rounding, so the order of a sum does not show.
usages = st.builds(
    Usage,
    cost_usd=st.integers(0, 8).map(lambda quarters: quarters / 4),
    input_tokens=offsets,
    output_tokens=offsets,
    turns=numbers,
)
waits = st.sampled_from([None, WaitingFor.SIBLINGS, WaitingFor.CHILDREN, WaitingFor.PERMISSION])
outcomes = st.builds(
    Outcome,
    reason=st.sampled_from(Reason),
    status=st.sampled_from([*JobStatus, JobStatus.QUEUED, JobStatus.QUEUED]),
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
        self._number = 0
        self._newest: Sequence[Job] = []
        self._runner = asyncio.Runner()
        self._directory = tempfile.TemporaryDirectory()
        self._opened = 0
        self._memory = MemoryStore()
        self._open(Path(self._directory.name, "0"))

    def teardown(self) -> None:
        try:
            self._compare_every_read()
        finally:
            self._runner.run(self._stack.aclose())
            self._runner.close()
            self._directory.cleanup()

    def _open(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        self._stack = AsyncExitStack()
        opening = self._stack.enter_async_context(SqliteStore.open(home / "jobs.db"))
        self._home, self._database = home, self._runner.run(opening)
        self._stores = (self._runner.run(LiveStore.over(self._database)), self._memory)

    def _both(self, ask: Callable[[Store], Awaitable[Any]]) -> Any:
        first, second = (self._runner.run(_answer(ask(store))) for store in self._stores)
        assert first == second
        return first

    def _all(self, ask: Callable[[Store], Awaitable[Any]]) -> Any:
        """Ask the database too, which must say what the memory in front of it says."""
        answer = self._both(ask)
        assert self._runner.run(_answer(ask(self._database))) == answer
        return answer

    def _pick(self, which: int) -> tuple[str, str, int]:
        """Return id, path and attempt of one of the newest jobs, or of nobody."""
        if which == NOBODY:
            return "nobody", "nobody", 1
        job = self._newest[which % len(self._newest)]
        return job.id, job.path, job.attempt

    @initialize()
    def begin(self) -> None:
        """Plant a tree in which something runs, so that even a short sequence meets every state."""
        self.admit(["", "-", "0"], None, as_root=False, known=False, key="k", at=1.0)
        self.the_same_jobs_stand_in_both()
        self.claim(2, "t1", 2.0)
        self.admit(["", "0"], 2, as_root=False, known=False, key=None, at=3.0)
        self.the_same_jobs_stand_in_both()

    @rule(which=picks, outcome=outcomes, token_hash=tokens, at=times)
    def run(self, which: int, outcome: Outcome, token_hash: str | None, at: float) -> None:
        """Take a job through a whole attempt."""
        self.claim(which, token_hash, at)
        self.the_same_jobs_stand_in_both()
        self.settle(which, 0, outcome, at)

    @rule(
        tails=tails,
        below=st.none() | picks,
        as_root=st.booleans(),
        known=st.sampled_from([False] * 9 + [True]),
        key=st.sampled_from([None, None, None, "", "k"]),
        at=times,
    )
    def admit(
        self, tails: list[str], below: int | None, as_root: bool, known: bool, key: str | None, at: float
    ) -> None:
        self._number += not known
        jobs = [NewJob(id=f"j{self._number}{tail}", spec=JobSpec(task=f"at {at}", cwd="/srv")) for tail in tails]
        parent_id = None if below is None else self._pick(below)[0]
        submission = Submission(
            batch_id=f"b{self._number}",
            jobs=jobs[:1] if as_root else jobs,
            parent_id=parent_id,
            as_root=as_root,
            idempotency_scope=parent_id or "",
            idempotency_key=key,
            at=at,
        )
        self._both(lambda store: store.admit(submission, lambda facts: LIMITS.check(facts.spawn)))

    @rule(which=picks, token_hash=tokens, at=times)
    def claim(self, which: int, token_hash: str | None, at: float) -> None:
        job_id, _, _ = self._pick(which)
        self._both(lambda store: store.claim(job_id, session_id=f"s{at}", token_hash=token_hash, at=at))

    @rule(which=picks, shift=shifts, pid=offsets)
    def launch(self, which: int, shift: int, pid: int) -> None:
        job_id, _, attempt = self._pick(which)
        self._both(lambda store: store.record_launch(job_id, attempt + shift, pid=pid, pid_start=0.5))

    @rule(which=picks, shift=shifts, outcome=outcomes, at=times)
    def settle(self, which: int, shift: int, outcome: Outcome, at: float) -> None:
        job_id, _, attempt = self._pick(which)
        self._both(lambda store: store.settle(job_id, attempt + shift, outcome, at=at))

    @rule(which=picks, outcome=outcomes, at=times)
    def fail_queued(self, which: int, outcome: Outcome, at: float) -> None:
        job_id, _, _ = self._pick(which)
        self._both(lambda store: store.fail_queued(job_id, outcome, at=at))

    @rule(which=picks, now=waits, was=waits)
    def wait(self, which: int, now: WaitingFor | None, was: WaitingFor | None) -> None:
        job_id, _, _ = self._pick(which)
        self._both(lambda store: store.set_waiting_for(job_id, now, was=was))

    @rule(which=picks, levels=numbers, at=times)
    def cancel(self, which: int, levels: int, at: float) -> None:
        path = "/".join(self._pick(which)[1].split("/")[: levels + 1])
        self._both(lambda store: store.cancel_under(path, at=at))

    @rule(which=picks)
    def requeue(self, which: int) -> None:
        job_id, _, _ = self._pick(which)
        self._both(lambda store: store.requeue(job_id))

    @rule()
    def crash(self) -> None:
        """Go on with what a killed process would have left on the disk: the file and its log, not closed by anybody."""
        self._opened += 1
        # Any write of the database's own: what was noted of launches is on disk with it.
        self._runner.run(self._database.requeue("nobody"))
        home = Path(self._directory.name, str(self._opened))
        home.mkdir()
        for name in ("jobs.db", "jobs.db-wal"):
            shutil.copyfile(self._home / name, home / name)
        self._runner.run(self._stack.aclose())
        self._open(home)

    @rule(which=picks)
    def forget(self, which: int) -> None:
        root_id = self._pick(which)[1].split("/")[0]
        self._both(lambda store: store.delete_tree(root_id))
        self.the_same_jobs_stand_in_both()
        if not self._newest:
            self.begin()

    @rule(which=picks, limit=numbers, before=offsets)
    def page(self, which: int, limit: int, before: int) -> None:
        _, path, _ = self._pick(which)
        self._both(lambda store: store.jobs_under(path))
        self._both(lambda store: store.newest_jobs(limit=limit, before_seq=before))

    @invariant()
    def the_same_jobs_stand_in_both(self) -> None:
        self._newest = self._both(lambda store: store.newest_jobs(limit=EVERYTHING))

    def _compare_every_read(self) -> None:
        jobs = self._all(lambda store: store.newest_jobs(limit=EVERYTHING))
        self._all(lambda store: store.unfinished())
        self._all(lambda store: store.rollup_all())
        self._all(lambda store: store.ended_trees(before=50.0))
        self._all(lambda store: store.jobs([job.id for job in jobs]))
        for token in ("t1", "t2", "t3"):
            self._compare_caller(token)
        for job in jobs:
            self._compare_reads_of(job.id, job.path)
            for number in range(job.attempt + 1):
                self._compare_attempt(job.id, number)
        for id_ in {job.batch_id for job in jobs} | {job.root_id for job in jobs}:
            self._compare_reads_of(id_, id_)

    def _compare_caller(self, token_hash: str) -> None:
        self._all(lambda store: store.caller(token_hash))

    def _compare_attempt(self, job_id: str, number: int) -> None:
        self._all(lambda store: store.attempt(job_id, number))

    def _compare_reads_of(self, id_: str, path: str) -> None:
        self._all(lambda store: store.job(id_))
        self._all(lambda store: store.batch(id_))
        self._all(lambda store: store.tree(id_))
        self._all(lambda store: store.jobs_in_batch(id_))
        self._all(lambda store: store.rollup_batch(id_))
        self._all(lambda store: store.jobs_under(path))
        self._all(lambda store: store.rollup_under(path))


TestStores = StoreMachine.TestCase
TestStores.settings = settings(max_examples=300 if LONG else 15, stateful_step_count=40, deadline=None)
