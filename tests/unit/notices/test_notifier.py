"""When notices are sent, tried again, put together and given up."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.errors import StoreError
from jobs.limits.budget import Ledger
from jobs.model import JobStatus, Outcome, Reason, Usage
from jobs.notice import Notice, NoticeEvent, NoticeKind, utc
from jobs.notices.hooks import VARIABLES, Hooks, desktop_words
from jobs.notices.notifier import MOST_A_MINUTE, MOST_TRIES, SAME_BUDGET_SECONDS, Notifier, several
from jobs.permissions.approvals import PermissionRequest
from jobs.settings import Settings
from jobs.spec import JobSpec
from jobs.store.live import LiveStore
from jobs.store.sqlite import SqliteStore
from server.client.wire import HOOK_VARIABLES
from tests.contract.support import admit_root, anything_goes, ending, start, submission
from tests.support.waiting import until
from tests.unit.jobs.support import Clock, job


class Stopped(Clock):
    """A clock that goes on only where the test says so; its time of day can be set by itself."""

    day = 0.0

    def now(self) -> float:
        return 1e9 + self.day + self.moved

    def monotonic(self) -> float:
        return self.moved


class Sent(Hooks):
    """Hooks that keep what they are sent, and fail while they are told to."""

    def __init__(self) -> None:
        super().__init__({}, 0o022)
        self.messages: list[Mapping[str, Any]] = []
        self.shown: list[Mapping[str, Any]] = []
        self.problem: str | None = None
        self.problem_of_desktop: str | None = None

    async def deliver(self, hook: str, message: Mapping[str, Any]) -> str | None:
        self.messages.append(message)
        return self.problem

    async def show(self, message: Mapping[str, Any]) -> str | None:
        self.shown.append(message)
        return self.problem_of_desktop


class Post:
    """A notifier that runs, over a database.

    Args:
        database: The database.
        settings: Its settings.
    """

    def __init__(self, database: SqliteStore, settings: Settings, clock: Clock) -> None:
        self.database, self.clock, self.hooks = database, clock, Sent()
        self.store = LiveStore(database)
        self.notifier = Notifier(
            settings=settings,
            store=self.store,
            outbox=database,
            ledger=Ledger(self.store.trees),
            hooks=self.hooks,
            clock=clock,
        )

    async def add(self, *ids: str, body: Mapping[str, Any] | None = None) -> None:
        for id_ in ids:
            given = {"event": "tree_ended", "id": id_, "status": "completed", "costUsd": 0.5, **(body or {})}
            await self.database.add_notice(Notice(id=f"n-{id_}", kind=NoticeKind.END, body=given, at=self.clock.now()))
        self.notifier.wake()

    async def sent(self, count: int) -> list[Mapping[str, Any]]:
        async def enough() -> bool:
            return len(self.hooks.messages) >= count

        await until(enough)
        return self.hooks.messages

    def later(self, seconds: float) -> None:
        """Let so much time go by."""
        self.clock.moved += seconds
        self.notifier.wake()

    async def left(self, count: int, kind: NoticeKind = NoticeKind.END) -> None:
        """Wait until so many notices are still to be tried."""

        async def as_many() -> bool:
            return len(await self.database.notices(kind, limit=1000)) == count

        await until(as_many)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Post]:
        async with SqliteStore.open(tmp_path / "jobs.db") as database, anyio.create_task_group() as group:
            post = Post(database, Settings(home=tmp_path, **settings), Stopped())
            for kind in NoticeKind:
                group.start_soon(post.notifier.deliver, kind)
            yield post
            group.cancel_scope.cancel()

    return make


async def test_a_notice_is_sent_once_and_forgotten(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        await post.add("a")
        [message] = await post.sent(1)
        assert (message["noticeId"], message["id"]) == ("n-a", "a")
        await post.left(0)


async def test_a_failure_is_tried_again_later_each_time_and_given_up_at_last(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        post.hooks.problem = "no route"
        await post.add("a")
        waits = []
        for tried in range(1, MOST_TRIES):
            await post.sent(tried)

            async def noted(tried: int = tried) -> bool:
                [notice] = await post.database.notices(NoticeKind.END, limit=1)
                return bool(notice.attempts == tried)

            await until(noted)
            [notice] = await post.database.notices(NoticeKind.END, limit=1)
            waits.append(notice.due_at - post.clock.now())
            post.later(waits[-1])
        await post.sent(MOST_TRIES)
        await post.left(0)
        assert waits[:4] == [1, 2, 4, 8]
        assert max(waits) == 3600
        assert len({message["noticeId"] for message in post.hooks.messages}) == 1
        [said] = await post.notifier.undelivered()
        assert said == "on_end could not be told of everything: 1 is given up. The last time, no route"


async def test_a_clock_that_is_set_back_delays_neither_a_new_notice_nor_the_next_try(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        post.hooks.problem = "no route"
        await post.add("a")
        await post.sent(1)
        await post.left(1)
        post.hooks.problem = None
        post.clock.day -= 86_400
        post.notifier.wake()
        await post.sent(2)
        await post.left(0)
        # As after a start with a clock that was wrong: the notice is of tomorrow.
        post.clock.day += 172_800
        notice = Notice(id="n-b", kind=NoticeKind.END, body={"event": "test", "id": "b"}, at=post.clock.now())
        post.clock.day -= 172_800
        await post.database.add_notice(notice)
        post.notifier.wake()
        assert [message["id"] for message in await post.sent(3)] == ["a", "a", "b"]


async def test_what_comes_beyond_the_number_of_a_minute_is_put_together(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        names = [f"j{number}" for number in range(MOST_A_MINUTE + 9)]
        await post.add(*names)
        # Some may have been sent before the last one was added.
        await post.left(0)
        sent = post.hooks.messages
        assert len(sent) <= MOST_A_MINUTE
        one_by_one = [message["id"] for message in sent if message["event"] == "tree_ended"]
        together = [message for message in sent if message["event"] == "several"]
        assert sorted([*one_by_one, *(name for message in together for name in message["ids"])]) == sorted(names)


async def test_in_a_full_minute_nothing_is_sent_and_nothing_lost(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    waiting: list[int] = []

    async with opened(on_end="x") as post:
        for number in range(MOST_A_MINUTE):
            await post.add(f"j{number}")
            await post.left(0)
        notices = post.database.notices

        async def noted(kind: NoticeKind, *, limit: int) -> Sequence[Notice]:
            found: Sequence[Notice] = await notices(kind, limit=limit)
            waiting.append(len(found))
            return found

        monkeypatch.setattr(post.database, "notices", noted)
        await post.add("late", "later")

        async def both_were_seen() -> bool:
            return 2 in waiting

        await until(both_were_seen)
        assert len(post.hooks.messages) == MOST_A_MINUTE
        post.later(61)
        await post.left(0)
        assert [message["id"] for message in post.hooks.messages[MOST_A_MINUTE:]] == ["late", "later"]


async def test_notices_that_nobody_wants_any_more_are_dropped(opened: Callable[..., Any]):
    async with opened() as post:
        await post.add("a", "b")
        await post.left(0)
        assert post.hooks.messages == []


async def test_the_desktop_alone_is_enough_and_is_shown_a_failing_notice_once(opened: Callable[..., Any]):
    async with opened(desktop_notices=True) as post:
        await post.add("a")
        await post.left(0)
        assert [message["id"] for message in post.hooks.shown] == ["a"]
    async with opened(desktop_notices=True, on_end="x") as post:
        post.hooks.problem = "no route"
        await post.add("b")
        await post.sent(1)
        post.hooks.problem = None
        post.later(2)
        await post.left(0)
        assert [message["id"] for message in post.hooks.shown] == ["b"]


async def test_the_end_of_a_tree_wakes_the_notifier(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        await admit_root(post.store, "j1")
        attempt = await start(post.store, "j1")
        await post.store.settle("j1", attempt.number, ending(JobStatus.COMPLETED), at=3.0)
        [message] = await post.sent(1)
        assert message["id"] == "j1"


async def test_a_desktop_that_cannot_show_a_notice_is_logged_and_keeps_it_from_no_hook(
    opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
):
    async with opened(desktop_notices=True, on_end="x") as post:
        post.hooks.problem_of_desktop = "no display"
        await post.add("a")
        await post.left(0)
        assert [message["id"] for message in post.hooks.messages] == ["a"]
    assert "could not be shown on the desktop: no display" in caplog.text


def asking(tmp_path: Path) -> PermissionRequest:
    """A job's request for a permission."""
    arguments = {"command": "curl -H 'x: s3cret' example.com", "timeout": 5}
    who = job("j1", spec=JobSpec(task="a task", cwd=str(tmp_path)))
    return PermissionRequest(id="p1", job=who, tool="Bash", arguments=arguments, asked_at=0.0, secrets=["s3cret"])


