"""Settles attempts: writes the outcome, which ends the job or queues it again, and announces it."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

from jobs.event_bus import JobEventBus
from jobs.limits.throttle import Throttle
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.ports import Clock, Store
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.runner.launch_plan import LaunchPlanner
from jobs.runner.manifest import write_end_manifest
from jobs.runner.retry_policy import LIMITS, TRANSIENT, RetryPolicy
from jobs.runner.supervise import RunningAttempt
from jobs.util.retrying import retry_while_unavailable
from jobs.util.text import redact
from jobs.wait_history import WaitHistory


class Settler:
    """Settles attempts.

    Args:
        store: Where trees are kept.
        launch_planner: Knows where an attempt's files are.
        retry_policy: Decides whether another attempt follows.
        throttle: Is told whether attempts succeed.
        event_bus: Where changes of jobs are announced.
        clock: Time.
        wait_history: Waits of the attempts that run.
    """

    def __init__(
        self,
        *,
        store: Store,
        launch_planner: LaunchPlanner,
        retry_policy: RetryPolicy,
        throttle: Throttle,
        event_bus: JobEventBus,
        clock: Clock,
        wait_history: WaitHistory,
    ) -> None:
        self._store = store
        self._launch_planner = launch_planner
        self._retry_policy = retry_policy
        self._throttle = throttle
        self._event_bus = event_bus
        self._clock = clock
        self._wait_history = wait_history

    async def settle(self, live: RunningAttempt, outcome: Outcome) -> Job:
        """Write the outcome of an attempt that ran, and return the job as it is then: over, or queued for another."""

        def ran(attempt: Attempt) -> bool:
            same = attempt.number == live.attempt.number
            return live.ran if same else self._launch_planner.ever_ran(live.job, attempt)

        follow = partial(
            self._retry_policy.decide, live.job, live.attempt, outcome, ran=ran, stop_reason=live.stop_reason
        )
        outcome = await retry_while_unavailable(follow, f"deciding what follows job {live.job.id}")
        settled = await self.write(live.job, live.attempt, replace(outcome, account=live.account))
        if outcome.status is JobStatus.COMPLETED:
            self._throttle.launched()
            self._throttle.of(live.account).on_success()
        elif outcome.reason in (LIMITS | TRANSIENT) - {Reason.USAGE_LIMIT}:
            self._throttle.of(live.account).back_off(f"the API answered: {outcome.reason}")
        return settled

    async def launch_failed(self, job: Job, attempt: Attempt, why: str, *, for_now: bool) -> None:
        """Write the outcome of an attempt whose process could not be started.

        Args:
            job: The job, running.
            attempt: Its attempt.
            why: The error's text.
            for_now: The system may grant it later: the job is queued again, and nothing is launched for a moment.
        """
        outcome = Outcome(reason=Reason.STARTUP, status=JobStatus.FAILED, detail=why)
        if for_now:
            follow = partial(self._retry_policy.of_refusal, attempt, outcome)
            outcome = await retry_while_unavailable(follow, f"deciding what follows job {job.id}")
            self._throttle.refused(f"the system starts no process now: {why}")
        await self.write(job, attempt, outcome)

    async def write(self, job: Job, attempt: Attempt, outcome: Outcome) -> Job:
        """Write an outcome to the store, announce it, and return the job as it is then."""
        directory = AttemptDirectory(self._launch_planner.path(job, attempt.number))
        # First: if the engine dies before the end is written, the next one finds the attempt running and settles it.
        directory.remove_stdin()
        if outcome.detail:
            outcome = replace(outcome, detail=redact(outcome.detail, self._launch_planner.secrets_of(job)))
        # What ended the attempt is known here alone, so this is where a full disk is waited for. An engine that ends
        # meanwhile loses nothing else: the attempt's files stay, and the next one settles it from them.
        at = self._clock.now()
        outcome = replace(outcome, waits=self._wait_history.ended_at(job.id, at))
        settle = partial(self._store.settle, job.id, attempt.number, outcome, at=at)
        settled = await retry_while_unavailable(settle, f"settling job {job.id}")
        self._wait_history.forget(job.id)
        # Before it is announced: the recovery of a lost database would run a cancelled job again that it takes for one
        # that was running. The job may have removed the directory, or the disk be full.
        with suppress(OSError, UnsafeDirectoryError):
            write_end_manifest(directory, settled)
        self._event_bus.publish(settled)
        return settled
