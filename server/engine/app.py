"""Builds the engine from its parts, serves its socket, and exits when it is idle."""

import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
from anyio.abc import TaskGroup

from jobs.assembly import assemble_parts
from jobs.claude.account import account_key, accounts_of
from jobs.claude.binary import ClaudeFinder
from jobs.claude.command import McpServer
from jobs.client_context import ClientContextStore
from jobs.costs import CostStore
from jobs.effective_settings import EffectiveSettings
from jobs.errors import JobsError, StoreError
from jobs.event_bus import JobEventBus
from jobs.limit_changes import LimitChanges
from jobs.maintenance.db_recovery import open_with_recovery
from jobs.maintenance.integrity import check_after_crash
from jobs.maintenance.orphan_sweep import OrphanSweep
from jobs.maintenance.pruning import Retention
from jobs.maintenance.snapshots import Snapshots
from jobs.manager import EnhancedJobManager
from jobs.model import Job
from jobs.notice import NoticeKind
from jobs.notices.hooks import Hooks
from jobs.notices.notifier import Notifier
from jobs.notices.pauses import PauseNotices
from jobs.pausing import PauseService
from jobs.permissions.approvals import Approvals
from jobs.ports import Clock, Store
from jobs.processes.spawning import spawner
from jobs.search import Search
from jobs.sessions import SessionService
from jobs.settings import Settings, TreeSettings
from jobs.settings_sources import ClientVariables
from jobs.store.live import LiveStore
from jobs.store.search_index import SearchIndex
from jobs.store.sqlite import SqliteStore
from jobs.util.retrying import retry_while_unavailable
from jobs.util.text import secrets_in
from jobs.wait_history import WaitHistory
from jobs.wait_reasons import WaitReasons
from jobs.waiting import Waiting
from jobs.waiting_for import WaitingFor
from server import __version__
from server.client.client_env import own_umask
from server.client.connect import pump_command
from server.client.engine_socket import lock
from server.client.lock_file import holder_of, sign_lock
from server.client.state_dir import StatePaths, prepare
from server.engine.connection import ConnectionHandlers, LazyMcpServer, serve_connection
from server.engine.control import Control
from server.engine.lifecycle import ConnectionCounter, Engine, stop_on_signals
from server.engine.limit_requests import answer_limits
from server.engine.peer import refuse_pid_inside_job
from server.engine.settings_notices import SettingsNotices
from server.engine.state_binding import bind
from server.engine.state_watch import EngineSocket, StateWatch
from server.engine.supervised_tasks import SupervisedTasks
from server.feed.costs import Costs, CostSources
from server.feed.index import FeedSources
from server.feed.job_details import JobDetails
from server.feed.watch import JobFeed
from server.mcp import replies
from server.mcp.connection_state import Services
from server.web.service import PageParts, PageService

logger = logging.getLogger(__name__)

EXIT_SECONDS = 9.0
"""How long an engine that was asked to stop may take; what it leaves undone then, a crash would leave undone too."""

END_SECONDS = 7.0
"""How much of that the end of jobs may take: of those that were cancelled, or of all where the settings ask for it."""

_LOOK_AGAIN = 0.05
"""Seconds between two looks whether these are over."""

CLEAR_SECONDS = 1.0
"""How long removing the environments of ended trees may take; the next engine removes what is left then."""

LOCK_SECONDS = 2.0
"""How long a new engine waits for the lock of one that is exiting."""


class EngineRunningError(JobsError):
    """Another engine serves this state directory.

    Args:
        home: The state directory.
        pid: Process id of that engine, or None where it is not known.
    """

    def __init__(self, home: Path, pid: int | None) -> None:
        self.pid = pid
        named = "" if pid is None else f" (pid {pid})"
        super().__init__(f"An engine{named} already serves {home}. Stop it with `claude-jobs engine stop`.")


ForTree = Callable[[Mapping[str, str] | None], TreeSettings]
"""Returns the settings that a tree takes from its client, given the variables that the client sent."""


def open_store(paths: StatePaths) -> AbstractAsyncContextManager[SqliteStore]:
    """Open the job store of a prepared state directory, repaired where that is needed."""
    return open_with_recovery(paths.database, paths.trees, SqliteStore.open)


