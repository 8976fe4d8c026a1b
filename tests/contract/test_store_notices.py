"""Notices: written with the end that they tell of, kept until they are delivered."""

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.model import JobStatus, Outcome, Reason, Usage
from jobs.notice import FailedNotice, NotedPause, Notice, NoticeKind
from jobs.ports import Store
from jobs.store.live import LiveStore
from jobs.store.sqlite import SqliteStore
from tests.contract.support import admit, admit_root, ending, start

WANTED: Collection[NoticeKind] = tuple(NoticeKind)


class Outbox:
    """A database, and the store in front of it, with a person who wants to be told."""

    def __init__(self, database: SqliteStore, store: Store) -> None:
        self.database = database
        self.store = store
        self.wanted = WANTED
        self.woken = 0
        database.note_ends(lambda: self.wanted, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    async def of(self, kind: NoticeKind) -> list[Notice]:
        return list(await self.database.notices(kind, limit=100))

    async def ended(self) -> list[tuple[str, str]]:
        return [(notice.body["id"], notice.body["status"]) for notice in await self.of(NoticeKind.END)]

    async def settle(self, job_id: str, status: JobStatus, reason: Reason | None = None, cost: float = 0.0) -> None:
        attempt = await start(self.store, job_id)
        outcome: Outcome = ending(status, detail="why", usage=Usage(cost_usd=cost, input_tokens=3, output_tokens=4))
        if reason is not None:
            outcome = replace(outcome, reason=reason)
        await self.store.settle(job_id, attempt.number, outcome, at=5.0)


@pytest.fixture(params=["sqlite", "live"])
async def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Outbox]:
    async with SqliteStore.open(tmp_path / "jobs.db") as opened:
        yield Outbox(opened, LiveStore(opened) if request.param == "live" else opened)


async def test_the_last_end_of_a_tree_writes_one_notice_of_the_whole_tree(outbox: Outbox):
    await admit(outbox.store, "b1", "j1", "j2")
    await outbox.settle("j1", JobStatus.FAILED, cost=0.5)
    assert await outbox.ended() == []
    await outbox.settle("j2", JobStatus.COMPLETED, cost=0.25)
    [notice] = await outbox.of(NoticeKind.END)
    assert dict(notice.body) == {
        "event": "tree_ended",
        "id": "b1",
        "rootId": "b1",
        "task": "task of j1",
        "status": "failed",
        "jobs": {"completed": 1, "failed": 1},
        "costUsd": 0.75,
        "inputTokens": 6,
        "outputTokens": 8,
        "elapsedSeconds": 4.0,
        "reason": "max_turns",
        "error": "why",
        "next": "claude-jobs result b1",
    }
    assert outbox.woken == 1


async def test_a_tree_is_over_when_nothing_of_it_lives_whatever_its_root_does(outbox: Outbox):
    await admit_root(outbox.store, "j1")
    attempt = await start(outbox.store, "j1")
    await admit(outbox.store, "b2", "j2", parent_id="j1")
    await outbox.store.settle("j1", attempt.number, ending(JobStatus.COMPLETED), at=4.0)
    assert await outbox.ended() == []
    await outbox.settle("j2", JobStatus.COMPLETED)
    assert await outbox.ended() == [("j1", "completed")]


async def _cancelled(outbox: Outbox) -> None:
    await outbox.store.cancel_under("j1", at=3.0)


async def _failed_in_the_queue(outbox: Outbox) -> None:
    outcome = Outcome(reason=Reason.DEADLINE, status=JobStatus.FAILED)
    await outbox.store.fail_queued("j1", outcome, at=3.0)


@pytest.mark.parametrize(("end", "status"), [(_cancelled, "cancelled"), (_failed_in_the_queue, "failed")])
async def test_a_tree_that_never_ran_ends_too(outbox: Outbox, end: Callable[..., object], status: str):
    await admit_root(outbox.store, "j1")
    await end(outbox)  # type: ignore[misc]
    assert await outbox.ended() == [("j1", status)]


async def test_a_tree_that_is_tried_again_ends_again(outbox: Outbox):
    await admit_root(outbox.store, "j1")
    await outbox.settle("j1", JobStatus.FAILED)
    await outbox.store.requeue("j1")
    await outbox.settle("j1", JobStatus.COMPLETED)
    assert await outbox.ended() == [("j1", "failed"), ("j1", "completed")]
    first, second = await outbox.of(NoticeKind.END)
    assert first.id != second.id


async def test_nothing_is_written_that_nobody_wants(outbox: Outbox):
    outbox.wanted = ()
    await admit_root(outbox.store, "j1")
    await outbox.settle("j1", JobStatus.FAILED, Reason.BUDGET_EXHAUSTED)
    assert [await outbox.of(kind) for kind in NoticeKind] == [[], []]
    assert outbox.woken == 0


async def test_the_end_of_a_job_for_its_budget_calls_for_attention(outbox: Outbox):
    outbox.wanted = (NoticeKind.ATTENTION,)
    await admit(outbox.store, "b1", "j1", "j2")
    await outbox.settle("j1", JobStatus.FAILED, Reason.BUDGET_EXHAUSTED, cost=0.5)
    [notice] = await outbox.of(NoticeKind.ATTENTION)
    assert {name: notice.body[name] for name in ("event", "id", "rootId", "costUsd", "reason")} == {
        "event": "budget_used_up",
        "id": "j1",
        "rootId": "b1",
        "costUsd": 0.5,
        "reason": "budget_exhausted",
    }


async def test_a_notice_waits_until_it_is_due_and_is_kept_for_a_look_once_it_is_given_up(outbox: Outbox):
    database = outbox.database
    for number in (1, 2):
        await database.add_notice(Notice(id=f"n{number}", kind=NoticeKind.END, body={"event": "test"}, at=1.0))
    # The same once more, as an engine does that does not know that it has.
    await database.add_notice(Notice(id="n1", kind=NoticeKind.END, body={"event": "other"}, at=2.0))
    await database.fail_notices([FailedNotice(id="n1", attempts=1, due_at=9.0, error="no route")], at=3.0)
    assert [(one.id, one.attempts, one.due_at) for one in await outbox.of(NoticeKind.END)] == [
        ("n2", 0, 0.0),
        ("n1", 1, 9.0),
    ]
    await database.fail_notices(
        [FailedNotice(id="n2", attempts=20, due_at=3.0, error="still no route", given_up=True)], at=3.0
    )
    assert [one.id for one in await outbox.of(NoticeKind.END)] == ["n1"]
    [sums] = await database.undelivered_notices()
    assert (sums.kind, sums.waiting, sums.given_up, sums.error) == (NoticeKind.END, 1, 1, "no route")
    await database.remove_notices(["n1"])
    assert await outbox.of(NoticeKind.END) == []
    # A month later.
    await database.fail_notices([], at=3.0 + 30 * 86400)
    assert await database.undelivered_notices() == []


async def test_a_pause_is_noted_with_its_notice_until_it_is_over(outbox: Outbox):
    database = outbox.database
    pause = NotedPause(key="a", until=9.0, because="five-hour limit")
    began = Notice(kind=NoticeKind.ATTENTION, body={"event": "pause_began"}, at=1.0)
    await database.note_pause(pause, began)
    later = replace(pause, until=10.0)
    await database.note_pause(later, None)
    assert list(await database.noted_pauses()) == [later]
    await database.note_pause(later, replace(began, id="n2", body={"event": "pause_ended"}), over=True)
    assert list(await database.noted_pauses()) == []
    assert [one.body["event"] for one in await outbox.of(NoticeKind.ATTENTION)] == ["pause_began", "pause_ended"]
