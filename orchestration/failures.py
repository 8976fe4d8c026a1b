"""Failure: the exception of a task as a value, for callers that also wait for its siblings.

A node that raises makes LangGraph cancel every sibling Send, so nothing that is injected may raise into a graph.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from langgraph.errors import GraphBubbleUp, NodeCancelledError

from orchestration.limits import LimitKind, RecursionLimitError

_PLAIN = (str, int, float, bool, type(None))


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


class FailureRecord(dict[str, Any]):
    """A failure as plain data, with the exception next to it for as long as it stays in this process.

    Pickled or copied it is a dictionary: a traceback holds what cannot be stored.
    """

    exception: BaseException | None = None

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """Return what pickle and copy make of it."""
        return dict, (dict(self),)


class _Raised:
    """Holds the exception itself, which is no field: nothing that stores or compares a failure looks at it."""

    __slots__ = ("_exception",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(_Raised):
    """An exception as plain data.

    Args:
        type: Name of the exception's class.
        message: Its text.
        fields: Its public attributes that are text, numbers, booleans or None.
    """

    type: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=_nothing, hash=False)

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return an exception as a failure."""
        plain = {
            name: str(value) if isinstance(value, str) else value  # an enum of text would not survive every checkpoint
            for name, value in vars(error).items()
            if not name.startswith("_") and isinstance(value, _PLAIN)
        }
        return cls(type=type(error).__name__, message=str(error), fields=plain)._raised_by(error)  # noqa: SLF001 - its own

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read what `record` wrote."""
        failure = cls(type=record["type"], message=record["message"], fields=record["fields"])
        return failure._raised_by(getattr(record, "exception", None))

    @property
    def exception(self) -> BaseException | None:
        """What was raised, with its traceback; None where the failure comes from a checkpoint or another process."""
        return getattr(self, "_exception", None)

    def record(self) -> FailureRecord:
        """Return it as plain data, which any checkpointer can store: the keys are the names of the fields."""
        record = FailureRecord(type=self.type, message=self.message, fields=dict(self.fields))
        record.exception = self.exception
        return record

    def error(self) -> Exception:
        """Return an exception to raise: a refusal as `RecursionLimitError`, anything else as `TaskFailedError`.

        Its `__cause__` is `exception`.
        """
        error: Exception = TaskFailedError(self)
        if self.type == RecursionLimitError.__name__:
            error = RecursionLimitError(**{**self.fields, "kind": LimitKind(self.fields["kind"])})
        error.__cause__ = self.exception
        return error

    def _raised_by(self, error: BaseException | None) -> Self:
        object.__setattr__(self, "_exception", error)  # past the frozen fields: it is none
        return self


class TaskFailedError(Exception):
    """The task that was asked for raised.

    Args:
        failure: What it raised. `__cause__` is the exception itself with its traceback; where the task failed in
            another process it is None, and that one's logger `orchestration.failures` has the traceback, at level INFO.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"The task raised {failure.type}: {failure.message}")


logger = logging.getLogger(__name__)


async def capture(work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Call `work` and return its value, or a `Failure` where it raised.

    Cancellation propagates, and so does what LangGraph raises to steer a graph, such as an interrupt.

    Raises:
        NodeCancelledError: A node of a nested run was cancelled; LangGraph turns that into an exception.
    """
    try:
        return await work(*arguments)
    except (GraphBubbleUp, NodeCancelledError):
        raise
    except Exception as error:
        logger.info("A task failed: %r", error, exc_info=error)
        return Failure.of(error)
