"""When notices are sent, tried again, put together and given up."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from jobs.limits.budget import Ledger
from jobs.model import JobStatus
from jobs.notice import Notice, NoticeEvent, NoticeKind
from jobs.notices.hooks import VARIABLES, Hooks, desktop_words
from jobs.notices.notifier import MOST_A_MINUTE, MOST_TRIES, Notifier, several
from jobs.settings import Settings
from jobs.store.live import LiveStore
from jobs.store.sqlite import SqliteStore
from server.client.wire import HOOK_VARIABLES
from tests.contract.support import admit_root, ending, start
from tests.support.waiting import until
from tests.unit.jobs.support import Clock


class Stopped(Clock):
    """A clock that goes on only where the test says so."""

    def now(self) -> float:
        return 1e9 + self.moved

    def monotonic(self) -> float:
        return self.moved


class Sent(Hooks):
    """Hooks that keep what they are sent, and fail while they are told to."""

    def __init__(self) -> None:
        super().__init__({}, 0o022)
        self.messages: list[Mapping[str, Any]] = []
        self.shown: list[Mapping[str, Any]] = []
        self.problem: str | None = None

    async def deliver(self, hook: str, message: Mapping[str, Any]) -> str | None:
        self.messages.append(message)
        return self.problem

    async def show(self, message: Mapping[str, Any]) -> str | None:
        self.shown.append(message)
        return None


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

    async def left(self, count: int) -> None:
        """Wait until so many notices are still to be tried."""

        async def as_many() -> bool:
            return len(await self.database.notices(NoticeKind.END, limit=1000)) == count

        await until(as_many)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Post]:
        async with SqliteStore.open(tmp_path / "jobs.db") as database, anyio.create_task_group() as group:
            post = Post(database, Settings(home=tmp_path, **settings), Stopped())
            group.start_soon(post.notifier.deliver, NoticeKind.END)
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
            post.clock.moved += waits[-1]
            post.notifier.wake()
        await post.sent(MOST_TRIES)
        await post.left(0)
        assert waits[:4] == [1, 2, 4, 8]
        assert max(waits) == 3600
        assert len({message["noticeId"] for message in post.hooks.messages}) == 1
        [said] = await post.notifier.undelivered()
        assert said == "on_end could not be told of everything: 1 is given up. The last time, no route"


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


async def test_in_a_full_minute_nothing_is_sent_and_nothing_lost(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        await post.add(*(f"j{number}" for number in range(MOST_A_MINUTE)))
        await post.left(0)
        full = len(post.hooks.messages)
        await post.add("late", "later")
        if full == MOST_A_MINUTE:
            await post.left(2)
        post.clock.moved += 61
        post.notifier.wake()
        await post.left(0)
        assert {"late", "later"} <= {one for m in post.hooks.messages for one in (m["id"], *m.get("ids", ()))}


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
        post.clock.moved += 2
        post.notifier.wake()
        await post.left(0)
        assert [message["id"] for message in post.hooks.shown] == ["b"]


async def test_the_end_of_a_tree_wakes_the_notifier(opened: Callable[..., Any]):
    async with opened(on_end="x") as post:
        await admit_root(post.store, "j1")
        attempt = await start(post.store, "j1")
        await post.store.settle("j1", attempt.number, ending(JobStatus.COMPLETED), at=3.0)
        [message] = await post.sent(1)
        assert message["id"] == "j1"


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
