"""What a client has sent and nobody works on yet: kept in order up to a bound, then the client is not read from."""

from collections import deque
from dataclasses import dataclass
from typing import Final

import anyio

from server.protocol.flow_control import RequestId

MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one connection's messages that may stand in line; a single longer message may stand there alone."""

_OVERHEAD: Final = 256
"""Bytes that a queued message takes besides its text."""


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """One message in line.

    Args:
        line: Its text.
        request_id: The id of a request, or None for what is no request.
    """

    line: bytes
    request_id: RequestId | None

    @property
    def size(self) -> int:
        """The bytes that it takes."""
        return len(self.line) + _OVERHEAD


class Inbox:
    """The messages of one connection that nobody works on yet."""

    def __init__(self) -> None:
        self._queue: deque[Queued] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = anyio.Event()

    async def put(self, message: Queued) -> None:
        """Add a message at the end, once there is room for it."""
        while self._queue and self._bytes + message.size > MAX_QUEUED_BYTES:
            await self._changed.wait()
        self._queue.append(message)
        self._bytes += message.size
        self._announce()

    def close(self) -> None:
        """Note that no message comes any more."""
        self._closed = True
        self._announce()

    async def first(self) -> Queued | None:
        """Return the first message once there is one, and leave it in line; None where no message comes any more."""
        while not self._queue:
            if self._closed:
                return None
            await self._changed.wait()
        return self._queue[0]

    def remove(self, message: Queued) -> bool:
        """Take a message out of the line; False where it does not stand there any more."""
        try:
            self._queue.remove(message)
        except ValueError:
            return False
        self._bytes -= message.size
        self._announce()
        return True

    def withdraw(self, request_id: RequestId) -> bool:
        """Take a request out of the line that its sender has cancelled; False where it does not stand there."""
        found = next((one for one in self._queue if one.request_id == request_id), None)
        return found is not None and self.remove(found)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
