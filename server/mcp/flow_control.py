"""Flow control of one connection: limits its open requests, and holds back the ones after them."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

RequestId = int | str

MAX_WORKING: Final = 32
"""Most requests of one connection that are handled or whose reply is not sent yet; waiting calls do not count."""

MAX_OPEN: Final = 4096
"""Most unanswered requests of one connection, the waiting ones included: about 31 KB each (measured)."""

MAX_OPEN_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of the unanswered requests: two of the longest messages."""


class FlowControl:
    """Counts the open requests of one connection and holds back those that are too many.

    A client that sends and does not read gets no further than `MAX_WORKING` replies: its other requests are not handled
    before it has read. A call that waits for jobs or for a person leaves room for others meanwhile, and takes
    its place again before it builds its reply.
    """

    def __init__(self) -> None:
        self._working = 0
        self._line: deque[anyio.Event] = deque()
        self._sizes: dict[RequestId, deque[int]] = {}
        self._open = 0
        self._bytes = 0
        self._one_ended = anyio.Event()

    async def begin(self, request_id: RequestId, size: int) -> None:
        """Wait for room and count a request as open.

        Args:
            request_id: Its id; an id that is in use already is counted separately.
            size: Its bytes.
        """
        while self._open >= MAX_OPEN or (self._open and self._bytes + size > MAX_OPEN_BYTES):
            self._one_ended = anyio.Event()
            await self._one_ended.wait()
        await self._enter()
        self._open += 1
        self._bytes += size
        self._sizes.setdefault(request_id, deque()).append(size)

    def end(self, request_id: RequestId) -> None:
        """Count a request as closed: its reply has been sent, or it gets none."""
        sizes = self._sizes.get(request_id)
        if sizes is None:
            return
        self._bytes -= sizes.popleft()
        if not sizes:
            del self._sizes[request_id]
        self._open -= 1
        self._leave()
        self._one_ended.set()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Leave room for other requests while the block runs, in which the call only waits."""
        self._leave()
        entered = False
        try:
            yield
            await self._enter()
            entered = True
        finally:
            if not entered:
                # The call was cancelled or failed: the rest of it needs no room.
                self._working += 1

    async def _enter(self) -> None:
        if self._working < MAX_WORKING and not self._line:
            self._working += 1
            return
        turn = anyio.Event()
        self._line.append(turn)
        entered = False
        try:
            await turn.wait()
            entered = True
        finally:
            if not entered:
                # Cancelled before its turn, or at that moment.
                self._leave() if turn.is_set() else self._line.remove(turn)

    def _leave(self) -> None:
        self._working -= 1
        while self._line and self._working < MAX_WORKING:
            self._line.popleft().set()
            self._working += 1
