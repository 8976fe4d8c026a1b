"""A running attempt: its process, its files, and what has been read of its output so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.claude.ndjson import OutputTail
from jobs.claude.outcome import OutcomeReader
from jobs.limits.budget import BudgetOwner
from jobs.limits.watchdog import Watchdog
from jobs.model import Attempt, Job, Reason
from jobs.processes import out_of_memory
from jobs.processes.attempt_dir import AttemptDirectory
from jobs.processes.process import Process
from jobs.processes.process_tree import Target


@dataclass(kw_only=True)
class RunningAttempt:
    """A running attempt.

    Args:
        job: The job as it was claimed.
        attempt: The attempt.
        marker: The job marker of its processes.
        directory: Its files.
        process: Its process.
        output_tail: Reads what it writes.
        watchdog: Says when it must be ended.
        budget_owners: Owners of the budgets that it spends, the tree first.
        account: The account that it was launched with, as `Accounts` names it.
        reader: Derives the outcome from its frames.
        adopted_at: Bytes of output that were there when this engine took the attempt over; 0 for its own launch.
        ran: A process of it was started; False for one that was adopted without a sign of any.
        oom_kills: How many processes the kernel had ended for lack of memory when this began; None where nothing tells.
        spoke: It has written something.
        unmanaged: Command line of a `claude` that the job started by itself, or None where none has been seen.
        stop_reason: Why it is being ended, or None.
    """

    job: Job
    attempt: Attempt
    marker: str
    directory: AttemptDirectory
    process: Process
    output_tail: OutputTail
    watchdog: Watchdog
    budget_owners: Sequence[BudgetOwner] = ()
    account: str = ""
    reader: OutcomeReader = field(default_factory=OutcomeReader)
    adopted_at: int = 0
    ran: bool = True
    oom_kills: int | None = field(default_factory=out_of_memory.recent_kills)
    spoke: bool = False
    unmanaged: str | None = None
    stop_reason: Reason | None = None

    @property
    def target(self) -> Target:
        """What its processes are found by."""
        return Target(marker=self.marker, shim=self.process.identity)
