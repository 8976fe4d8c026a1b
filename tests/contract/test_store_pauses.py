"""What every store keeps of the pauses of a person or a job."""

import pytest

from jobs.model import JobStatus
from jobs.paused import EVERYTHING, PausedPath
from jobs.ports import Store
from tests.contract.support import admit, bring_to

pytestmark = pytest.mark.anyio

BY_PERSON = PausedPath(path="b1/j1", since=1.0)
BY_JOB = PausedPath(path="b1/j1", since=1.0, by_job="j9")


async def test_a_pause_is_kept_until_exactly_its_path_is_resumed(store: Store) -> None:
    everything = PausedPath(path=EVERYTHING, since=2.0, ends_running=True)
    assert await store.pause([BY_PERSON, everything]) == [BY_PERSON, everything]
    assert await store.paused() == [BY_PERSON, everything]

    await store.unpause(["b1", "b1/j", "nobody"], at=3.0)
    assert await store.paused() == [BY_PERSON, everything]

    await store.unpause([EVERYTHING, "b1/j1"], at=3.0)
    assert await store.paused() == []


async def test_a_second_pause_leaves_the_first_moment_and_only_makes_it_stricter(store: Store) -> None:
    await store.pause([BY_PERSON])
    later = PausedPath(path="b1/j1", since=5.0, by_job="j9", ends_running=True)

    [joined] = await store.pause([later])
    assert joined == PausedPath(path="b1/j1", since=1.0, ends_running=True)
    assert await store.pause([BY_PERSON]) == [joined] == await store.paused()


async def test_a_persons_pause_takes_over_that_of_a_job_and_not_the_other_way_round(store: Store) -> None:
    assert await store.pause([BY_JOB]) == [BY_JOB]
    assert await store.pause([BY_PERSON]) == [BY_PERSON]
    assert await store.pause([BY_JOB]) == [BY_PERSON]


async def test_a_pause_needs_no_job_and_changes_none(store: Store) -> None:
    jobs = await admit(store, "b1", "j1")
    await store.pause([BY_PERSON, PausedPath(path="b9", since=1.0)])

    assert await store.jobs(["j1"]) == jobs


async def test_what_is_paused_in_a_tree_is_forgotten_with_it(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.COMPLETED)
    kept = [PausedPath(path=path, since=1.0) for path in (EVERYTHING, "j", "j1x", "j1x/j1")]
    await store.pause([*kept, PausedPath(path="j1", since=1.0), PausedPath(path="j1/j2", since=1.0)])
    assert await store.delete_tree("j1")

    assert await store.paused() == kept
