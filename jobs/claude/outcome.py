"""From what a process reported and how it exited to how the attempt ended.

Neither the exit code nor the frame's subtype is trusted alone: a failed API call arrives as subtype "success", an
interrupt exits with 0, one process can report two results, and a kill reports none (all measured on 2.1.330).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from jobs.claude.consumption import Meter
from jobs.claude.shapes import mapping, number, text, texts
from jobs.model import JobStatus, Outcome, Reason, Usage

_DETAIL_LIMIT = 2000

_STATUS: Final[Mapping[Reason, JobStatus]] = MappingProxyType(
    {
        Reason.COMPLETED: JobStatus.COMPLETED,
        Reason.COMPLETED_WITH_DENIALS: JobStatus.COMPLETED,
        Reason.CANCELLED: JobStatus.CANCELLED,
        Reason.DEADLINE: JobStatus.TIMEOUT,
    }
)

_BY_SUBTYPE: Final = {
    "error_max_turns": Reason.MAX_TURNS,
    "error_max_budget_usd": Reason.BUDGET_EXHAUSTED,
    "error_max_structured_output_retries": Reason.SCHEMA_UNMET,
}
_BY_TERMINAL: Final = {
    "max_turns": Reason.MAX_TURNS,
    "budget_exhausted": Reason.BUDGET_EXHAUSTED,
    "aborted_streaming": Reason.INTERRUPTED,
    "aborted_tools": Reason.INTERRUPTED,
    "prompt_too_long": Reason.PROMPT_TOO_LONG,
    "image_error": Reason.REQUEST_TOO_LARGE,
}
_BY_ERROR: Final = {
    "billing_error": Reason.BILLING,
    "max_output_tokens": Reason.MAX_OUTPUT_TOKENS,
    "authentication_failed": Reason.AUTH,
    "oauth_org_not_allowed": Reason.AUTH,
    "account_on_hold": Reason.AUTH,
    "verification_required": Reason.AUTH,
    "cloud_credential_error": Reason.AUTH,
    "model_not_found": Reason.MODEL_NOT_FOUND,
    "rate_limit": Reason.RATE_LIMIT,
    "overloaded": Reason.OVERLOADED,
}
_BY_HTTP: Final = {
    400: Reason.INVALID_REQUEST,
    401: Reason.AUTH,
    402: Reason.BILLING,
    403: Reason.AUTH,
    404: Reason.MODEL_NOT_FOUND,
    413: Reason.REQUEST_TOO_LARGE,
    429: Reason.RATE_LIMIT,
    529: Reason.OVERLOADED,
}
_BY_LATE_ERROR: Final = {
    # Where the API answered, its status says more than these two.
    "server_error": Reason.CONNECTION,
    "invalid_request": Reason.INVALID_REQUEST,
}
_LATE: Final = frozenset({Reason.DEADLINE, Reason.STALLED, Reason.OUTPUT_LIMIT, Reason.BUDGET_EXHAUSTED})
_ENDED_FOR: Final = {
    Reason.CANCELLED: "It was cancelled.",
    Reason.DEADLINE: "It was ended because its time was over.",
    Reason.STALLED: "It was ended because it had been silent for too long.",
    Reason.OUTPUT_LIMIT: "It was ended because it wrote more than a job may.",
    Reason.BUDGET_EXHAUSTED: "It was ended because a budget of its tree was used up.",
    Reason.UNMANAGED_CLAUDE: "It was ended because it started a claude of its own, outside the limits of its tree.",
}
_CUT_OFF: Final = frozenset({129, 132, 133, 134, 135, 136, 137, 139, 143})
"""Exit codes of HUP, ILL, TRAP, ABRT, BUS, FPE, KILL, SEGV and TERM: a system that shuts down, a kernel without memory,
a crash. Nobody wanted the job itself to end, so its session goes on."""

_INTERRUPTED: Final = frozenset({130, 131})
"""Exit codes of INT and QUIT: somebody at a keyboard wants the end of exactly this process."""


class OutcomeReader:
    """Reads an attempt's frames one by one and keeps only what its outcome depends on."""

    def __init__(self) -> None:
        self._result: Mapping[str, Any] | None = None
        self._reopened = False
        self._begun = False
        self._refused = False
        self._background = 0
        self._error: str | None = None
        self._limit: Mapping[str, Any] = {}
        self._meter = Meter()

    def feed(self, frame: Mapping[str, Any]) -> None:
        """Take the next frame, whatever its shape."""
        self._meter.feed(frame)
        match frame.get("type"):
            case "result":
                self._take_result(frame)
            case "assistant":
                self._begun = self._reopened = True
                self._error = text(frame.get("error")) or None
            case "user":
                self._reopened = True
            case "rate_limit_event":
                self._limit = mapping(frame.get("rate_limit_info"))
            case "system":
                self._take_system(frame)
            case _:
                pass

    def conclude(
        self, *, exit_code: int | None, stderr: str = "", asked_schema: bool = False, ended_for: Reason | None = None
    ) -> Outcome:
        """Say how the attempt ended, once its process is over.

        A whole answer that came before our own end of the process stands where the process was only late to leave
        (`DEADLINE`, `STALLED`, `OUTPUT_LIMIT`, `BUDGET_EXHAUSTED`): the work is done and paid for, even if the process
        waited for a background task that it had left running. It does not stand against `CANCELLED`, which somebody was
        promised, nor against `UNMANAGED_CLAUDE`; the text is kept there all the same.

        Args:
            exit_code: As the shim wrote it, or None where it wrote none.
            stderr: The last of what the process wrote there.
            asked_schema: The job asked for an answer by a JSON schema.
            ended_for: Why we ended the process, or None where it ended by itself.
        """
        if ended_for in _LATE:
            # We saw the process wait for a background task that would have outlasted it, and ended that task with it.
            self._background = 0
        reason, detail = self._by_itself(exit_code, stderr, asked_schema)
        if ended_for is not None and not self._stands_against(ended_for, reason):
            reason, detail = ended_for, _ENDED_FOR.get(ended_for, detail)
        return Outcome(
            reason=reason,
            status=_STATUS.get(reason, JobStatus.FAILED),
            detail=detail[:_DETAIL_LIMIT],
            result=self._answer(),
            frame=self._result,
            usage=self._meter.usage,
            exit_code=exit_code,
        )

    @property
    def answered(self) -> bool:
        """A result has been reported and nothing after it says that the work goes on."""
        return self._result is not None and not self._reopened and not self._background

    @property
    def usage(self) -> Usage:
        """What this attempt has consumed so far, calls that no result covers yet included."""
        return self._meter.usage

    def _take_result(self, frame: Mapping[str, Any]) -> None:
        self._result = frame
        self._reopened = False

    def _take_system(self, frame: Mapping[str, Any]) -> None:
        match frame.get("subtype"):
            case "init":
                self._begun = self._reopened = True
            case "task_notification":
                # A background task that ends by itself starts another turn, whose result replaces the earlier one; one
                # that is stopped with the process does not (both measured).
                self._reopened = self._reopened or text(frame.get("status")) not in {"stopped", "killed"}
            case "background_tasks_changed":
                tasks = frame.get("tasks")
                self._background = len(tasks) if isinstance(tasks, list) else 0
            case "model_refusal_no_fallback":
                self._refused = True
            case _:
                pass

    def _by_itself(self, exit_code: int | None, stderr: str, asked_schema: bool) -> tuple[Reason, str]:
        if self._result is None:
            return self._without_result(exit_code, stderr)
        if not self.answered and self._result.get("is_error") is False and was_cut_off(exit_code):
            return Reason.LOST, "The process was cut off while work that it had begun after its first result went on."
        said = self._said() or stderr
        if self._result.get("is_error") is not False:
            return self._failure(said), said
        if not self.answered:
            return Reason.TRUNCATED, "The process ended while work that it had begun after its first result went on."
        if asked_schema and self._result.get("structured_output") is None:
            return Reason.SCHEMA_UNMET, "The answer does not meet the JSON schema."
        if denials := self._result.get("permission_denials"):
            return Reason.COMPLETED_WITH_DENIALS, _denied(denials)
        return Reason.COMPLETED, ""

    def _without_result(self, exit_code: int | None, stderr: str) -> tuple[Reason, str]:
        if exit_code is None:
            return Reason.LOST, "The process vanished without a result and without an exit code."
        if exit_code in _CUT_OFF:
            return (
                Reason.LOST,
                f"Signal {exit_code - 128} ended the process before it answered; we did not send it.",
            )
        if exit_code in _INTERRUPTED:
            return Reason.SIGNAL, f"Signal {exit_code - 128} ended the process before it answered."
        if "already in use" in stderr:
            return Reason.SESSION_IN_USE, stderr
        if exit_code == 0:
            return Reason.TRUNCATED, stderr or "The process ended without a result."
        reason = Reason.UNKNOWN_ERROR if self._begun else Reason.STARTUP
        return reason, stderr or f"The process exited with {exit_code} and said nothing."

    def _failure(self, said: str) -> Reason:
        result = self._result or {}
        known = _BY_SUBTYPE.get(text(result.get("subtype"))) or _BY_TERMINAL.get(text(result.get("terminal_reason")))
        return known or self._startup_failure(result, said) or self._api_failure(result, said)

    def _startup_failure(self, result: Mapping[str, Any], said: str) -> Reason | None:
        if result.get("startup_failure_reason"):
            return Reason.STARTUP
        if "No conversation found with session ID" in said:
            return Reason.NO_SESSION
        if "already in use" in said and not self._begun:
            return Reason.SESSION_IN_USE
        return None

    def _api_failure(self, result: Mapping[str, Any], said: str) -> Reason:
        if result.get("stop_reason") == "refusal" or self._refused:
            return Reason.REFUSAL
        if self._limit.get("status") == "rejected":
            return Reason.USAGE_LIMIT
        if "Credit balance is too low" in said:
            return Reason.BILLING
        status = number(result.get("api_error_status")) or 0
        by_status = Reason.SERVER_ERROR if status >= 500 else None
        return (
            _BY_ERROR.get(self._error or "")
            or _BY_HTTP.get(int(status))
            or by_status
            or _BY_LATE_ERROR.get(self._error or "")
            or Reason.UNKNOWN_ERROR
        )

    @staticmethod
    def _stands_against(ended_for: Reason, reason: Reason) -> bool:
        done = reason in {Reason.COMPLETED, Reason.COMPLETED_WITH_DENIALS}
        return done and ended_for in _LATE

    def _said(self) -> str:
        result = self._result or {}
        return text(result.get("result")) or "; ".join(texts(result.get("errors")))

    def _answer(self) -> str | None:
        if self._result is None or self._result.get("is_error") is not False:
            return None
        return text(self._result.get("result"))


def stopped_for(note: str | None, exit_code: int | None) -> Reason | None:
    """Return why an earlier engine ended a process, or None where it did not come to that.

    Args:
        note: What that engine wrote down before, or None.
        exit_code: As the shim wrote it, or None where it wrote none.
    """
    known = note is not None and note in _ENDED_FOR and was_cut_off(exit_code)
    return Reason(note) if known and note is not None else None


def was_cut_off(exit_code: int | None) -> bool:
    """Tell whether a process was ended from outside: it has no exit code, or that of a signal nobody meant for it."""
    return exit_code is None or exit_code in _CUT_OFF


def _denied(denials: Any) -> str:
    names = [text(mapping(one).get("tool_name")) for one in denials] if isinstance(denials, list) else []
    return f"Not permitted: {', '.join(dict.fromkeys(name for name in names if name)) or 'some tool calls'}."
