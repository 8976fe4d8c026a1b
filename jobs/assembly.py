"""Assembles the parts of a manager: an engine's over its store, and those of a standalone manager."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import anyio
import psutil
from anyio.abc import TaskGroup

from jobs.claude.binary import ClaudeFinder
from jobs.claude.command import McpServer
from jobs.client_context import ClientContext, ClientContextStore
from jobs.errors import ManagerClosedError
from jobs.event_bus import JobEventBus
from jobs.limits.account_budgets import AccountBudgets
from jobs.limits.budget import Ledger
from jobs.limits.pause_file import PauseFile
from jobs.limits.throttle import Throttle
from jobs.ports import Clock, Runner, Store
from jobs.processes.spawning import Spawner
from jobs.recursion_manager import RecursionManager
from jobs.runner.accounts import Accounts
from jobs.runner.launch_plan import LaunchPlanner
from jobs.runner.runner import LocalRunner
from jobs.scheduler import Scheduler
from jobs.settings import Settings
from jobs.settings_sources import load_here
from jobs.store.live import LiveStore
from jobs.store.memory import MemoryStore
from jobs.validation import SpecBuilder
from jobs.wait_history import WaitHistory

StartSoon = Callable[..., object]
"""Starts a coroutine function with arguments in the engine's own task group, so that it outlives every request."""

