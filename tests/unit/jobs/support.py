"""What the tests of `jobs` share: jobs in memory, a clock, a runner without processes, and an engine's parts."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

import orchestration.patterns  # noqa: F401 - loaded here, so that the first batch of a test does not wait for it
from jobs.activity import Activity
from jobs.assembly import Parts as ManagerParts
from jobs.claude.command import McpServer
from jobs.client_context import ClientContext, ClientContextStore
from jobs.event_bus import JobEventBus
from jobs.limit_changes import LimitChanges
from jobs.limits.budget import Ledger
from jobs.limits.throttle import Throttle
from jobs.manager import EnhancedJobManager
from jobs.model import TERMINAL, Job, JobStatus, Outcome, Reason
from jobs.pausing import PauseService
from jobs.ports import AdmissionFacts, Runner, Store
from jobs.ports import Clock as SystemClock
from jobs.recursion_manager import RecursionManager
from jobs.runner.launch_plan import LaunchPlanner
from jobs.runner.runner import LocalRunner
from jobs.scheduler import Scheduler
from jobs.settings import Settings
from jobs.spec import JobSpec, TaskRequest
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from jobs.validation import SpecBuilder

TESTS = Path(__file__).parents[2]
QUICK_STUB = TESTS / "fakes" / "claude_stub.sh"
TORTURE_STUB = TESTS / "fakes" / "claude_stub.py"
CLIENT_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "ANTHROPIC_API_KEY": "sk-fake-not-real"}
LONG = 20.0
"""Seconds after which a wait of these tests has failed, on the busiest machine."""


def job(job_id: str, *, root: str = "t", depth: int = 1, path: str | None = None, **fields: Any) -> Job:
    """A job outside of every store."""
    defaults: dict[str, Any] = {"seq": 1, "parent_id": None, "batch_id": root, "spec": JobSpec(task="x", cwd="/")}
    return Job(id=job_id, root_id=root, depth=depth, path=path or f"{root}/{job_id}", **(defaults | fields))


class Clock(SystemClock):
    """The system's clock: as much later as a test says, and with the time of day set by as much as it says."""

    def __init__(self) -> None:
        self.moved = 0.0
        self.set_by = 0.0

    def now(self) -> float:
        return time.time() + self.moved + self.set_by

    def monotonic(self) -> float:
        return time.monotonic() + self.moved


class OpenGate:
    """A launch gate that lets every job pass."""

    def admits(self, running: int) -> bool:
        return True

    def admits_of(self, account: str, running: int) -> bool:
        return True

    def launching(self, job_id: str) -> None:
        pass

    def started(self, job_id: str) -> None:
        pass


