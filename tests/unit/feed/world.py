"""A feed over a store in memory: jobs are moved by hand, and each test reads what its watchers are told."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from jobs.activity import Activity
from jobs.event_bus import JobEventBus, PauseChange
from jobs.model import Job, JobStatus, Outcome, Reason, Usage
from jobs.paused import PausedPath
from jobs.ports import Clock
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from jobs.wait_history import WaitHistory
from jobs.waiting_for import Wait, WaitingFor
from server.feed.index import FeedSources
from server.feed.scope import WHOLE, FeedScope
from server.feed.watch import FeedWatch, JobFeed
from tests.contract.support import admit, admit_root, start


class Hands(Clock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class World:
    """A store, its feed, and what happens to the jobs."""

    store: LiveStore
    clock: Hands = field(default_factory=Hands)
    event_bus: JobEventBus = field(default_factory=JobEventBus)
    used: dict[str, Usage] = field(default_factory=dict)
    waits: dict[str, Wait] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.history = WaitHistory(self.clock.now)

    @classmethod
    async def empty(cls) -> "World":
        return cls(await LiveStore.over(MemoryStore()))

    def feed(self) -> JobFeed:
        return JobFeed(
            FeedSources(
                store=self.store,
                event_bus=self.event_bus,
                wait_of=lambda job: self.waits.get(job.id),
                activity_of=self._activity,
                paused_paths=self.store.paused_paths,
                waits_of=self.history.of,
                pauses=tuple,
                clock=self.clock,
            )
        )

    def _activity(self, job: Job) -> Activity | None:
        usage = self.used.get(job.id)
        return None if usage is None else Activity(doing="thinking", last_output_at=self.clock.at, usage=usage)

    async def root(self, job_id: str, **more: Any) -> None:
        self.event_bus.publish(await admit_root(self.store, job_id, at=self.clock.at, **more))

    async def spawn(self, parent_id: str | None, batch_id: str, *ids: str, **more: Any) -> None:
        for job in await admit(self.store, batch_id, *ids, parent_id=parent_id, at=self.clock.at, **more):
            self.event_bus.publish(job)

    async def claim(self, *ids: str) -> None:
        for job_id in ids:
            await start(self.store, job_id, at=self.clock.at)
            await self.publish(job_id)

    async def use(self, job_id: str, usage: Usage) -> None:
        """Let a running attempt have used so much."""
        self.used[job_id] = usage
        self.event_bus.publish_activity(await self.job(job_id))

    async def ask(self, job_id: str) -> None:
        """Let a running job ask for a permission."""
        asking = await self.store.set_waiting_for(job_id, WaitingFor.PERMISSION)
        assert asking is not None
        self.event_bus.publish(asking)

    async def end(self, job_id: str, status: JobStatus = JobStatus.COMPLETED, usage: Usage | None = None) -> None:
        job = await self.job(job_id)
        reason = Reason.COMPLETED if status is JobStatus.COMPLETED else Reason.MAX_TURNS
        used, waits = usage or self.used.pop(job_id, Usage()), self.history.ended_at(job_id, self.clock.at)
        self.waits.pop(job_id, None)
        outcome = Outcome(reason=reason, status=status, usage=used, waits=waits)
        self.history.forget(job_id)
        self.event_bus.publish(await self.store.settle(job_id, job.attempt, outcome, at=self.clock.at))

    def park(self, job_id: str, *, parked: bool = True) -> None:
        """Let a running job wait for its own jobs in a call, or wait no more."""
        self.history.note_parked(job_id, parked)
        self.waits.pop(job_id, None)
        if parked:
            self.waits[job_id] = Wait(what=WaitingFor.CHILDREN)

    async def pause(self, path: str) -> None:
        rows = await self.store.pause([PausedPath(path=path, since=self.clock.at)])
        self.event_bus.announce_pause(PauseChange(began=True, pauses=tuple(rows)))

    async def resume(self, path: str) -> None:
        rows = self.store.paused_paths.under(path)
        await self.store.unpause([row.path for row in rows], at=self.clock.at)
        self.event_bus.announce_pause(PauseChange(began=False, pauses=tuple(rows)))

    async def retry(self, job_id: str) -> None:
        queued = await self.store.requeue(job_id)
        assert queued is not None
        self.event_bus.publish(queued)

    async def publish(self, job_id: str) -> None:
        self.event_bus.publish(await self.job(job_id))

    async def job(self, job_id: str) -> Job:
        job = await self.store.job(job_id)
        assert job is not None
        return job


@dataclass
class Told:
    """What one watcher has been told, page after page."""

    watch: FeedWatch
    clock: Hands
    scope: FeedScope = WHOLE
    cursor: str | None = None
    jobs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    trees: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    async def news(self) -> list[str]:
        """Ask for all that there is now; return the ids of the jobs that came, in order."""
        ids: list[str] = []
        more = True
        while more:
            # So that nobody waits for the second between two pages.
            self.clock.at += 1.0
            page = self.last = await self.watch.page(self.cursor, self.scope)
            if page["reset"]:
                self.jobs.clear()
                self.trees.clear()
            self.jobs |= {row["jobId"]: row for row in page["jobs"]}
            self.trees |= {row["rootId"]: row for row in page["trees"]}
            for root_id in page["gone"]:
                self.trees.pop(root_id, None)
            ids += [row["jobId"] for row in page["jobs"]]
            self.cursor, more = page["cursor"], page["more"]
        return ids


@dataclass
class Seats:
    """A world, its feed, and seats for watchers."""

    world: World
    feed: JobFeed
    stack: ExitStack

    def watch(self, scope: FeedScope) -> Told:
        return Told(self.stack.enter_context(self.feed.watch()), self.world.clock, scope)