@asynccontextmanager
async def assemble(
    settings: Settings,
    paths: StatePaths,
    group: TaskGroup,
    opened: SqliteStore | None = None,
    for_tree: ForTree | None = None,
    umask: int | None = None,
) -> AsyncIterator[Services]:
    """Build the services over one state directory and close them in the opposite order.

    Args:
        settings: The engine's settings.
        paths: A prepared state directory.
        group: Owns what outlives a request.
        opened: The directory's store where it is open already; None opens it.
        for_tree: Returns a tree's settings from its client's variables; None gives every tree the engine's settings.
        umask: Umask of jobs whose client sent none; None for this process's.
    """
    async with AsyncExitStack() as stack:
        clock = Clock()
        tasks = SupervisedTasks(group)
        database = await stack.enter_async_context(open_store(paths)) if opened is None else opened
        location = await bind(paths, database)
        store = await LiveStore.over(database)
        tasks.keep(Snapshots(database, paths.database, clock).keep)
        tasks.start(check_after_crash, paths.database)
        command, args = pump_command(paths.home)
        mask = own_umask() if umask is None else umask
        assembled = assemble_parts(
            settings,
            store,
            tasks,
            trees=paths.trees,
            pauses=paths.pauses,
            key=location.key,
            umask=mask,
            mcp_server=McpServer(command=command, args=args),
            spawner=stack.enter_context(spawner()),
        )
        parts, runner = assembled.parts, assembled.runner
        hooks = Hooks(os.environ, mask)
        notifier = Notifier(
            settings=settings, store=store, outbox=database, ledger=parts.recursion.ledger, hooks=hooks, clock=clock
        )
        tasks.keep(notifier.deliver, NoticeKind.END)
        tasks.keep(notifier.deliver, NoticeKind.ATTENTION)
        pauses = PauseNotices(
            throttle=assembled.throttle,
            budgets=assembled.account_budgets,
            store=store,
            outbox=database,
            notifier=notifier,
            event_bus=parts.event_bus,
            clock=clock,
        )
        tasks.keep(pauses.keep)
        tasks.start(_recover, OrphanSweep(store, assembled.launch_planner, keep=settings.keep_processes))
        manager = EnhancedJobManager(parts)
        sessions = SessionService(
            store=store,
            manager=manager,
            client_contexts=parts.client_contexts,
            event_bus=parts.event_bus,
            start_soon=tasks.keep,
        )
        approvals = Approvals(
            settings.permission_requests,
            settings.permission_seconds,
            clock.monotonic,
            parts.client_contexts.secrets_of,
            partial(_note_permission, store, parts.event_bus, assembled.wait_history),
            partial(tasks.start, notifier.permission),
        )
        waits = WaitReasons(parts.recursion, store.trees, approvals, clock.now)
        yield Services(
            settings=settings,
            for_tree=for_tree or (lambda _: settings.for_trees),
            store=store,
            manager=manager,
            sessions=sessions,
            recursion=parts.recursion,
            pausing=PauseService(
                store=store,
                recursion=parts.recursion,
                runner=runner,
                event_bus=parts.event_bus,
                clock=clock,
            ),
            waiting=Waiting(parts.event_bus, parts.recursion.all_pauses, waits.hold_of),
            event_bus=parts.event_bus,
            start_soon=tasks.start,
            transcript=runner.transcript,
            approvals=approvals,
            activity_of=lambda job: runner.activity(job.id),
            wait_of=waits.of,
            waits_of=assembled.wait_history.of,
            notifier=notifier,
            context_of=parts.client_contexts.load,
            own_commands=hooks.running,
            now=clock.now,
            resident=_resident,
            in_use=partial(_in_use, assembled.claudes, parts.client_contexts),
            end_pauses=assembled.pause_file.end,
            limits=LimitChanges(parts),
        )


def _secrets_of(services: Services, root_id: str) -> frozenset[str]:
    """Return the secret values of a tree, and of the engine itself; may read a file."""
    own = secrets_in(os.environ)
    try:
        return own | secrets_in(services.context_of(root_id).env)
    except StoreError:
        return own


