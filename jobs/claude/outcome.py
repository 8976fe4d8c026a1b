"""Decides the outcome of an attempt from what its process reported and how it exited.

Neither the exit code nor the frame's subtype is trusted alone: a failed API call arrives as subtype "success", an
interrupt exits with 0, one process can report two results, and a kill reports none (all measured on 2.1.330). Which
fields of a result say which reason is the table in `failure_table`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from jobs.claude.cli_messages import is_marked_as_the_clis_own, may_be_the_clis_own, reason_in
from jobs.claude.damaged_lines import PASSING, UnreadableKind
from jobs.claude.failure_table import denied, explain, reason_of
from jobs.claude.last_message import LastMessage, words_of
from jobs.claude.ndjson import Line
from jobs.claude.rate_limits import NeedsCredits, UsageLimitReached, rate_limit_signal
from jobs.claude.usage import UsageMeter
from jobs.model import JobStatus, Outcome, Reason, Usage
from jobs.util.json_values import mapping, number, text, texts
from jobs.util.text import beginning, redact

_DETAIL_LIMIT = 2000
_LAST_WORDS_LIMIT = 1000
_NAME_LIMIT = 100

_STATUS: Final[Mapping[Reason, JobStatus]] = MappingProxyType(
    {
        Reason.COMPLETED: JobStatus.COMPLETED,
        Reason.COMPLETED_WITH_DENIALS: JobStatus.COMPLETED,
        Reason.CANCELLED: JobStatus.CANCELLED,
        Reason.DEADLINE: JobStatus.TIMEOUT,
    }
)

_LATE: Final = frozenset(
    {Reason.DEADLINE, Reason.STALLED, Reason.OUTPUT_LIMIT, Reason.BUDGET_EXHAUSTED, Reason.UNMANAGED_CLAUDE}
)
_ENDED_FOR: Final = {
    Reason.CANCELLED: "It was cancelled.",
    Reason.STARTUP: "It was ended because its claude turned out to be too old.",
    Reason.DEADLINE: "It was ended because its time limit was reached.",
    Reason.STALLED: "It was ended because it wrote nothing for too long.",
    Reason.OUTPUT_LIMIT: "It was ended because it wrote more than a job may.",
    Reason.BUDGET_EXHAUSTED: "It was ended because a budget of its tree was used up.",
    Reason.INTERRUPTED: "It was ended for a pause; its session goes on after it.",
    Reason.UNMANAGED_CLAUDE: "It was ended because it started a claude itself, outside the limits of its tree.",
}
_OF_A_LOST_RESULT: Final[Mapping[str, Any]] = MappingProxyType(
    {"type": "result", "subtype": "success", "is_error": False}
)
"""What is known of a result on a damaged line."""

_CUT_OFF: Final = frozenset({129, 132, 133, 134, 135, 136, 137, 139, 143})
"""Exit codes of HUP, ILL, TRAP, ABRT, BUS, FPE, KILL, SEGV and TERM: a system that shuts down, a kernel without memory,
a crash. None of them was meant for the job itself, so its session goes on."""

_INTERRUPTED: Final = frozenset({130, 131})
"""Exit codes of INT and QUIT: a person at a keyboard ends exactly this process."""


class OutcomeReader:
    """Reads an attempt's frames one by one and keeps only what its outcome depends on."""

    def __init__(self) -> None:
        self._result: Mapping[str, Any] | None = None
        self._result_is_lost = False
        self._reopened = False
        self._begun = False
        self._refused = False
        self._background = 0
        # The last message where the CLI itself may have written it: None where the model did, empty before the first.
        self._own_message: Mapping[str, Any] | None = {}
        self._last = LastMessage()
        self._spoke = False
        self._limit: UsageLimitReached | NeedsCredits | None = None
        self._meter = UsageMeter()
        self._version = self._model = ""
        self._afterwards = ""
        self._mended: Mapping[str, Any] | None = None
        # Lines that could not be read since the model was last spoken to.
        self._lost = 0
        self._last_lost: UnreadableKind | None = None
        self._is_stopped_by_hook = False
        self._given = self._plain = ""

    def take(self, line: Line) -> None:
        """Take the next line: its frame, or that it was damaged."""
        if line.mended:
            self._mended = line.frame
            if self._last_lost is UnreadableKind.FRAME and mapping(line.frame).get("type") != PASSING:
                # Its beginning was counted.
                self._lost = max(0, self._lost - 1)
                self._last_lost = None
        if line.frame is not None:
            self.feed(line.frame)
        elif line.lost is not None:
            self._take_loss(line.lost)
        else:
            self._plain = line.text.strip() or self._plain

    def feed(self, frame: Mapping[str, Any]) -> None:
        """Take the next frame, of any shape."""
        if self._is_spurious(frame):
            self._afterwards, self._reopened = _said_by(frame), False
            return
        self._meter.feed(frame)
        self._last.hear(frame)
        match frame.get("type"):
            case "result":
                self._take_result(frame)
            case "assistant":
                self._take_message(frame)
            case "user":
                self._take_user(frame)
            case "rate_limit_event":
                sign = rate_limit_signal(frame)
                self._limit = sign if isinstance(sign, UsageLimitReached | NeedsCredits) else None
            case "system":
                self._take_system(frame)
            case _:
                pass

    def conclude(
        self, *, exit_code: int | None, stderr: str = "", asked_schema: bool = False, stop_reason: Reason | None = None
    ) -> Outcome:
        """Say how the attempt ended, once its process is over.

        A whole answer that came before we ended the process counts where the process was only late to exit
        or left something running (`DEADLINE`, `STALLED`, `OUTPUT_LIMIT`, `BUDGET_EXHAUSTED`, `UNMANAGED_CLAUDE`): the
        work is done and paid for, even if the process waited for a background task. It does not overrule
        `CANCELLED`, which a caller was promised; the text is kept all the same. Where the process was ended for a pause
        (`INTERRUPTED`), it counts if nothing was left to do: a background task is gone on with after the pause.

        Args:
            exit_code: As the shim wrote it, or None where it wrote none.
            stderr: The last of what the process wrote there.
            asked_schema: The job asked for an answer by a JSON schema.
            stop_reason: Why we ended the process, or None where it ended by itself.
        """
        if stop_reason in _LATE:
            # We saw the process wait for a background task that would have outlasted it, and ended that task with it.
            self._background = 0
        reason, detail = self._by_itself(exit_code, stderr, asked_schema)
        # A result of which no more is known than that it was there is kept only together with an answer.
        is_known = not self._result_is_lost or reason is Reason.COMPLETED
        answer = self._answer() if is_known else None
        notes = list(self._notes(answer))
        if stop_reason is not None and not self._stands_against(stop_reason, reason):
            reason, detail = stop_reason, _ENDED_FOR.get(stop_reason, detail)
        status = _STATUS.get(reason, JobStatus.FAILED)
        if status is not JobStatus.COMPLETED and self._given:
            notes.append(f"What it had answered: {self._given}")
        return Outcome(
            reason=reason,
            status=status,
            # Cut afterwards: a key that lacks its end would not be known.
            detail=redact(beginning(" ".join(filter(None, (detail, *notes))), 2 * _DETAIL_LIMIT))[:_DETAIL_LIMIT],
            result=answer,
            frame=self._frame(answer) if is_known else None,
            usage=self._meter.usage,
            exit_code=exit_code,
            cli_version=self._version or None,
            model=self.model,
        )

    @property
    def answered(self) -> bool:
        """A result has been reported and nothing after it says that the work goes on."""
        return self._result is not None and not self._reopened and not self._background

    @property
    def version(self) -> str | None:
        """What the CLI said its version is, or None where it has said nothing yet."""
        return self._version

    @property
    def model(self) -> str | None:
        """The model that answers, or None before its first answer."""
        return _name(self._last.model) or self._model or None

    @property
    def usage(self) -> Usage:
        """What this attempt has consumed so far, calls that no result covers yet included."""
        return self._meter.usage

    def _take_loss(self, lost: UnreadableKind) -> None:
        self._last_lost = lost
        if lost is UnreadableKind.ANSWER:
            # It has no more than that; the answer itself is in the frames before it.
            self._take_result(_OF_A_LOST_RESULT, is_lost=True)
        else:
            self._lost += 1

    def _take_result(self, frame: Mapping[str, Any], *, is_lost: bool = False) -> None:
        self._result, self._result_is_lost = frame, is_lost
        self._reopened = self._spoke = False
        # Work that follows may fail, and what is known of a lost result may not be enough.
        self._given = (("" if is_lost else self._answer()) or self._given)[:_LAST_WORDS_LIMIT]

    def _take_user(self, frame: Mapping[str, Any]) -> None:
        self._reopened = True
        if not frame.get("parent_tool_use_id") and not self._last.end(frame):
            self._lost = 0

    def _take_message(self, frame: Mapping[str, Any]) -> None:
        self._begun = self._reopened = self._spoke = True
        self._last.take(frame)
        if frame.get("parent_tool_use_id"):
            return
        self._own_message = frame if may_be_the_clis_own(frame) else None
        sign = rate_limit_signal(frame)
        if isinstance(sign, UsageLimitReached | NeedsCredits):
            self._limit = sign

    def _is_spurious(self, frame: Mapping[str, Any]) -> bool:
        # After a success, versions before 2.1.7 report an error for the notice of a background task, and later ones may
        # report an empty turn. No model was asked, so the answer before it is still the answer.
        if frame.get("type") != "result" or number(frame.get("num_turns")) != 0 or self._spoke:
            return False
        return self._result is not None and self._failure(self._result) is None

    def _take_system(self, frame: Mapping[str, Any]) -> None:
        match frame.get("subtype"):
            case "init":
                self._begun = self._reopened = True
                self._version = _name(frame.get("claude_code_version")) or self._version
                self._model = _name(frame.get("model")) or self._model
            case "informational":
                self._is_stopped_by_hook = self._is_stopped_by_hook or frame.get("prevent_continuation") is True
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
        result = self._result
        if result is None or (self._result_is_lost and exit_code != 0):
            return self._without_result(exit_code, stderr)
        failure = self._failure(result)
        if failure is None and not self.answered and was_cut_off(exit_code):
            return Reason.LOST, "The process was cut off in a turn that it had begun after its first result."
        if failure is not None:
            return failure, self._explained(result) or stderr or explain(result)
        if not self.answered:
            return Reason.TRUNCATED, "The process ended in a turn that it had begun after its first result."
        return self._success(result, asked_schema)

    def _success(self, result: Mapping[str, Any], asked_schema: bool) -> tuple[Reason, str]:
        if self._result_is_lost and (asked_schema or self._lost or not self._last.latest_text):
            return Reason.TRUNCATED, f"The line with its result could not be read.{self._last_words()}"
        if asked_schema and result.get("structured_output") is None:
            return Reason.SCHEMA_UNMET, "The answer does not meet the JSON schema."
        if denials := result.get("permission_denials"):
            return Reason.COMPLETED_WITH_DENIALS, _denied(denials)
        return Reason.COMPLETED, ""

    def _explained(self, result: Mapping[str, Any]) -> str:
        """Return what is said about a failure; the words of the model itself explain none."""
        errors = "; ".join(texts(result.get("errors")))
        if errors or result.get("is_error") is not False or self._own_message:
            return errors or _said_by(result)
        if self._is_without_a_turn(result):
            return f"The process ended without a turn of the model. {_said_by(result)}".strip()
        return f"{explain(result)}{self._last_words()}"

    def _notes(self, answer: str | None) -> Iterator[str]:
        if self._result_is_lost and answer is not None:
            yield "The line with its result could not be read; the answer is the text of its last message."
        elif self._mended is not None:
            yield "A line of its output was damaged and has been repaired."
        if self._lost:
            yield f"Lines of its output that were damaged and could not be read: {self._lost}."
        if answer is not None and not self._result_is_lost:
            yield self._note_on(answer)
        if self._afterwards:
            yield f"After its answer the CLI reported: {self._afterwards}"

    def _note_on(self, answer: str) -> str:
        if not answer.strip():
            return "Its answer is empty."
        if not self._last.text.strip() and not text(mapping(self._result).get("result")).strip():
            return "Its last message has no text; the answer is the text of the message before."
        if self._last.resumptions and answer == self._last.text:
            return "Its answer was cut off and resumed; the parts are joined."
        return ""

    def _without_result(self, exit_code: int | None, stderr: str) -> tuple[Reason, str]:
        if exit_code is None:
            return Reason.LOST, "The process vanished without a result and without an exit code."
        if exit_code in _CUT_OFF:
            signal = exit_code - 128
            return (
                Reason.LOST,
                f"Signal {signal}, which claude-jobs did not send, ended the process before it answered.",
            )
        if exit_code in _INTERRUPTED:
            return Reason.SIGNAL, f"Signal {exit_code - 128} ended the process before it answered."
        if "already in use" in stderr:
            return Reason.SESSION_IN_USE, stderr
        said = stderr or self._plain
        # A wrapper that hands its output to another program loses the exit code.
        if exit_code == 0 and (self._begun or self._last_lost or not stderr):
            return Reason.TRUNCATED, f"{said or 'The process ended without a result.'}{self._last_words()}"
        reason = Reason.UNKNOWN_ERROR if self._begun else Reason.STARTUP
        return reason, said or f"The process exited with {exit_code} and wrote nothing."

    def _failure(self, result: Mapping[str, Any]) -> Reason | None:
        """Return why a result is an error, or None where it is an answer."""
        said = _said_by(result)
        if result.get("is_error") is not False:
            return reason_of(result, message=self._own_message or {}, signs=self._signs(result, said))
        return denied(result) or self._message_failure(result, said) or self._turn_failure(result)

    def _turn_failure(self, result: Mapping[str, Any]) -> Reason | None:
        if not self._is_without_a_turn(result):
            return None
        return Reason.INTERRUPTED if self._is_stopped_by_hook else Reason.TRUNCATED

    def _is_without_a_turn(self, result: Mapping[str, Any]) -> bool:
        # A hook that blocks the prompt, for example: the CLI reports its words as a success.
        return number(result.get("num_turns")) == 0 and not self._last.latest_text.strip()

    def _message_failure(self, result: Mapping[str, Any], said: str) -> Reason | None:
        """Return the reason where the result is a message of the CLI and not an answer of the model."""
        message = self._own_message
        if message is None or words_of(message).strip() not in {"", said.strip()}:
            return None
        if is_marked_as_the_clis_own(message) and message.get("error"):
            return reason_of(result, message=message, signs=self._signs(result, said))
        return reason_in(said)

    def _signs(self, result: Mapping[str, Any], said: str) -> Reason | None:
        signs = (
            (result.get("startup_failure_reason"), Reason.STARTUP),
            ("No conversation found with session ID" in said, Reason.NO_SESSION),
            ("already in use" in said and not self._begun, Reason.SESSION_IN_USE),
            (self._refused, Reason.REFUSAL),
            (isinstance(self._limit, NeedsCredits) or "redit balance is too low" in said, Reason.BILLING),
            (isinstance(self._limit, UsageLimitReached), Reason.USAGE_LIMIT),
            (words := reason_in(said), words),
            # Of a spend cap too, which no wait ends: its words say so.
            (result.get("api_error") == "usage_limit_reached", Reason.USAGE_LIMIT),
        )
        return next((reason for is_seen, reason in signs if is_seen), None)

    @staticmethod
    def _stands_against(stop_reason: Reason, reason: Reason) -> bool:
        done = reason in {Reason.COMPLETED, Reason.COMPLETED_WITH_DENIALS}
        return done and stop_reason in {*_LATE, Reason.INTERRUPTED}

    def _answer(self) -> str | None:
        if self._result is None or self._failure(self._result) is not None:
            return None
        if self._result_is_lost:
            return self._last.latest_text
        said, written = text(self._result.get("result")), self._last.text
        if not said.strip() and not written.strip():
            return self._last.latest_text
        if self._lost or not written.strip():
            return said
        # A result that was torn and put together may hold what tore it.
        is_torn = self._result is self._mended and "structured_output" not in self._result
        # The CLI reports the last block of the last message, and now and then the first, or nothing.
        is_part = not said.strip() or self._last.begins_or_ends_with(said.strip())
        return written if is_torn or is_part else said

    def _frame(self, answer: str | None) -> Mapping[str, Any] | None:
        # A reader of the frame gets the whole answer too.
        return self._result if self._result is None or answer is None else {**self._result, "result": answer}

    def _last_words(self) -> str:
        words = self._last.latest_text.strip()
        return f" Its last words were: {words[:_LAST_WORDS_LIMIT]}" if words else ""


def stopped_for(note: str | None, exit_code: int | None) -> Reason | None:
    """Return why an earlier engine ended a process, or None where it did not.

    Args:
        note: What that engine wrote down before, or None.
        exit_code: As the shim wrote it, or None where it wrote none.
    """
    known = note is not None and note in _ENDED_FOR and was_cut_off(exit_code)
    return Reason(note) if known and note is not None else None


def was_cut_off(exit_code: int | None) -> bool:
    """Tell whether a process was killed from outside: no exit code, or that of a signal not meant for the job."""
    return exit_code is None or exit_code in _CUT_OFF


def _denied(denials: Any) -> str:
    names = [text(mapping(one).get("tool_name")) for one in denials] if isinstance(denials, list) else []
    return f"Not permitted: {', '.join(dict.fromkeys(filter(None, names))) or 'some calls'}. allowedTools permits more."


def _said_by(result: Mapping[str, Any]) -> str:
    return text(result.get("result")) or "; ".join(texts(result.get("errors")))


def _name(value: Any) -> str:
    # A job can write anything here, halves of characters included.
    return text(value)[:_NAME_LIMIT].encode(errors="replace").decode()
