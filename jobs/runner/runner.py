"""LocalRunner: runs jobs on this machine, launches or adopts the `claude` of each, and knows which of them live."""

import logging
from collections.abc import Callable
from dataclasses import replace

import anyio
import anyio.to_thread

from jobs.activity import Activity
from jobs.errors import NotFoundError
from jobs.event_bus import JobEventBus
from jobs.ids import contains
from jobs.limits.budget import BudgetOwner, Ledger
from jobs.limits.throttle import Throttle
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason, Usage
from jobs.paused import PausedPaths
from jobs.ports import Clock, Store
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.kill import Reaper, Target, kill_all
from jobs.processes.nested_claude import BEAT, NestedClaudeDetector, exempt
from jobs.processes.process_table import ProcessIdentity, process_table
from jobs.processes.spawning import DirectSpawner, Spawner
from jobs.runner.cleanup import AttemptCleanup, EndedAttempt
from jobs.runner.launch import Launcher, known_process
from jobs.runner.launch_plan import LaunchPlanner
from jobs.runner.retry_policy import RetryPolicy
from jobs.runner.settle import Settler
from jobs.runner.supervise import RunningAttempt, Supervisor
from jobs.scheduler import Scheduler
from jobs.settings import Settings
from jobs.wait_history import WaitHistory

logger = logging.getLogger(__name__)