class FakeRunner:
    """Runs jobs without processes: a task that begins with "hold" runs until it is released, any other ends at once.

    Args:
        store: Where trees are kept.
        event_bus: Where changes are announced.
    """

    def __init__(self, store: Store, event_bus: JobEventBus) -> None:
        self.started: list[str] = []
        self.adopted: list[str] = []
        self.cancelled: list[str] = []
        self.interrupted: list[str] = []
        self._store = store
        self._event_bus = event_bus
        self._released: dict[str, anyio.Event] = {}

    async def run(self, job_id: str, on_launched: Callable[[], None] = lambda: None) -> Job:
        await self.start(job_id)
        on_launched()
        return await self.result(job_id)

    async def start(self, job_id: str) -> None:
        found = await known(self._store, job_id)
        if found.status is JobStatus.RUNNING:
            self.adopted.append(job_id)
        elif await self._store.claim(job_id, session_id=f"session of {job_id}", token_hash=None, at=1.0):
            self.started.append(job_id)
            self._event_bus.publish(await known(self._store, job_id))

    async def result(self, job_id: str) -> Job:
        found = await known(self._store, job_id)
        if found.status is not JobStatus.RUNNING:
            return found
        if found.spec.task.startswith("hold") or (found.spec.task.startswith("fail once") and found.attempt > 1):
            await self._release_of(job_id).wait()
        settled = await self._store.settle(job_id, found.attempt, self._outcome(found), at=2.0)
        self._event_bus.publish(settled)
        return settled

    async def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)
        if "stubborn" not in (await known(self._store, job_id)).spec.task:
            self.release(job_id)

    def apply_limits(self, path: str) -> None:
        pass

    def end_paused(self) -> None:
        assert isinstance(self._store, LiveStore)
        for live in self._store.trees.live():
            if live.status is JobStatus.RUNNING and self._store.paused_paths.ends(live.path):
                self.interrupted.append(live.id)
                self.release(live.id)

    async def abandon(self, job_id: str, why: str) -> Job:
        return await given_up(self._store, self._event_bus, job_id, why)

    def activity(self, job_id: str) -> Activity | None:
        return None

    def release(self, job_id: str) -> None:
        self._release_of(job_id).set()

    def _release_of(self, job_id: str) -> anyio.Event:
        return self._released.setdefault(job_id, anyio.Event())

    def _outcome(self, found: Job) -> Outcome:
        if found.id in self.cancelled:
            return Outcome(reason=Reason.CANCELLED, status=JobStatus.CANCELLED)
        if found.id in self.interrupted:
            self.interrupted.remove(found.id)
            return Outcome(reason=Reason.INTERRUPTED, status=JobStatus.QUEUED)
        if found.spec.task.startswith("fail once") and found.attempt > 1:
            return Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED)
        if found.spec.task.startswith("fail"):
            return Outcome(reason=Reason.MAX_TURNS, status=JobStatus.FAILED, detail="told to")
        if found.spec.task.startswith("raise"):
            raise RuntimeError("the runner itself is broken")
        return Outcome(reason=Reason.COMPLETED, status=JobStatus.COMPLETED, result=found.spec.task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """An engine without its socket.

    Args:
        work: The directory that jobs work in.
    """

    settings: Settings
    store: LiveStore
    event_bus: JobEventBus
    scheduler: Scheduler
    client_contexts: ClientContextStore
    throttle: Throttle
    recursion: RecursionManager
    ledger: Ledger
    runner: Any
    manager: EnhancedJobManager
    pausing: PauseService
    limits: LimitChanges
    trees: Path
    work: Path
    clock: Clock
    group: anyio.abc.TaskGroup
    client_env: Mapping[str, str] = field(default_factory=lambda: CLIENT_ENV)

    @property
    def client_context(self) -> ClientContext:
        return ClientContext(cwd=str(self.work), env=self.client_env, client="a client")

    async def run(self, *tasks: str | TaskRequest, parent: str | None = None) -> list[str]:
        """Start a batch."""
        return await self.manager.execute_batch_async(tasks, parent, client_context=self.client_context)

    async def job(self, job_id: str) -> Job:
        return await known(self.store, job_id)

    async def over(self, *job_ids: str) -> list[Job]:
        """Wait until these jobs are over, and return them."""
        return [await self.reaches(job_id, *TERMINAL) for job_id in job_ids]

    async def reaches(self, job_id: str, *statuses: JobStatus) -> Job:
        """Wait until a job takes one of these statuses."""
        found = await self.job(job_id)
        with self.event_bus.subscribe([found.root_id], lambda changed: changed.id == job_id) as changes:
            with anyio.fail_after(LONG):
                while (found := await self.job(job_id)).status not in statuses:
                    await changes.changes()
        return found

    def local_runner(self) -> LocalRunner:
        """One more runner over the same store and directory, as a second engine has it."""
        return LocalRunner(
            settings=self.settings,
            store=self.store,
            launch_planner=preparation_of(self.settings, self.store, self.client_contexts),
            scheduler=self.scheduler,
            throttle=self.throttle,
            event_bus=self.event_bus,
            clock=self.clock,
            start_soon=self.group.start_soon,
        )


MakeRunner = Callable[[Settings, LiveStore, JobEventBus], Runner]


def _fake(_: Settings, store: LiveStore, event_bus: JobEventBus) -> FakeRunner:
    return FakeRunner(store, event_bus)


async def _in_memory(store: Store) -> LiveStore:
    return store if isinstance(store, LiveStore) else await LiveStore.over(store)


async def given_up(store: Store, event_bus: JobEventBus, job_id: str, why: str) -> Job:
    """What abandoning a job comes to where there are no processes."""
    found = await known(store, job_id)
    outcome = Outcome(reason=Reason.UNKNOWN_ERROR, status=JobStatus.FAILED, detail=why)
    if found.status is JobStatus.RUNNING:
        found = await store.settle(job_id, found.attempt, outcome, at=2.0)
    else:
        found = await store.fail_queued(job_id, outcome, at=2.0) or found
    event_bus.publish(found)
    return found


async def known(store: Store, job_id: str) -> Job:
    found = await store.job(job_id)
    assert found is not None
    return found


@asynccontextmanager
async def parts(
    tmp_path: Path,
    *,
    processes: bool = False,
    store: Store | None = None,
    runner: MakeRunner | None = None,
    **settings: Any,
) -> AsyncIterator[Parts]:
    """Build the parts; whatever still runs in the engine's task group is cancelled at the end.

    Args:
        processes: Start the stub instead of pretending.
        store: A store with a past, or None for an empty one.
        runner: Makes what runs jobs, or None for the usual one.
        settings: Settings that differ.
    """
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    defaults = {"cli": QUICK_STUB, "grace_seconds": 0.2, "max_running": 50, "max_starting": 50, "memory_floor_bytes": 0}
    chosen = Settings(**{"home": home, **defaults, **settings})
    store, event_bus, clock = await _in_memory(store or MemoryStore()), JobEventBus(), Clock()
    client_contexts = ClientContextStore(home / "trees")
    throttle = Throttle(
        max_running=chosen.max_running,
        max_starting=chosen.max_starting,
        free_memory=lambda: 2**40,
        memory_floor=chosen.memory_floor_bytes,
        clock=clock,
    )
    scheduler = Scheduler(
        chosen.tree_limits,
        chosen.max_running,
        throttle,
        subtree_slots=store.trees.subtree_slots,
        pauses=store.paused_paths,
    )
    ledger = Ledger(store.trees)
    recursion = RecursionManager(
        chosen.tree_limits, store, scheduler, ledger=ledger, throttle=throttle, pauses=store.paused_paths
    )
    async with anyio.create_task_group() as group:
        made: Runner = (
            LocalRunner(
                settings=chosen,
                store=store,
                launch_planner=preparation_of(chosen, store, client_contexts),
                scheduler=scheduler,
                throttle=throttle,
                event_bus=event_bus,
                clock=clock,
                start_soon=group.start_soon,
                ledger=ledger,
                pauses=store.paused_paths,
            )
            if processes
            else (runner or _fake)(chosen, store, event_bus)
        )
        of_manager = ManagerParts(
            store=store,
            runner=made,
            recursion=recursion,
            spec_builder=SpecBuilder(chosen),
            client_contexts=client_contexts,
            event_bus=event_bus,
            clock=clock,
            start_soon=group.start_soon,
        )
        yield Parts(
            settings=chosen,
            store=store,
            event_bus=event_bus,
            scheduler=scheduler,
            throttle=throttle,
            recursion=recursion,
            ledger=ledger,
            client_contexts=client_contexts,
            runner=made,
            manager=EnhancedJobManager(of_manager),
            pausing=PauseService(
                store=store,
                recursion=recursion,
                runner=made,
                event_bus=event_bus,
                clock=clock,
            ),
            limits=LimitChanges(of_manager),
            trees=home / "trees",
            work=work,
            clock=clock,
            group=group,
        )
        group.cancel_scope.cancel()


def preparation_of(settings: Settings, store: Store, client_contexts: ClientContextStore) -> LaunchPlanner:
    return LaunchPlanner(
        settings=settings,
        store=store,
        client_contexts=client_contexts,
        trees=settings.home / "trees",
        mcp_server=McpServer(command="claude-jobs", args=("mcp",)),
        # One of its own, as each state directory has: what another test left running is not taken for this one's.
        key=hashlib.sha256(str(settings.home).encode()).hexdigest()[:8],
        umask=0o022,
    )


def admit_anything(facts: AdmissionFacts) -> None:
    """Refuse nothing."""


async def settle() -> None:
    """Let every task go on until it waits for something: nothing here needs more turns, and none waits for time."""
    for _ in range(30):
        await anyio.lowlevel.checkpoint()
