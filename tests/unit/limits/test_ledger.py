"""What a subtree has cost: the settled part and the running part, and no attempt in both."""

from dataclasses import replace

import pytest

from jobs.limits.budget import BudgetOwner, Ledger
from jobs.model import Job, JobStatus, Usage
from jobs.ports import AdmissionFacts, NewJob, Submission
from jobs.spec import JobSpec
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from tests.contract.support import admit, anything_goes, ending, known, start

pytestmark = pytest.mark.anyio

SPEC = JobSpec(task="t", cwd="/srv")


@pytest.fixture
def store() -> LiveStore:
    return LiveStore(MemoryStore())


async def two_running(store: LiveStore) -> list[Job]:
    """Two jobs of the tree b1 that run."""
    await admit(store, "b1", "j1", "j2")
    for job_id in ("j1", "j2"):
        await start(store, job_id)
    return [await known(store, job_id) for job_id in ("j1", "j2")]


def tree_with(usd: float) -> BudgetOwner:
    return BudgetOwner(path="b1", name="tree b1", usd=usd)


async def test_running_attempts_use_a_budget_up_together(store: LiveStore):
    ledger = Ledger(store.trees)
    first, second = await two_running(store)
    ledger.note(first, 1, Usage(cost_usd=1.0))
    ledger.note(second, 1, Usage(cost_usd=0.4))
    assert ledger.budget_exhausted([tree_with(1.5)]) is None
    assert ledger.note(second, 1, Usage(cost_usd=0.5))
    assert ledger.budget_exhausted([tree_with(1.5)]) == tree_with(1.5)


async def test_an_attempt_that_is_settled_counts_once(store: LiveStore):
    ledger = Ledger(store.trees)
    first, second = await two_running(store)
    ledger.note(first, 1, Usage(cost_usd=1.0))
    await store.settle("j1", 1, ending(JobStatus.COMPLETED, usage=Usage(cost_usd=1.0)), at=3.0)
    assert ledger.budget_exhausted([tree_with(1.5)]) is None
    ledger.note(second, 1, Usage(cost_usd=0.5))
    assert ledger.budget_exhausted([tree_with(1.5)]) == tree_with(1.5)


async def test_an_earlier_attempt_of_a_job_that_runs_again_counts_once(store: LiveStore):
    ledger = Ledger(store.trees)
    first, _ = await two_running(store)
    ledger.note(first, 1, Usage(cost_usd=1.0))
    await store.settle("j1", 1, ending(JobStatus.QUEUED, usage=Usage(cost_usd=1.0)), at=3.0)
    await start(store, "j1")
    ledger.note(await known(store, "j1"), 2, Usage(cost_usd=0.4))
    assert ledger.budget_exhausted([tree_with(1.5)]) is None


async def test_what_lies_elsewhere_uses_nothing_of_a_budget(store: LiveStore):
    ledger = Ledger(store.trees)
    first, second = await two_running(store)
    ledger.note(second, 1, Usage(cost_usd=9.0))
    assert ledger.budget_exhausted([BudgetOwner(path=first.path, name="job j1", usd=1.0)]) is None


async def test_a_spawn_that_is_checked_twice_is_not_in_its_own_way(store: LiveStore):
    ledger = Ledger(store.trees)
    tree = Submission(batch_id="b1", jobs=[NewJob(id="j1", spec=SPEC)], max_budget_usd=1.0)
    await store.admit(tree, anything_goes)
    await start(store, "j1")

    def twice(facts: AdmissionFacts) -> None:
        ledger.reserve(facts)
        ledger.reserve(facts)

    asked = replace(SPEC, max_budget_usd=0.8)
    spawn = Submission(batch_id="b2", jobs=[NewJob(id="j2", spec=asked)], parent_id="j1")
    assert (await store.admit(spawn, twice)).created
