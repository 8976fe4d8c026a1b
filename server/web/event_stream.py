"""The job feed as server-sent events: one page after the other, for as long as the browser takes them."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import anyio
from starlette.types import Message, Receive, Scope, Send

from jobs.errors import StoreError
from server.feed.watch import JsonPage

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 15.0
"""Seconds after which a quiet stream gets a comment, so that either end notices that the other one is gone."""

STUCK_SECONDS: Final = 60.0
"""Seconds for which the browser may take nothing; then the stream is closed, and it can come back."""

FAREWELL_SECONDS: Final = 0.5
"""Seconds that the last event may take."""

_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8")]


NextPage = Callable[[str | None], Awaitable[JsonPage]]
"""Returns the page after a cursor once there is one, within a bounded time."""


class Counter(Protocol):
    """Counts the connections of an engine."""

    def come(self) -> None:
        """Count one more."""
        ...

    def go(self) -> None:
        """Count one less."""
        ...


class EventStream:
    """Answers a request with pages until the browser leaves or the engine stops.

    The next page is built once the last one was taken, so a browser that reads slowly, or not at all, costs no memory.

    Args:
        next_page: Builds the next page.
        cursor: Of the last page that the browser has, or None.
        stopping: Set once the engine stops.
        is_brief: It ends after the pages that there are now, and says that the browser is to come back later.
    """

    def __init__(
        self, next_page: NextPage, cursor: str | None, stopping: anyio.Event, *, is_brief: bool = False
    ) -> None:
        self._is_brief = is_brief
        self._next_page = next_page
        self._cursor = cursor
        self._stopping = stopping
        self._sending = anyio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async with anyio.create_task_group() as group:
            group.start_soon(_until_gone, receive, group.cancel_scope)
            with anyio.CancelScope() as reading:
                group.start_soon(_cancel_once, self._stopping, reading)
                group.start_soon(self._keep_awake, send, reading)
                try:
                    await self._send_pages(send)
                except StoreError as error:
                    # The browser asks again.
                    logger.warning("an open page gets no more changes: %s", error)
            if self._stopping.is_set():
                with anyio.move_on_after(FAREWELL_SECONDS):
                    await self._send(send, "event: end\ndata:\n\n")
            with anyio.move_on_after(FAREWELL_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()

    async def _send_pages(self, send: Send) -> None:
        while True:
            page = await self._next_page(self._cursor)
            with anyio.move_on_after(STUCK_SECONDS) as taking:
                await self._send(send, f"id: {page.cursor}\nevent: page\ndata: {page.text}\n\n")
            if taking.cancelled_caught:
                return
            self._cursor = page.cursor
            if self._is_brief and not page.more:
                await self._send(send, "event: later\ndata:\n\n")
                return

    async def _keep_awake(self, send: Send, reading: anyio.CancelScope) -> None:
        while not reading.cancel_called:
            await anyio.sleep(HEARTBEAT_SECONDS)
            # A page that is being taken says as much.
            if not self._sending.locked():
                await self._send(send, ":\n\n")

    async def _send(self, send: Send, text: str) -> None:
        # Half a character, from the text of a job, cannot be sent.
        body = text.encode("utf-8", "replace")
        async with self._sending:
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()
    scope.cancel()


async def _cancel_once(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
