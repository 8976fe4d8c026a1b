"""Resource subscriptions: clients of 2026 get changes on their open stream, older ones as notifications."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, finalize

import anyio
from mcp.server.session import ServerSession
from mcp.server.subscriptions import ListenHandler
from mcp.shared.subscriptions import ResourceUpdated, ServerEvent
from mcp_types import (
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionFilter,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from jobs.event_bus import JobEventBus
from jobs.model import Job
from server.mcp.calls import Context, call_of
from server.mcp.connection_state import Connection
from server.mcp.resources import uris_of, visible

logger = logging.getLogger(__name__)

SEND_SECONDS = 10.0
"""How long a client may take to receive one notification before its subscriptions end."""

_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class JobBus:
    """The SDK's bus, fed by changes of jobs.

    Args:
        event_bus: Where changes are announced.
    """

    def __init__(self, event_bus: JobEventBus) -> None:
        self._event_bus = event_bus

    async def publish(self, event: ServerEvent) -> None:
        """Do nothing: only jobs change here."""

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Call a listener with each resource that changes with a job."""

        def tell(uris: Sequence[str]) -> None:
            for uri in uris:
                listener(ResourceUpdated(uri=uri))

        return _observed(self._event_bus, tell)


@dataclass(eq=False)
class _Watcher:
    """The subscriptions of one older client.

    Args:
        session: Where notifications are sent.
    """

    session: ServerSession
    uris: set[str] = field(default_factory=set)
    changed: dict[str, None] = field(default_factory=dict)
    news: anyio.Event = field(default_factory=anyio.Event)
    gone: bool = False

    def tell(self, uris: Sequence[str]) -> None:
        if touched := self.uris.intersection(uris):
            self.changed.update(dict.fromkeys(touched))
            self.news.set()

    def leave(self) -> None:
        self.gone = True
        self.news.set()


class Subscriptions:
    """Both kinds of subscription, for every connection of the engine.

    Args:
        event_bus: Where changes of jobs are announced.
        start_soon: Starts a coroutine function in the engine's task group.
    """

    def __init__(self, event_bus: JobEventBus, start_soon: Callable[..., object]) -> None:
        self._event_bus = event_bus
        self._start_soon = start_soon
        self._listen = ListenHandler(JobBus(event_bus))
        self._watchers: WeakKeyDictionary[Connection, _Watcher] = WeakKeyDictionary()

    async def listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """Serve `subscriptions/listen` for those resources that the caller may see."""
        asked = params.notifications
        call = await call_of(ctx)
        seen = [uri for uri in asked.resource_subscriptions or () if await visible(call, uri)]
        # Lists of tools and prompts never change while a connection lasts, and the list of jobs is no such event.
        honoured = SubscriptionFilter(resource_subscriptions=seen or None)
        async with call.flow.waiting():
            return await self._listen(ctx, params.model_copy(update={"notifications": honoured}))

    async def subscribe(self, ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
        """Serve `resources/subscribe`; a resource that the caller may not see sends no changes."""
        if await visible(await call_of(ctx), params.uri):
            self._watcher(ctx).uris.add(params.uri)
        return EmptyResult()

    async def unsubscribe(self, ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Serve `resources/unsubscribe`."""
        watcher = self._watchers.get(ctx.lifespan_context)
        if watcher is not None:
            watcher.uris.discard(params.uri)
        return EmptyResult()

    def _watcher(self, ctx: Context) -> _Watcher:
        connection = ctx.lifespan_context
        watcher = self._watchers.get(connection)
        if watcher is None or watcher.gone:
            watcher = self._watchers[connection] = _Watcher(ctx.session)
            finalize(connection, watcher.leave)
            self._start_soon(self._deliver, watcher)
        return watcher

    async def _deliver(self, watcher: _Watcher) -> None:
        stop = _observed(self._event_bus, watcher.tell)
        try:
            while not watcher.gone:
                await watcher.news.wait()
                changed, watcher.changed, watcher.news = watcher.changed, {}, anyio.Event()
                await _send(watcher, list(changed))
        finally:
            # Also where it failed: the client's next subscription then begins another delivery.
            watcher.gone = True
            stop()


def _observed(event_bus: JobEventBus, tell: Callable[[Sequence[str]], None]) -> Callable[[], None]:
    """Call `tell` with the URIs of each resource that changes with a job or with what it does."""

    def on_activity(job: Job) -> None:
        # Not the tree: one of hundreds of jobs would change all the time.
        tell((f"job://{job.id}", f"job://{job.id}/transcript"))

    stops = (event_bus.observe(lambda job: tell(uris_of(job))), event_bus.observe_activity(on_activity))

    def stop() -> None:
        for one in stops:
            one()

    return stop


async def _send(watcher: _Watcher, uris: list[str]) -> None:
    try:
        for uri in uris:
            with anyio.fail_after(SEND_SECONDS):
                await watcher.session.send_resource_updated(uri)
    except (*_GONE, TimeoutError):
        logger.debug("a client that watched %d resources is gone", len(watcher.uris))
        watcher.gone = True