OTHER = {"id": "j9", "next": "claude-jobs list"}


async def test_a_permission_that_is_wanted_is_told_with_the_command_that_answers_it(
    opened: Callable[..., Any], tmp_path: Path
):
    async with opened(on_attention="x", permission_seconds=60) as post:
        await post.notifier.permission(asking(tmp_path))
        [message] = await post.sent(1)
    assert message == {
        "noticeId": "np1",
        "at": utc(1e9),
        "event": "permission_wanted",
        "id": "j1",
        "rootId": "t",
        "task": "a task",
        "requestId": "p1",
        "tool": "Bash",
        "input": "command: curl -H 'x: [redacted]' example.com, timeout: 5",
        "until": utc(1e9 + 60),
        "next": "claude-jobs approve p1",
    }


async def test_a_permission_that_was_answered_meanwhile_is_told_no_more(opened: Callable[..., Any], tmp_path: Path):
    async with opened(on_attention="x") as post:
        post.hooks.problem = "no route"
        request = asking(tmp_path)
        await post.notifier.permission(request)
        await post.sent(1)
        request.answered.set()
        await post.notifier.permission(request)
        await post.left(0, NoticeKind.ATTENTION)
        post.hooks.problem = None
        post.later(3600)
        await post.notifier.tell(NoticeEvent.PAUSE_ENDED, OTHER)
        assert [message["event"] for message in await post.sent(2)] == ["permission_wanted", "pause_ended"]