_CLOSE_SECONDS = 5.0
"""Seconds beyond `grace_seconds` that a close waits for the end of all jobs; what is left then is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that a manager is made of.

    Args:
        store: Where trees are kept.
        runner: Runs jobs.
        recursion: Admits spawns and gives out slots.
        spec_builder: Checks requests.
        client_contexts: Where each tree's client environment is kept.
        event_bus: Where changes of jobs are announced.
        clock: Time.
        start_soon: Starts a coroutine function in the engine's task group.
        client_context: Returns the client of a tree whose caller names none.
    """

    store: Store
    runner: Runner
    recursion: RecursionManager
    spec_builder: SpecBuilder
    client_contexts: ClientContextStore
    event_bus: JobEventBus
    clock: Clock
    start_soon: StartSoon
    client_context: Callable[[], ClientContext] = lambda: ClientContext(cwd="/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The parts of a manager, and those of them that an engine uses directly.

    Args:
        parts: The parts that the manager takes.
        runner: Its runner.
        launch_planner: Plans the launch of attempts.
        claudes: Finds binaries.
        pause_file: Keeps usage limits.
        throttle: Knows them.
        account_budgets: Knows which budgets of accounts are used up.
        wait_history: Waits of the attempts that run.
    """

    parts: Parts
    runner: LocalRunner
    launch_planner: LaunchPlanner
    claudes: ClaudeFinder
    pause_file: PauseFile
    throttle: Throttle
    account_budgets: AccountBudgets
    wait_history: WaitHistory


class Tasks(Protocol):
    """Starts the asyncio tasks of an engine."""

    def keep(self, task: Callable[..., Coroutine[Any, Any, None]], /, *args: object) -> None:
        """Run a coroutine function in a task of its own, again after an error, until it returns."""
        ...

    def start(self, task: Callable[..., Coroutine[Any, Any, None]], /, *args: object) -> None:
        """Run a coroutine function in a task of its own, once."""
        ...


def assemble_parts(
    settings: Settings,
    store: LiveStore,
    tasks: Tasks,
    *,
    trees: Path,
    pauses: Path,
    key: str,
    umask: int,
    mcp_server: McpServer | None = None,
    spawner: Spawner | None = None,
    client_context: Callable[[], ClientContext] = lambda: ClientContext(cwd="/"),
) -> Assembled:
    """Build the parts over a store, and start the asyncio tasks that run with them.

    Args:
        settings: The engine's settings.
        store: Where trees are kept.
        tasks: Starts asyncio tasks, which outlive a request.
        trees: Directory of the job directories.
        pauses: File of the usage limits.
        key: As `LaunchPlanner` takes it; so are `umask` and `mcp_server`.
        umask: See there.
        mcp_server: See there.
        spawner: Starts processes; None starts them as children of this one.
        client_context: As in `Parts`.
    """
    clock = Clock()
    event_bus = JobEventBus()
    client_contexts = ClientContextStore(trees)
    limits = settings.tree_limits
    account_budgets = AccountBudgets(settings, store.spent)
    throttle = Throttle(
        max_running=settings.max_running,
        max_starting=settings.max_starting,
        free_memory=lambda: psutil.virtual_memory().available,
        memory_floor=settings.memory_floor_bytes,
        clock=clock,
        # Asked each time: this setting is read again while jobs run.
        uses_extra=lambda: settings.extra_usage == "use",
        budgets=account_budgets,
    )
    pause_file = PauseFile(pauses, throttle)
    pause_file.restore()
    tasks.keep(pause_file.keep)
    accounts = Accounts(client_contexts, clock)
    wait_history = WaitHistory(clock.now)
    scheduler = Scheduler(
        limits,
        settings.max_running,
        throttle,
        accounts.of,
        store.trees.subtree_slots,
        store.paused_paths,
        wait_history.note_parked,
    )
    tasks.keep(accounts.follow_logins, scheduler, throttle)
    ledger = Ledger(store.trees, store.spent)
    recursion = RecursionManager(
        limits,
        store,
        scheduler,
        ledger=ledger,
        throttle=throttle,
        look_up=accounts.look_up,
        account_budgets=account_budgets,
        pauses=store.paused_paths,
    )
    claudes = ClaudeFinder()
    launch_planner = LaunchPlanner(
        settings=settings,
        store=store,
        client_contexts=client_contexts,
        trees=trees,
        mcp_server=mcp_server,
        claudes=claudes,
        key=key,
        umask=umask,
    )
    runner = LocalRunner(
        settings=settings,
        store=store,
        launch_planner=launch_planner,
        scheduler=scheduler,
        throttle=throttle,
        event_bus=event_bus,
        clock=clock,
        start_soon=tasks.start,
        ledger=ledger,
        spawner=spawner,
        pauses=store.paused_paths,
        wait_history=wait_history,
    )
    tasks.keep(_reschedule_when_open, scheduler, throttle)
    tasks.keep(runner.watch_for_nested_claudes)
    parts = Parts(
        store=store,
        runner=runner,
        recursion=recursion,
        spec_builder=SpecBuilder(settings, claudes),
        client_contexts=client_contexts,
        event_bus=event_bus,
        clock=clock,
        start_soon=tasks.keep,
        client_context=client_context,
    )
    return Assembled(
        parts=parts,
        runner=runner,
        launch_planner=launch_planner,
        claudes=claudes,
        pause_file=pause_file,
        throttle=throttle,
        account_budgets=account_budgets,
        wait_history=wait_history,
    )


class StandaloneParts:
    """The parts of a standalone manager: its jobs are kept in memory, their files in a temporary directory.

    No engine takes part and no state directory is touched, so that it may run next to an engine. Jobs run with the
    environment and in the directory of this program, get the settings of its `CLAUDE_JOBS_` variables, and have no
    claude-jobs tools. A close cancels what still runs and removes the directory; where it is forgotten,
    the end of the event loop kills what runs.

    Args:
        on_open: Called once, with the parts.
        end_jobs: Ends every job and returns once all are over.
    """

    def __init__(self, on_open: Callable[[Parts], None], end_jobs: Callable[[], Awaitable[None]]) -> None:
        self._on_open = on_open
        self._end_jobs = end_jobs
        self._life: asyncio.Future[None] | None = None
        self._is_open = False
        self._opened = anyio.Event()
        self._closing = anyio.Event()

    async def open(self) -> None:
        """Make the parts, at the first call.

        Raises:
            ManagerClosedError: They were closed.
            InvalidSettingsError: A variable has a value that its setting cannot take.
            RuntimeError: They were made in another event loop.
        """
        if self._closing.is_set():
            raise ManagerClosedError
        if self._life is not None and self._life.get_loop() is not asyncio.get_running_loop():
            raise RuntimeError("This manager was opened in another event loop. Make one in each `asyncio.run`.")
        if self._life is None:
            # A separate asyncio task: the manager may be opened by a request that ends long before the close.
            self._life = asyncio.ensure_future(self._live())
        await self._opened.wait()
        if not self._is_open:
            await self._life
            raise ManagerClosedError

    async def close(self) -> None:
        """End every job and remove all files."""
        self._closing.set()
        if self._life is not None:
            with anyio.CancelScope(shield=True):
                try:
                    await self._life
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task and task.cancelling():  # else an earlier close was cancelled, which ends the parts as well
                        raise

    async def _live(self) -> None:
        try:
            with TemporaryDirectory(prefix="claude-jobs-", ignore_cleanup_errors=True) as directory:
                settings = load_here(Path(directory), os.environ).settings
                async with anyio.create_task_group() as group:
                    assembled = await _standing_alone(settings, group)
                    self._on_open(assembled.parts)
                    self._is_open = True
                    self._opened.set()
                    try:
                        await self._closing.wait()
                        with anyio.move_on_after(settings.grace_seconds + _CLOSE_SECONDS):
                            await self._end_jobs()
                    finally:
                        # Nothing is left after a close. At the end of the event loop nothing may be waited for.
                        assembled.runner.kill_all()
                        group.cancel_scope.cancel()
        finally:
            self._opened.set()


class _OwnTasks:
    """Starts asyncio tasks in a task group of this manager: an error in one ends the manager."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group

    def start(self, task: Callable[..., Coroutine[Any, Any, None]], /, *args: object) -> None:
        self._group.start_soon(task, *args)

    keep = start


async def _standing_alone(settings: Settings, group: TaskGroup) -> Assembled:
    umask = os.umask(0o077)
    os.umask(umask)  # only by setting it can it be read

    def this_program() -> ClientContext:
        return ClientContext(cwd=str(Path.cwd()), env=dict(os.environ), client="a program", settings=settings.for_trees)

    return assemble_parts(
        settings,
        await LiveStore.over(MemoryStore()),
        _OwnTasks(group),
        trees=settings.home / "trees",
        pauses=settings.home / "pauses.json",
        key=os.urandom(4).hex(),
        umask=umask,
        client_context=this_program,
    )


async def _reschedule_when_open(scheduler: Scheduler, throttle: Throttle) -> None:
    # The gate opens without a call: a pause ends, a process has started, memory is free again.
    while True:
        await scheduler.refused()
        await anyio.sleep(throttle.look_again_in())
        scheduler.reschedule()
