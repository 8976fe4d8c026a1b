"""Writes how an attempt ended: the job's end or its return to the line, announced and cleared up after."""

from contextlib import suppress
from dataclasses import replace
from functools import partial

from jobs.event_bus import JobSignals
from jobs.limits.throttle import Throttle
from jobs.model import Attempt, Job, JobStatus, Outcome, Reason
from jobs.ports import Clock, Store
from jobs.processes.attempt_dir import AttemptDirectory, UnsafeDirectoryError
from jobs.processes.process_tree import Target
from jobs.runner.cleanup import Aftermath, EndedAttempt
from jobs.runner.launch_plan import Preparation
from jobs.runner.manifest import note_end
from jobs.runner.retry_policy import LIMITS, TRANSIENT, Sequel
from jobs.runner.running_attempt import LiveAttempt
from jobs.util.retrying import insist
from jobs.util.text import redact


class Settlement:
    """Settles attempts.

    Args:
        store: Where trees are kept.
        preparation: Knows where an attempt's files are.
        sequel: Decides whether another attempt follows.
        aftermath: Clears up after an attempt.
        throttle: Hears whether attempts succeed.
        signals: Where changes of jobs are announced.
        clock: Time.
    """

    def __init__(
        self,
        *,
        store: Store,
        preparation: Preparation,
        sequel: Sequel,
        aftermath: Aftermath,
        throttle: Throttle,
        signals: JobSignals,
        clock: Clock,
    ) -> None:
        self._store = store
        self._preparation = preparation
        self._sequel = sequel
        self._aftermath = aftermath
        self._throttle = throttle
        self._signals = signals
        self._clock = clock

    async def settle(self, live: LiveAttempt, outcome: Outcome) -> Job:
        """Write the outcome of an attempt that ran, start clearing up after it, and return the job as it is then."""
        # First: an engine that dies before the end is written finds the attempt running, and comes by here.
        live.directory.remove_stdin()
        follow = partial(self._sequel.of, live.job, live.attempt, outcome, ran=partial(self._ran, live))
        outcome = await insist(follow, f"deciding what follows job {live.job.id}")
        # Before the end is written: with its last job a tree's environment is forgotten.
        places = self._preparation.client_directories(live.job)
        settled = await self.write(live.job, live.attempt, outcome)
        self._aftermath.add(
            EndedAttempt(
                target=live.target,
                directory=live.directory,
                places=places,
                session_id=live.attempt.session_id,
                exit_code=outcome.exit_code,
            )
        )
        self._tell_throttle(live.account, outcome)
        live.process.reap()
        return settled

    async def abandon(self, job: Job, attempt: Attempt, target: Target, outcome: Outcome) -> Job:
        """Write the outcome of an attempt that nobody follows any more, and end what runs of it.

        Written first: where the storage refuses it, the process goes on until the next engine takes it over.

        Args:
            job: The job, running.
            attempt: Its attempt.
            target: The attempt's processes.
            outcome: What is written.
        """
        places = self._preparation.client_directories(job)
        directory = AttemptDirectory(self._preparation.path(job, attempt.number))
        directory.remove_stdin()
        settled = await self.write(job, attempt, outcome)
        self._aftermath.add(
            EndedAttempt(target=target, directory=directory, places=places, session_id=attempt.session_id)
        )
        return settled

    async def unstarted(self, job: Job, attempt: Attempt, why: str, *, for_now: bool) -> None:
        """Write the outcome of an attempt whose process could not be started.

        Args:
            job: The job, running.
            attempt: Its attempt.
            why: What was said.
            for_now: The system may grant it later: the job goes back in line, and nothing is launched for a moment.
        """
        outcome = Outcome(reason=Reason.STARTUP, status=JobStatus.FAILED, detail=why)
        if for_now:
            follow = partial(self._sequel.of_refusal, attempt, outcome)
            outcome = await insist(follow, f"deciding what follows job {job.id}")
            self._throttle.refused(f"the system starts no process now: {why}")
        AttemptDirectory(self._preparation.path(job, attempt.number)).remove_stdin()
        await self.write(job, attempt, outcome)

    async def write(self, job: Job, attempt: Attempt, outcome: Outcome) -> Job:
        """Write an outcome to the store, announce it, and return the job as it is then."""
        if outcome.detail:
            outcome = replace(outcome, detail=redact(outcome.detail, self._preparation.secrets_of(job)))
        # What ended the attempt is known here alone, so this is where a full disk is waited for. An engine that ends
        # meanwhile loses nothing else: the attempt's files stay, and the next one settles it from them.
        settle = partial(self._store.settle, job.id, attempt.number, outcome, at=self._clock.now())
        settled = await insist(settle, f"settling job {job.id}")
        # Before anybody is told: the rescue of a lost database would run a cancelled job again that it takes for one
        # that was running. The job may have removed the directory, or the disk be full.
        with suppress(OSError, UnsafeDirectoryError):
            note_end(AttemptDirectory(self._preparation.path(job, attempt.number)), settled)
        self._signals.publish(settled)
        return settled

    def _ran(self, live: LiveAttempt, attempt: Attempt) -> bool:
        return live.ran if attempt.number == live.attempt.number else self._preparation.ever_ran(live.job, attempt)

    def _tell_throttle(self, account: str, outcome: Outcome) -> None:
        if outcome.status is JobStatus.COMPLETED:
            self._throttle.launched()
            self._throttle.of(account).succeeded()
        elif outcome.reason in (LIMITS | TRANSIENT) - {Reason.USAGE_LIMIT}:
            self._throttle.of(account).back_off(f"the API answered: {outcome.reason}")
