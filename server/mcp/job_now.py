"""A live job as it is now: what it does or waits for, and what its running attempt has used; as fields of a reply."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from jobs.activity import Activity, names_another_model
from jobs.model import Job, Usage
from jobs.waiting_for import Wait

_BECAUSE_CHARS: Final = 120
"""Most characters of why a job waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNow:
    """A job at one moment.

    Args:
        job: The job.
        activity: What its running attempt does, or None where none runs.
        wait: What it waits for, or None where it works or is over.
        at: The moment, in seconds since the epoch.
    """

    job: Job
    activity: Activity | None
    wait: Wait | None
    at: float

    @property
    def usage(self) -> Usage:
        """What the job has used, the running attempt included."""
        return self.job.usage if self.activity is None else self.job.usage + self.activity.usage

    @property
    def silent_seconds(self) -> int:
        """Whole seconds since the last output of its running attempt; 0 where none runs."""
        return 0 if self.activity is None else max(0, int(self.at - self.activity.last_output_at))

    def fields(self) -> dict[str, Any]:
        """Return what it does and what it waits for, as far as known: `activity`, `silentSeconds`, `waitingFor` etc."""
        doing: dict[str, Any] = {}
        if self.activity is not None:
            doing = {"activity": self.activity.doing, "silentSeconds": self.silent_seconds}
        return doing | wait_fields(self.wait)

    def details(self) -> dict[str, Any]:
        """Return what a running job has used so far, and what runs its attempt; nothing for other jobs."""
        if self.activity is None:
            return {}
        used, attempt = self.usage, self.activity
        asked = self.job.spec.model
        known = {
            "turns": used.turns,
            "inputTokens": used.input_tokens,
            "outputTokens": used.output_tokens,
            "costUsd": round(used.cost_usd, 6),
            "cli": attempt.cli,
            "cliVersion": attempt.cli_version,
            "model": attempt.model,
            "modelNote": f"asked for {asked}" if names_another_model(asked, attempt.model) else None,
        }
        return {name: value for name, value in known.items() if value is not None}


NowOf = Callable[[Job], JobNow]
"""Returns a job as it is now: `Services.now_of`."""


def wait_fields(wait: Wait | None) -> dict[str, Any]:
    """Return what a job waits for, until when and why, as far as known."""
    if wait is None:
        return {}
    until = {} if wait.until is None else {"waitingUntil": utc(wait.until)}
    because = {"waitingBecause": wait.because[:_BECAUSE_CHARS]} if wait.because else {}
    return {"waitingFor": wait.what} | until | because


def utc(seconds: float, timespec: str = "seconds") -> str:
    """Return a time, in seconds since the epoch, in UTC; `timespec` as `datetime.isoformat` takes it."""
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec=timespec)}Z"