def _in_use(claudes: ClaudeFinder, client_contexts: ClientContextStore) -> dict[str, Any]:
    # Many trees come from one client: each environment is checked once.
    environments = {tuple(sorted(env.items())) for env in client_contexts.environments()}
    found = {account_key(dict(env)): accounts_of(dict(env)) for env in environments}
    return {
        "claudes": dict(claudes.versions),
        "accounts": sorted({str(account) for accounts in found.values() for account in accounts}),
        "accountNames": {replies.account_shown(key): str(accounts[0]) for key, accounts in found.items() if accounts},
    }


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


async def _note_permission(
    store: Store, event_bus: JobEventBus, wait_history: WaitHistory, job: Job, *, waits: bool
) -> None:
    now, was = (WaitingFor.PERMISSION, None) if waits else (None, WaitingFor.PERMISSION)
    try:
        noted = await store.set_waiting_for(job.id, now, was=was)
    except StoreError:
        # It is asked and answered all the same; only the job's status does not show it.
        logger.warning("that job %s waits for a permission could not be noted", job.id, exc_info=True)
        return
    if not waits:
        wait_history.end(job.id, WaitingFor.PERMISSION)
    elif noted is not None:
        wait_history.begin(job.id, WaitingFor.PERMISSION)
    if noted is not None:
        event_bus.publish(noted)


def _costs(services: Services, sums: CostStore, clock: Clock) -> Costs:
    async def account_names() -> Mapping[str, str]:
        names: Mapping[str, str] = (await anyio.to_thread.run_sync(services.in_use))["accountNames"]
        return names

    return Costs(
        CostSources(
            store=services.store,
            sums=sums,
            figures=services.recursion.spending,
            account_names=account_names,
            activity_of=services.activity_of,
            clock=clock,
        )
    )


async def _recover(recovery: OrphanSweep) -> None:
    await retry_while_unavailable(recovery.sweep, "sweeping what an earlier engine left")
    if removed := await retry_while_unavailable(
        recovery.remove_stdin_files, "removing stdin files that an earlier engine left"
    ):
        logger.info("removed the stdin files of %d attempts that do not run", removed)


async def serve(
    home: Path,
    starter: ClientVariables,
    *,
    by_person: bool = True,
    umask: int | None = None,
    words: Callable[[str], str] = str,
    on_ready: Callable[[], None] = lambda: None,
    on_stopping: Callable[[], None] = lambda: None,
) -> None:
    """Run the engine of a state directory until it is asked to stop or has been idle for the set time.

    Args:
        home: The state directory.
        starter: Variables of the client that starts the engine; `EffectiveSettings` says when they count.
        by_person: That client is a person's or a program's, and not a job's.
        umask: As `assemble` takes it.
        words: Rewrites a tool's text for a person at the page.
        on_ready: Called once clients can connect.
        on_stopping: Called once the engine begins to exit; it should be gone `EXIT_SECONDS` later.

    Raises:
        EngineRunningError: Another engine serves the directory.
        InvalidSettingsError: A setting has a value that cannot be used.
        BadInputError: The settings file cannot be used.
    """
    paths = prepare(home)
    held = lock(paths.engine_lock, timeout=LOCK_SECONDS)
    if held is None:
        raise EngineRunningError(paths.home, holder_of(paths.engine_lock))
    try:
        sign_lock(held)
        async with open_store(paths) as store:
            live = await store.has_unfinished()
            effective = EffectiveSettings.choose(paths.home, starter, by_person=by_person, jobs_live=live)
            logging.getLogger().setLevel(effective.settings.log_level)
            await _serve(effective, paths, held, store, umask, words, on_ready, on_stopping)
    finally:
        os.close(held)


