"""What every store keeps of what accounts spend: by local day, with the ends of attempts, longer than the jobs."""

from dataclasses import replace

import pytest

from jobs.model import JobStatus, Usage
from jobs.ports import Store
from jobs.spending import local_day
from tests.contract.support import bring_to, ending

pytestmark = pytest.mark.anyio

NOON, DAY = 1_000_000_000.0, 86_400.0


async def _pay(store: Store, job_id: str, cost: float, account: str | None, at: float) -> None:
    await bring_to(store, job_id, JobStatus.RUNNING)
    outcome = replace(ending(JobStatus.COMPLETED, usage=Usage(cost_usd=cost)), account=account)
    await store.settle(job_id, 1, outcome, at=at)


async def _rows(store: Store, since: float = NOON) -> list[tuple[str, str, float]]:
    return [(row.account, row.day, row.cost_usd) for row in await store.spending(local_day(since))]


async def test_a_day_of_an_account_is_one_sum(store: Store) -> None:
    await _pay(store, "j1", 1.0, "a", NOON)
    await _pay(store, "j2", 2.5, "a", NOON)
    await _pay(store, "j3", 4.0, "b", NOON)
    await _pay(store, "j4", 8.0, "a", NOON + DAY)

    today, tomorrow = local_day(NOON), local_day(NOON + DAY)
    assert await _rows(store) == [("a", today, 3.5), ("a", tomorrow, 8.0), ("b", today, 4.0)]
    assert await _rows(store, NOON + DAY) == [("a", tomorrow, 8.0)]


async def test_an_account_that_is_not_known_and_an_attempt_that_cost_nothing_leave_no_row(store: Store) -> None:
    await _pay(store, "j1", 1.0, None, NOON)
    await _pay(store, "j2", 0.0, "a", NOON)

    assert await _rows(store) == []


async def test_what_was_spent_outlives_the_tree(store: Store) -> None:
    await _pay(store, "j1", 1.0, "a", NOON)
    assert await store.delete_tree("j1")

    assert await _rows(store) == [("a", local_day(NOON), 1.0)]


async def test_an_end_that_is_refused_is_not_paid_twice(store: Store) -> None:
    await _pay(store, "j1", 1.0, "a", NOON)
    outcome = replace(ending(JobStatus.COMPLETED, usage=Usage(cost_usd=1.0)), account="a")
    with pytest.raises(Exception, match="j1"):
        await store.settle("j1", 1, outcome, at=NOON)

    assert await _rows(store) == [("a", local_day(NOON), 1.0)]