async def test_a_permission_that_a_job_wanted_of_an_earlier_engine_is_not_told(opened: Callable[..., Any]):
    async with opened(on_attention="x") as post:
        body = {"event": "permission_wanted", "id": "j1", "next": ""}
        at = post.clock.now() - 1
        await post.database.add_notice(Notice(id="n1", kind=NoticeKind.ATTENTION, body=body, at=at))
        await post.notifier.tell(NoticeEvent.PAUSE_ENDED, OTHER)
        await post.left(0, NoticeKind.ATTENTION)
        assert [message["event"] for message in post.hooks.messages] == ["pause_ended"]


async def test_nothing_that_calls_for_attention_is_kept_where_nobody_wants_it(
    opened: Callable[..., Any], tmp_path: Path
):
    async with opened(on_end="x") as post:
        request = asking(tmp_path)
        await post.notifier.permission(request)
        request.answered.set()
        await post.notifier.permission(request)
        await post.notifier.tell(NoticeEvent.PAUSE_ENDED, OTHER)
        assert await post.database.notices(NoticeKind.ATTENTION, limit=10) == []


async def test_a_notice_that_cannot_be_kept_or_taken_back_is_logged_and_stops_nobody(
    opened: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def refuse(*_: object) -> None:
        raise StoreError("write", "the disk is full")

    async with opened(on_attention="x") as post:
        request = asking(tmp_path)
        with monkeypatch.context() as full:
            full.setattr(post.database, "add_notice", refuse)
            full.setattr(post.database, "remove_notices", refuse)
            await post.notifier.permission(request)
            request.answered.set()
            await post.notifier.permission(request)
        await post.notifier.tell(NoticeEvent.PAUSE_ENDED, OTHER)
        assert [message["event"] for message in await post.sent(1)] == ["pause_ended"]
    assert "the notice permission_wanted could not be kept: The job store could not write" in caplog.text
    assert "a notice could not be taken back: The job store could not write" in caplog.text


async def budgeted(post: Post, *ids: str, usd: float | None) -> None:
    """Admit a batch with a budget of which its first job uses a dollar and a half."""
    asked = replace(submission("b1", *ids), max_budget_usd=usd)
    await post.store.admit(asked, anything_goes)
    attempt = await start(post.store, ids[0])
    outcome = ending(JobStatus.COMPLETED, usage=Usage(cost_usd=1.5))
    await post.store.settle(ids[0], attempt.number, outcome, at=3.0)


async def ended_for_it(post: Post, job_id: str) -> None:
    """End a queued job because its budget is used up."""
    await post.store.fail_queued(job_id, Outcome(reason=Reason.BUDGET_EXHAUSTED, status=JobStatus.FAILED), at=4.0)


async def test_a_budget_that_is_used_up_is_told_once_for_the_jobs_of_a_minute(opened: Callable[..., Any]):
    async with opened(on_attention="x") as post:
        await budgeted(post, "j1", "j2", "j3", "j4", "j5", usd=1.25)
        for name in ("j2", "j3"):
            await ended_for_it(post, name)
            await post.left(0, NoticeKind.ATTENTION)
        [message] = post.hooks.messages
        assert {name: message[name] for name in ("event", "id", "rootId", "budgetUsd", "because", "costUsd")} == {
            "event": "budget_used_up",
            "id": "b1",
            "rootId": "b1",
            "budgetUsd": 1.25,
            "because": "the $1.25 of tree b1 are used up",
            "costUsd": 1.5,
        }
        post.later(SAME_BUDGET_SECONDS + 1)
        await ended_for_it(post, "j4")
        again = (await post.sent(2))[1]
        assert again["id"] == "b1"
        assert again["noticeId"] != message["noticeId"]


async def test_a_budget_of_which_a_hook_could_not_be_told_is_told_at_the_next_try(opened: Callable[..., Any]):
    async with opened(on_attention="x") as post:
        post.hooks.problem = "no route"
        await budgeted(post, "j1", "j2", "j3", usd=1.25)
        await ended_for_it(post, "j2")

        async def noted() -> bool:
            return [one.attempts for one in await post.database.notices(NoticeKind.ATTENTION, limit=10)] == [1]

        await until(noted)
        post.hooks.problem = None
        post.later(2)
        await post.left(0, NoticeKind.ATTENTION)
        first, second = post.hooks.messages
        assert first == second


async def test_a_job_that_ended_for_a_budget_of_its_own_is_told_as_it_is(opened: Callable[..., Any]):
    async with opened(on_attention="x") as post:
        await budgeted(post, "j1", "j2", "j3", usd=None)
        await ended_for_it(post, "j2")
        [message] = await post.sent(1)
        assert (message["id"], message["reason"]) == ("j2", "budget_exhausted")
        assert "budgetUsd" not in message


def test_the_same_messages_are_put_together_under_the_same_id():
    messages = [{"noticeId": f"n{number}", "event": "tree_ended", "id": f"j{number}", "at": "t"} for number in range(3)]
    assert several(messages)["noticeId"] == several(messages[::-1])["noticeId"]
    assert several(messages)["noticeId"] != several(messages[:2])["noticeId"]


@pytest.mark.parametrize("event", list(NoticeEvent))
def test_every_event_has_words_for_the_desktop(event: NoticeEvent):
    message = {
        "event": event.value,
        "status": "failed",
        "costUsd": 1.0,
        "tool": "Bash",
        "input": "command: ls",
        "count": 3,
        "events": {"tree_ended": 3},
        "task": "a task",
        "because": "why",
        "next": "claude-jobs list",
    }
    title, words = desktop_words(message)
    assert title.startswith("claude-jobs: ")
    assert words.endswith("claude-jobs list")


def test_a_client_takes_no_variable_of_a_hook_for_a_setting():
    assert VARIABLES.keys() == HOOK_VARIABLES