async def _serve(
    effective: EffectiveSettings,
    paths: StatePaths,
    held: int,
    store: SqliteStore,
    umask: int | None,
    words: Callable[[str], str],
    on_ready: Callable[[], None],
    on_stopping: Callable[[], None],
) -> None:
    settings = effective.settings
    async with (
        anyio.create_task_group() as group,
        assemble(settings, paths, group, store, effective.for_tree, umask) as services,
    ):
        tasks = SupervisedTasks(group)
        clock = Clock()
        connection_counter = ConnectionCounter(clock)
        engine = Engine(effective, services, connection_counter)
        search = Search(SearchIndex(paths.search_index, paths.database), paths.trees)
        retention = Retention(
            store=services.store,
            trees=paths.trees,
            keep_days=settings.keep_days,
            keep_bytes=settings.keep_bytes,
            clock=clock,
            forget_texts=search.forget_deleted,
        )
        sources = FeedSources(
            store=services.store,
            event_bus=services.event_bus,
            wait_of=services.wait_of,
            activity_of=services.activity_of,
            paused_paths=services.recursion.paused_paths,
            waits_of=services.waits_of,
            pauses=services.recursion.pauses,
            clock=clock,
        )
        feed = JobFeed(sources)
        details = JobDetails(services.store, partial(services.approvals.open_to, None), services.waits_of)
        mcp_server = LazyMcpServer(services.event_bus, services.start_soon)
        page = PageService(
            PageParts(
                home=paths.home,
                sessions_file=paths.page,
                services=services,
                watch=feed.watch,
                details=details,
                costs=_costs(services, store, clock),
                limits_of=lambda identity: answer_limits(services.limits, {"id": identity}),
                counter=connection_counter,
                refuse=partial(refuse_pid_inside_job, own_commands=services.own_commands),
                words=words,
                load_tools=mcp_server.load,
                clock=clock,
                trees=paths.trees,
                secrets_of=partial(_secrets_of, services),
            ),
            tasks.start,
        )
        control = Control(
            paths=paths,
            store=services.store,
            recursion=services.recursion,
            retention=retention,
            connection_counter=connection_counter,
            in_use=services.in_use,
            end_pauses=services.end_pauses,
            limits=services.limits,
            search=search,
            settings=effective,
            undelivered=services.notifier.undelivered,
            details=details,
            on_pruned=feed.drop,
            page_port=lambda: page.port,
            report=partial(_report, sources),
        )
        notices = SettingsNotices(effective, services.store)
        handlers = ConnectionHandlers(
            admit=engine.admit,
            control=control.answer,
            feed=feed,
            page=page,
            stop_engine=engine.stop,
            idle=control.idle,
            mcp_server=mcp_server,
            pid=os.getpid(),
            note=notices.line_for,
        )
        socket = EngineSocket(paths.socket, partial(serve_connection, handlers, connection_counter), tasks.start)
        tasks.keep(stop_on_signals, lambda: engine.stopping, engine.stop)
        tasks.keep(engine.stop_when_idle)
        tasks.keep(notices.watch_file)
        tasks.keep(retention.keep)
        resumed = await services.manager.resume()
        logger.info("engine %s serves %s, pid %d, %d jobs resumed", __version__, paths.home, os.getpid(), resumed)
        await socket.bind()
        tasks.keep(StateWatch(paths, held, socket, engine.stop_for_lost_state).keep)
        freeze_imports_for_gc()
        tasks.start(_load_soon, mcp_server, page)
        on_ready()
        await engine.stopped()
        socket.close()
        on_stopping()
        async with anyio.create_task_group() as ending:
            ending.start_soon(page.close)
            await _stop_services(engine.end_jobs, services)
        group.cancel_scope.cancel()
    logger.info("engine stopped")


async def _report(sources: FeedSources, request: Mapping[str, Any]) -> dict[str, Any]:
    # Imported here: few engines are asked for one.
    from server.report.tree_record import TreeRecords

    return await TreeRecords(sources).answer(request)


async def _load_soon(mcp_server: LazyMcpServer, page: PageService) -> None:
    await mcp_server.load_soon()
    # After it: clients wait for the tools, and the page needs them too.
    await page.resume()


def freeze_imports_for_gc() -> None:
    """Exclude what the imports made from every later collection, and turn the collector on."""
    # It is never garbage; each full collection took 65 ms for its 100,000 objects (measured). So none runs first.
    gc.freeze()
    gc.enable()


async def _stop_services(end_jobs: bool, services: Services) -> None:
    services.manager.stop_admitting()
    with anyio.move_on_after(END_SECONDS):
        if end_jobs:
            await services.manager.cancel_all()
        # Left as they are, they would go on and cost until there is another engine, if ever.
        while await services.recursion.has_ends():  # noqa: ASYNC110 - an engine that is gone soon needs no event for it
            await anyio.sleep(_LOOK_AGAIN)
    with anyio.move_on_after(CLEAR_SECONDS):
        await services.manager.forget_ended_trees()