class LocalRunner:
    """Runs each job as a `claude` process that outlives this engine.

    Args:
        settings: The engine's settings.
        store: Where trees are kept.
        launch_planner: Plans the launch of an attempt.
        scheduler: Tells which jobs wait for their descendants, and with which account each was launched.
        throttle: Is told of the API's limits.
        event_bus: Where changes of jobs are announced.
        clock: Time.
        start_soon: Starts a coroutine function in the engine's task group.
        ledger: Is told what running attempts cost; None takes a private one.
        spawner: Starts processes; None starts them as children of this one.
        pauses: What is paused; None where nothing ever is.
        wait_history: Waits of the attempts that run; None takes a private one.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        launch_planner: LaunchPlanner,
        scheduler: Scheduler,
        throttle: Throttle,
        event_bus: JobEventBus,
        clock: Clock,
        start_soon: Callable[..., object],
        ledger: Ledger | None = None,
        spawner: Spawner | None = None,
        pauses: PausedPaths | None = None,
        wait_history: WaitHistory | None = None,
    ) -> None:
        pauses = pauses or PausedPaths()
        self._store = store
        self._pauses = pauses
        self._launch_planner = launch_planner
        self._event_bus = event_bus
        self._clock = clock
        self._start_soon = start_soon
        self._scheduler = scheduler
        self._ledger = ledger or Ledger()
        self._wait_history = wait_history or WaitHistory(clock.now)
        self._nested_claude_detector = NestedClaudeDetector()
        self._live: dict[str, RunningAttempt] = {}
        self._some_live = anyio.Event()
        self._launching: set[str] = set()
        spawner = spawner or DirectSpawner()
        reaper = Reaper(exempt=lambda: exempt(self._shims(), settings.keep_processes))
        self._cleanup = AttemptCleanup(reaper, spawner, self._shims, self._marks, start_soon, settings.keep_processes)
        self._settler = Settler(
            store=store,
            launch_planner=launch_planner,
            retry_policy=RetryPolicy(store, settings.max_depth, self._ledger.remaining),
            throttle=throttle,
            event_bus=event_bus,
            clock=clock,
            wait_history=self._wait_history,
        )
        self._launcher = Launcher(
            settings=settings,
            store=store,
            launch_planner=launch_planner,
            settler=self._settler,
            ledger=self._ledger,
            event_bus=event_bus,
            clock=clock,
            spawner=spawner,
            pauses=pauses,
        )
        self._supervisor = Supervisor(
            settings=settings,
            scheduler=scheduler,
            throttle=throttle,
            ledger=self._ledger,
            reaper=reaper,
            clock=clock,
            secrets_of=launch_planner.secrets_of,
            on_budget_exhausted=self._end_below,
            on_activity=event_bus.publish_activity,
            pauses=pauses,
        )

    async def run(self, job_id: str, on_launched: Callable[[], None] = lambda: None) -> Job:
        """Run one attempt of a job, or the rest of one that an earlier engine launched; return the job as it is then.

        Each step writes down what the next one needs before it begins, so after a crash the next engine goes on from
        there: the claim before the process exists, the process before it is followed, the end before the cleanup.
        `Launcher.launch` has `LaunchPlanner.plan` make the plan, claims the job and starts the process. The cleanup
        runs later, in the asyncio task of `AttemptCleanup`.

        Args:
            job_id: The job.
            on_launched: Called once a process of it runs, or none will.

        Raises:
            NotFoundError: Unknown job.
            StoreError: The storage fails; where that passes, a further call goes on where this one stopped.
        """
        live = self._live.get(job_id) or await self._launch_or_adopt(job_id)
        on_launched()
        if live is None:
            # It was over or claimed already, or its launch has failed, which is an outcome like any other.
            return await self._job(job_id)
        outcome = await self._supervisor.watch(live)
        # Before the end is written: with its last job a tree's client context is forgotten.
        ended = self._ended(live.job, live.attempt, live.target, outcome.exit_code)
        settled = await self._settler.settle(live, outcome)
        self._cleanup.add(ended)
        self._forget(live)
        return settled

    async def abandon(self, job_id: str, why: str) -> Job:
        """Fail a job that cannot be followed any more, end what runs of it, and return the job as it is then.

        Raises:
            NotFoundError: Unknown job.
            StoreError: The storage refuses it; what runs goes on until the next engine takes it over.
        """
        job, live = await self._job(job_id), self._live.get(job_id)
        abandoned = await self._abandon(job, live, why)
        if live is not None:
            self._forget(live)
        return abandoned

    async def cancel(self, job_id: str) -> None:
        """End the job's process and everything that it started; `run` then returns."""
        live = self._live.get(job_id)
        if live is not None:
            await self._end(live, Reason.CANCELLED)

    def activity(self, job_id: str) -> Activity | None:
        """Return what a job does now; None where no attempt of it runs under this engine."""
        live = self._live.get(job_id)
        return None if live is None else live.activity(self._launch_planner.secrets_of(live.job), self._clock.now())

    def apply_limits(self, path: str) -> None:
        """Apply new limits to what runs at and below a path; a budget that is used up ends it."""
        for live in list(self._live.values()):
            if contains(path, live.job.path):
                self._launcher.apply_limits(live)
                if (owner := self._ledger.budget_exhausted(live.owners)) is not None:
                    self._end_below(owner)

    def end_paused(self) -> None:
        """End what runs where a pause ends it, processes side by side; `run` then returns, with the job queued."""
        for live in self._live.values():
            # One that is being ended already ends for that.
            if live.stop_reason is None and self._pauses.ends(live.job.path):
                live.stop_reason = Reason.INTERRUPTED
                self._start_soon(self._end, live, Reason.INTERRUPTED)

    def kill_all(self) -> None:
        """Kill the processes of every job at once. Blocks, and settles nothing: for an event loop that ends."""
        if targets := [live.target for live in self._live.values()]:
            kill_all(process_table(), targets)

    async def watch_for_nested_claudes(self) -> None:
        """Scan running jobs for a nested `claude` every `BEAT` seconds, until cancelled."""
        while True:
            # An engine without a job sleeps.
            await self._some_live.wait()
            await anyio.sleep(BEAT)
            if not self._live:
                self._some_live = anyio.Event()
                continue
            try:
                await self._look_for_nested_claudes()
            except OSError:
                logger.warning("the process table cannot be read now", exc_info=True)

    def transcript(self, job: Job) -> str:
        """Return the path of the file that holds everything the job's last attempt wrote."""
        return str(self._launch_planner.path(job, job.attempt) / "out")

    async def _launch_or_adopt(self, job_id: str) -> RunningAttempt | None:
        job, live = await self._job(job_id), None
        if job.status is JobStatus.QUEUED:
            live = await self._launch(job)
        elif job.status is JobStatus.RUNNING and (live := await self._launcher.adopt(job)):
            self._enter(live)
        if live is not None and (await self._job(job_id)).cancel_requested:
            # A cancel that came between the claim and the launch, or before the engine's last end, found no process.
            await self._end(live, Reason.CANCELLED)
        elif live is not None and self._pauses.ends(job.path) and live.process.lives():
            # So did a pause that ends what runs. What was over before it is settled as it ended.
            await self._end(live, Reason.INTERRUPTED)
        return live

    async def _launch(self, job: Job) -> RunningAttempt | None:
        # A process without the job marker of a live attempt is taken for an orphan, and this one is to live.
        marker = self._launch_planner.marker(job, job.attempt + 1)
        self._launching.add(marker)
        try:
            # A call of the attempt before may have come back after that was settled.
            self._wait_history.forget(job.id)
            if live := await self._launcher.launch(job):
                self._enter(live)
        finally:
            self._launching.discard(marker)
        if live:
            await self._launcher.record(live)
        return live

    async def _job(self, job_id: str) -> Job:
        job = await self._store.job(job_id)
        if job is None:
            raise NotFoundError("Job", job_id)
        return job

    async def _look_for_nested_claudes(self) -> None:
        by_marker = {live.marker: live for live in self._live.values()}
        targets = [live.target for live in by_marker.values()]
        for marker, nested in (await anyio.to_thread.run_sync(self._nested_claude_detector.scan, targets)).items():
            by_marker[marker].nested_claude = nested.command

    def _end_below(self, owner: BudgetOwner) -> None:
        for live in self._live.values():
            # One that has answered costs nothing more and is about to leave.
            if contains(owner.path, live.job.path) and live.stop_reason is None and not live.reader.answered:
                logger.info("job %s is ended: the budget of %s is used up", live.job.id, owner.name)
                live.stop_reason = Reason.BUDGET_EXHAUSTED
                # To look for its processes takes longer than it may take to begin another call.
                live.process.freeze()
                self._start_soon(self._end, live, Reason.BUDGET_EXHAUSTED)

    async def _end(self, live: RunningAttempt, reason: Reason) -> None:
        live.stop_reason = reason
        ended = False
        try:
            await self._supervisor.end(live)
            ended = True
        except OSError:
            logger.exception("job %s could not be ended", live.job.id)
        finally:
            if not ended:
                # Otherwise its limits would not be enforced any more.
                live.stop_reason = None

    async def _abandon(self, job: Job, live: RunningAttempt | None, why: str) -> Job:
        usage = live.reader.usage if live else Usage()
        outcome = Outcome(reason=Reason.UNKNOWN_ERROR, status=JobStatus.FAILED, detail=why, usage=usage)
        outcome = outcome if live is None else replace(outcome, account=live.account)
        attempt = await self._store.attempt(job.id, job.attempt) if job.status is JobStatus.RUNNING else None
        if attempt is not None:
            marker = self._launch_planner.marker(job, attempt.number)
            target = live.target if live else Target(marker=marker, shim=known_process(attempt))
            ended = self._ended(job, attempt, target)
            # First: where the storage refuses it, the process goes on until the next engine takes it over.
            settled = await self._settler.write(job, attempt, outcome)
            self._cleanup.add(ended)
            return settled
        failed = await self._store.fail_queued(job.id, outcome, at=self._clock.now())
        if failed is not None:
            self._event_bus.publish(failed)
        return failed or job

    def _ended(self, job: Job, attempt: Attempt, target: Target, exit_code: int | None = None) -> EndedAttempt:
        return EndedAttempt(
            target=target,
            directory=AttemptDirectory(self._launch_planner.path(job, attempt.number)),
            client_directories=self._launch_planner.client_directories(job),
            session_id=attempt.session_id,
            exit_code=exit_code,
        )

    def _enter(self, live: RunningAttempt) -> None:
        live.account = self._scheduler.account_of(live.job.id)
        self._live[live.job.id] = live
        self._some_live.set()

    def _forget(self, live: RunningAttempt) -> None:
        live.process.reap()
        live.process.close()
        live.output_tail.close()
        self._live.pop(live.job.id, None)

    def _shims(self) -> list[ProcessIdentity]:
        return [live.process.identity for live in list(self._live.values()) if live.process.identity is not None]

    def _marks(self) -> set[str]:
        # In this order: a launch enters its attempt among those that live before it leaves the other set.
        launching = set(self._launching)
        return launching | {live.marker for live in list(self._live.values())}
