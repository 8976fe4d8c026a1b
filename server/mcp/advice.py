"""Advice on a failed job, by its reason, and on a wait in a pause; it never says to repeat what would fail again."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from jobs.limits.throttle import clock_time
from jobs.model import Reason
from jobs.waiting_for import Wait

_AGAIN: Final = "claude_retry with jobId {!r} tries it again."
_SESSION: Final = "claude_send with jobId {!r}"

_BY_REASON: Final[Mapping[str, str]] = MappingProxyType(
    {
        Reason.SCHEMA_UNMET: f"{_SESSION} asks its session for the answer once more; a simpler jsonSchema may help.",
        Reason.MAX_OUTPUT_TOKENS: f"{_SESSION} can ask its session for the answer in parts, or in a file.",
        Reason.BUDGET_EXHAUSTED: "It would meet the same budget again. Submit what is left as a new job with a larger "
        "maxBudgetUsd or, where a budget above it is used up, as a new tree with a larger treeBudgetUsd.",
        Reason.PROMPT_TOO_LONG: "The task does not fit into the model's context. Submit it as smaller tasks, or as one "
        "that reads less at a time.",
        Reason.REQUEST_TOO_LARGE: "The API would refuse the same request again. Submit a task with fewer or smaller "
        "files and images.",
        Reason.INVALID_REQUEST: "The API would refuse the same request again. Correct what it names, then submit the "
        "task as a new job.",
        Reason.MODEL_NOT_FOUND: "Submit the task as a new job with another model.",
        Reason.REFUSAL: "The model would refuse the same words again. Submit the task in other words, or with another "
        "model.",
        Reason.BILLING: "It cannot run before a person buys credits or raises the spend limit of the account. After "
        f"that {_AGAIN}",
        Reason.AUTH: "A person must log in (`claude`, then /login) or correct the key or token first. After that "
        f"{_AGAIN}",
        Reason.INTERRUPTED: "Where a hook of the settings stopped it, it would do so again: a person must change it. "
        f"Otherwise {_AGAIN}",
        Reason.STARTUP: f"`claude-jobs doctor` checks the installation. Once the cause is gone {_AGAIN}",
        Reason.DEADLINE: "claude_retry with jobId {!r} gives it as much time again, in its session. Where the time of "
        "its tree or of a job above it was over, submit what is left as a new tree.",
        Reason.DEPENDENCY_FAILED: f"What it depends on must complete first: try that again. After that {_AGAIN}",
        Reason.SESSION_IN_USE: f"Another process works in its session. Once that has ended {_AGAIN}",
        Reason.UNMANAGED_CLAUDE: "It would be ended again. Submit a task that uses the claude-jobs tools instead of "
        "starting claude itself.",
        Reason.OUTPUT_LIMIT: "It would be ended again where it writes as much. Submit a task that writes less.",
    }
)


def advice_on_hold(hold: Wait, *, is_job: bool) -> str:
    """Return what a model does that waits for jobs of which none goes on for long.

    Args:
        hold: Until when, and why.
        is_job: It is a job itself: once it ends its turn it is over, and nothing wakes it.
    """
    if hold.until is None:
        before, after = f"a person resumes it ({hold.because or 'paused'})", "once it is resumed"
    else:
        before = f"{clock_time(hold.until)} ({hold.because})" if hold.because else clock_time(hold.until)
        after = f"after {clock_time(hold.until)}"
    if is_job:
        return (
            f"Nothing goes on before {before}. Call claude_wait again with this cursor and without timeoutSeconds: "
            "that call lasts until something goes on."
        )
    return (
        f"Nothing goes on before {before}. Tell the user so and end your turn; "
        f"call claude_wait again with this cursor {after}."
    )


def advice_on(job_id: str, reason: str | None) -> str:
    """Return what to do about a job that ended without an answer, as one or two sentences.

    Args:
        job_id: The job.
        reason: How its last attempt ended, a value of `Reason`; None where that is not known.
    """
    words = _AGAIN if reason is None else _BY_REASON.get(reason, _AGAIN)
    return words.format(job_id)
