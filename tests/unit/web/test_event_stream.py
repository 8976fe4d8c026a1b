"""The stream of events: a page at a time, nothing built for a browser that does not read, and an end that is told."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Message

from jobs.errors import StoreError
from server.feed.watch import JsonPage
from server.web import event_stream
from server.web.event_stream import EventStream, NextPage

pytestmark = pytest.mark.anyio

SECONDS = 20.0


class Browser:
    """The other end of a stream.

    Args:
        reads: Whether it takes what it is sent.
    """

    def __init__(self, *, reads: bool = True) -> None:
        self.text = ""
        self.start: Message = {}
        self.is_over = False
        self.leaves = anyio.Event()
        self.taking = anyio.Event()
        self._changed = anyio.Event()
        if reads:
            self.taking.set()

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        await self.taking.wait()
        self.text += message["body"].decode()
        self.is_over = not message["more_body"]
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(SECONDS):
            while not holds():
                await self._changed.wait()
                self._changed = anyio.Event()


class Feed:
    """Gives as many pages as a test allows, and keeps after which cursors it was asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self._allowed = anyio.Semaphore(0)

    def allow(self, pages: int) -> None:
        for _ in range(pages):
            self._allowed.release()

    async def page(self, cursor: str | None) -> JsonPage:
        self.asked.append(cursor)
        await self._allowed.acquire()
        return JsonPage(cursor=f"e.{len(self.asked)}", text=f'{{"number": {len(self.asked)}}}')


@asynccontextmanager
async def streaming(
    browser: Browser, next_page: NextPage, cursor: str | None = None, *, is_brief: bool = False
) -> AsyncIterator[tuple[anyio.Event, anyio.Event]]:
    """Serve a stream; give what stops it, and what says that it has returned."""
    stopping, returned = anyio.Event(), anyio.Event()

    async def serve() -> None:
        stream = EventStream(next_page, cursor, stopping, is_brief=is_brief)
        await stream({"type": "http"}, browser.receive, browser.send)
        returned.set()

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as group:
            group.start_soon(serve)
            yield stopping, returned
            browser.leaves.set()


async def test_each_page_is_an_event_with_its_cursor():
    browser, feed = Browser(), Feed()
    async with streaming(browser, feed.page, "e.0"):
        feed.allow(2)
        await browser.until(lambda: browser.text.count("\n\n") == 2)
    assert dict(browser.start["headers"])[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert browser.text == (
        'id: e.1\nevent: page\ndata: {"number": 1}\n\n' + 'id: e.2\nevent: page\ndata: {"number": 2}\n\n'
    )
    assert feed.asked[:3] == ["e.0", "e.1", "e.2"]


async def test_a_stream_that_is_brief_gives_what_there_is_and_says_that_the_browser_is_to_come_back():
    pages = [JsonPage(cursor=f"e.{number}", text=f"{number}", more=number < 2) for number in range(3)]

    async def page(_: str | None) -> JsonPage:
        return pages.pop(0)

    browser = Browser()
    async with streaming(browser, page, is_brief=True) as (_, returned):
        await returned.wait()
    assert browser.is_over
    assert [block.partition("\n")[0] for block in browser.text.split("\n\n")] == [
        "id: e.0",
        "id: e.1",
        "id: e.2",
        "event: later",
        "",
    ]


async def test_no_page_is_built_before_the_last_one_was_taken():
    browser, feed = Browser(reads=False), Feed()
    feed.allow(100)
    async with streaming(browser, feed.page):
        await anyio.wait_all_tasks_blocked()
        assert feed.asked == [None]
        browser.taking.set()
        await browser.until(lambda: browser.text.count("\n\n") == 100)


async def test_a_browser_that_leaves_ends_the_stream_at_once():
    browser, feed = Browser(), Feed()
    async with streaming(browser, feed.page) as (_, returned):
        await anyio.wait_all_tasks_blocked()
        browser.leaves.set()
        await returned.wait()
    assert browser.text == ""


async def test_an_engine_that_stops_says_so_and_closes_the_stream():
    browser, feed = Browser(), Feed()
    async with streaming(browser, feed.page) as (stopping, returned):
        feed.allow(1)
        await browser.until(lambda: "id: e.1" in browser.text)
        stopping.set()
        await returned.wait()
    assert browser.text.endswith("\n\nevent: end\ndata:\n\n")
    assert browser.is_over


async def test_an_engine_that_stops_does_not_wait_for_a_browser_that_does_not_read():
    browser, feed = Browser(reads=False), Feed()
    feed.allow(1)
    async with streaming(browser, feed.page) as (stopping, returned):
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        stopping.set()
        await returned.wait()
        assert anyio.current_time() - began < 2 * event_stream.FAREWELL_SECONDS + 1


async def test_a_quiet_stream_gets_comments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.01)
    browser, feed = Browser(), Feed()
    async with streaming(browser, feed.page):
        await browser.until(lambda: browser.text.count(":\n\n") >= 2)
        feed.allow(1)
        await browser.until(lambda: "id: e.1\n" in browser.text)
    # A comment stands between events, never within one.
    assert all(block in {":", 'id: e.1\nevent: page\ndata: {"number": 1}', ""} for block in browser.text.split("\n\n"))


async def test_a_browser_that_takes_nothing_for_a_minute_loses_its_stream(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_stream, "STUCK_SECONDS", 0.01)
    browser, feed = Browser(reads=False), Feed()
    feed.allow(5)
    async with streaming(browser, feed.page) as (_, returned):
        await returned.wait()
    assert feed.asked == [None]


async def test_a_feed_that_cannot_be_read_ends_the_stream_and_nothing_else():
    async def broken(_: str | None) -> JsonPage:
        raise StoreError("read the jobs", "the disk is gone")

    browser = Browser()
    async with streaming(browser, broken) as (_, returned):
        await returned.wait()
    assert browser.is_over


async def test_half_a_character_of_a_job_breaks_no_stream():
    pages: list[Any] = ["\ud800"]

    async def page(_: str | None) -> JsonPage:
        if not pages:
            await anyio.sleep_forever()
        return JsonPage(cursor="e.1", text=pages.pop())

    browser = Browser()
    async with streaming(browser, page):
        await browser.until(lambda: "data: ?\n\n" in browser.text)
