"""How a task that raised is told to those who wait for its siblings: as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from orchestration.limits import LimitKind, RecursionLimitError

_PLAIN = (str, int, float, bool, type(None))


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is left of an exception once it is data.

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
        """Take down an exception."""
        plain = {
            name: str(value) if isinstance(value, str) else value  # an enum of text would not survive every checkpoint
            for name, value in vars(error).items()
            if not name.startswith("_") and isinstance(value, _PLAIN)
        }
        return cls(type=type(error).__name__, message=str(error), fields=plain)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read what `record` wrote."""
        return cls(type=record["type"], message=record["message"], fields=record["fields"])

    def record(self) -> dict[str, Any]:
        """Return it as plain data, which any checkpointer can store: the keys are the names of the fields."""
        return {"type": self.type, "message": self.message, "fields": dict(self.fields)}

    def error(self) -> Exception:
        """Return an exception to raise: a refusal as `RecursionLimitError`, anything else as `TaskFailedError`."""
        if self.type == RecursionLimitError.__name__:
            return RecursionLimitError(**{**self.fields, "kind": LimitKind(self.fields["kind"])})
        return TaskFailedError(self)


class TaskFailedError(Exception):
    """The task that was asked for raised.

    Args:
        failure: What it raised; the logger `orchestration.attempts` has the traceback, at level INFO.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"The task raised {failure.type}: {failure.message}")
