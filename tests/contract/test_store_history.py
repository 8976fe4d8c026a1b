"""What every store keeps of times that are over: waits of attempts, and pauses that were ended."""

from dataclasses import replace

import pytest

from jobs.model import JobStatus, Usage
from jobs.paused import EVERYTHING, EndedPause, PausedPath
from jobs.ports import LAST_ATTEMPTS, Store
from jobs.store.history import KEPT_PAUSES
from jobs.waiting_for import AttemptWait, WaitingFor
from tests.contract.support import admit, admit_root, bring_to, ending, start

pytestmark = pytest.mark.anyio

WAITS = (
    AttemptWait(what=WaitingFor.CHILDREN, since=2.25, until=2.5),
    AttemptWait(what=WaitingFor.PERMISSION, since=2.75, until=3.0),
)


async def test_the_waits_of_an_attempt_are_kept_with_its_end(store: Store) -> None:
    await bring_to(store, "j1", JobStatus.RUNNING)
    await store.settle("j1", 1, replace(ending(JobStatus.QUEUED), waits=WAITS), at=3.0)
    await start(store, "j1", at=4.0)
    await store.settle("j1", 2, ending(JobStatus.COMPLETED), at=5.0)

    first, second = await store.attempt("j1", 1), await store.attempt("j1", 2)
    assert first is not None
    assert second is not None
    assert (first.waits, second.waits) == (WAITS, ())
    assert [one.waits for one in await store.attempts_of(["j1"])] == [WAITS, ()]


async def test_attempts_come_by_job_as_asked_and_then_by_number(store: Store) -> None:
    await admit(store, "b1", "j1", "j2", "j3")
    for number, job_id in ((1, "j1"), (1, "j2"), (2, "j1")):
        await start(store, job_id, at=float(number))
        await store.settle(job_id, number, ending(JobStatus.QUEUED), at=number + 0.5)

    found = await store.attempts_of(["j2", "nobody", "j3", "j1"])
    assert [(one.job_id, one.number, one.started_at) for one in found] == [
        ("j2", 1, 1.0),
        ("j1", 1, 1.0),
        ("j1", 2, 2.0),
    ]


async def test_attempts_of_a_list_have_neither_token_nor_answer_and_the_rest_of_them(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")
    for job_id in ("j1", "j2"):
        await start(store, job_id, token_hash=f"t of {job_id}")
    await store.record_launch("j2", 1, pid=4711, pid_start=0.5)
    usage = Usage(cost_usd=0.5, input_tokens=3, output_tokens=2, turns=1)
    outcome = replace(ending(JobStatus.FAILED, result="r" * 600, usage=usage), frame={"n": 1}, model="opus")
    await store.settle("j1", 1, outcome, at=3.0)

    for job_id, listed in zip(("j1", "j2"), await store.attempts_of(["j1", "j2"]), strict=True):
        whole = await store.attempt(job_id, 1)
        assert whole is not None
        assert listed == replace(whole, token_hash=None, result=None, frame=None)


async def test_of_many_attempts_the_last_ones_are_listed(store: Store) -> None:
    await admit_root(store, "j1")
    for number in range(1, LAST_ATTEMPTS + 4):
        await start(store, "j1", at=float(number))
        await store.settle("j1", number, ending(JobStatus.QUEUED), at=number + 0.5)

    assert [one.number for one in await store.attempts_of(["j1"])] == [*range(4, LAST_ATTEMPTS + 4)]


async def test_a_pause_that_ends_is_kept_with_its_end(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")
    await admit(store, "b10", "j9")
    await store.pause([PausedPath(path="b1/j1", since=2.0, by_job="j2"), PausedPath(path="b1", since=3.0)])
    await store.pause([PausedPath(path="b10", since=2.0)])
    assert await store.ended_pauses("b1") == []

    await store.unpause(["b1", "b1/j1", "b1/j2", "b10"], at=5.0)
    both = [EndedPause(path="b1/j1", since=2.0, until=5.0, by_job="j2"), EndedPause(path="b1", since=3.0, until=5.0)]
    assert await store.ended_pauses("b1") == both
    assert await store.paused() == []


async def test_a_pause_of_everything_is_one_of_each_tree_that_was_there(store: Store) -> None:
    await admit(store, "b1", "j1", at=1.0)
    await store.pause([PausedPath(path=EVERYTHING, since=2.0)])
    await store.unpause([EVERYTHING], at=4.0)
    await admit(store, "b2", "j2", at=4.5)

    assert await store.ended_pauses("b1") == [EndedPause(path=EVERYTHING, since=2.0, until=4.0)]
    assert await store.ended_pauses("b2") == []
    assert await store.ended_pauses("nobody") == []


async def test_of_a_path_that_is_paused_very_often_the_last_pauses_are_kept(store: Store) -> None:
    await admit(store, "b1", "j1", "j2")
    await store.pause([PausedPath(path="b1/j2", since=0.5)])
    await store.unpause(["b1/j2"], at=0.75)
    for number in range(1, KEPT_PAUSES + 4):
        await store.pause([PausedPath(path="b1/j1", since=float(number))])
        await store.unpause(["b1/j1"], at=number + 0.5)

    first, *others = await store.ended_pauses("b1")
    assert first.path == "b1/j2"
    assert [one.since for one in others] == [*range(4, KEPT_PAUSES + 4)]


async def test_ended_pauses_go_with_their_tree_and_those_of_everything_with_the_last_that_saw_them(
    store: Store,
) -> None:
    for at, job_id in ((1.0, "j1"), (1.5, "j1x")):
        await admit_root(store, job_id, at=at)
        await start(store, job_id)
        await store.settle(job_id, 1, ending(JobStatus.COMPLETED), at=9.0)
    paths = [EVERYTHING, "j1", "j1/j2", "j1x"]
    await store.pause([PausedPath(path=path, since=2.0) for path in paths])
    await store.unpause(paths, at=3.0)

    assert await store.delete_tree("j1")
    assert await store.ended_pauses("j1") == []
    assert [one.path for one in await store.ended_pauses("j1x")] == [EVERYTHING, "j1x"]
    assert await store.delete_tree("j1x")
    await admit_root(store, "j1x", at=1.5)
    assert await store.ended_pauses("j1x") == []
