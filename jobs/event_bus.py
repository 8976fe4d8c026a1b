"""Event bus for changes of jobs: wakes the waiters of a tree, in memory only, since the store keeps what happened."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from jobs.model import Job
from jobs.paused import PausedPath

T = TypeVar("T")

logger = logging.getLogger(__name__)

ACTIVITY_SECONDS = 1.0
"""Least time between two announcements of what one job does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseChange:
    """A pause by a person or a job that began or ended.

    Args:
        began: Whether it began.
        pauses: The paused parts of the trees.
    """

    began: bool
    pauses: tuple[PausedPath, ...]


@dataclass(eq=False)
class Subscription:
    """The changes that one waiter has not seen yet.

    Args:
        wants: Tells whether a changed job concerns this waiter.
    """

    wants: Callable[[Job], bool]
    _news: list[Job] = field(default_factory=list)
    _event: anyio.Event = field(default_factory=anyio.Event)

    async def changes(self) -> list[Job]:
        """Wait for at least one change and return all that have not been taken, oldest first."""
        await self._event.wait()
        taken, self._news, self._event = self._news, [], anyio.Event()
        return taken

    def offer(self, job: Job) -> None:
        """Add a change that concerns this waiter."""
        if self.wants(job):
            self._news.append(job)
            self._event.set()


class JobEventBus:
    """Carries each change of a job to the waiters of its tree."""

    def __init__(self) -> None:
        self._by_root: dict[str, set[Subscription]] = defaultdict(set)
        self._observers: dict[object, Callable[[Job], None]] = {}
        self._activity_observers: dict[object, Callable[[Job], None]] = {}
        # Jobs that were announced within the last second, with what is to be announced after it.
        self._announced: dict[str, Job | None] = {}
        self._pause_observers: dict[object, Callable[[PauseChange], None]] = {}

    @contextmanager
    def subscribe(self, root_ids: Collection[str], wants: Callable[[Job], bool]) -> Iterator[Subscription]:
        """Collect changes of some trees while the block lasts.

        Enter the block before reading the store: a change between the two is then seen twice, never missed.
        """
        subscription = Subscription(wants)
        for root_id in root_ids:
            self._by_root[root_id].add(subscription)
        try:
            yield subscription
        finally:
            for root_id in root_ids:
                self._unsubscribe(root_id, subscription)

    def publish(self, job: Job) -> None:
        """Tell the tree's waiters the job as it is now."""
        for subscription in tuple(self._by_root.get(job.root_id, ())):
            subscription.offer(job)
        for observer in tuple(self._observers.values()):
            _call(observer, job)

    def observe(self, observer: Callable[[Job], None]) -> Callable[[], None]:
        """Call `observer` on each change of any job, until the function that this returns is called.

        Args:
            observer: Called where the change is announced, so it must not wait; its errors are logged.
        """
        return _add(self._observers, observer)

    def publish_activity(self, job: Job) -> None:
        """Tell those who look that what a job does has changed: now, or where they were told within a second, after it.

        Args:
            job: The job as it was claimed.
        """
        if not self._activity_observers:
            return
        if job.id in self._announced:
            self._announced[job.id] = job
            return
        self._announced[job.id] = None
        asyncio.get_running_loop().call_later(ACTIVITY_SECONDS, self._announce_rest, job.id)
        for observer in tuple(self._activity_observers.values()):
            _call(observer, job)

    def observe_activity(self, observer: Callable[[Job], None]) -> Callable[[], None]:
        """Call `observer` when what a job does has changed, at most once a second per job, until the returned call.

        Args:
            observer: Must not wait; its errors are logged. It gets the job as it was claimed: ask the store for the
                job as it is now, and the runner's `activity` for what it does. Silence is no change.
        """
        return _add(self._activity_observers, observer)

    def _announce_rest(self, job_id: str) -> None:
        job = self._announced.pop(job_id, None)
        if job is not None:
            self.publish_activity(job)

    def announce_pause(self, change: PauseChange) -> None:
        """Tell that a person or a job has paused something or resumed it; its jobs are published too."""
        for observer in tuple(self._pause_observers.values()):
            try:
                observer(change)
            except Exception:
                logger.exception("an observer of a pause failed")

    def observe_pauses(self, observer: Callable[[PauseChange], None]) -> Callable[[], None]:
        """Call `observer` on each pause that begins or ends, until the returned call.

        Args:
            observer: Must not wait; its errors are logged.
        """
        return _add(self._pause_observers, observer)

    def _unsubscribe(self, root_id: str, subscription: Subscription) -> None:
        waiting = self._by_root[root_id]
        waiting.discard(subscription)
        if not waiting:
            del self._by_root[root_id]


def _add(observers: dict[object, Callable[[T], None]], observer: Callable[[T], None]) -> Callable[[], None]:
    key = object()
    observers[key] = observer

    def stop() -> None:
        observers.pop(key, None)

    return stop


def _call(observer: Callable[[Job], None], job: Job) -> None:
    try:
        observer(job)
    except Exception:
        logger.exception("an observer of job %s failed", job.id)
