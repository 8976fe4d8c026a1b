"""Ids of waits that run as tasks: the wait's arguments in a few characters, since it has no row in the store.

Jobs are named by their numbers in the order of admission, and a run of numbers by its ends.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from server.mcp.arguments import WaitArguments

PREFIX = "w"

LONGEST = 256
"""Most characters of an id; a wait that would need more is answered in its call."""

_END_OF_TIME = 1 << 45
"""Milliseconds since the epoch that a date can hold, about: the year 3084."""

_MOST_JOBS = 10_000
"""Most jobs that an id may name: a client could write one itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The content of a wait's id.

    Args:
        created: Seconds since the epoch.
        until: Seconds since the epoch at which it is over in any case, or None.
        arguments: The wait's arguments, without a time and without jobs.
        numbers: Numbers of the jobs that it is about, in the order asked; none where it is about a batch or a subtree.
    """

    created: float
    until: float | None
    arguments: WaitArguments
    numbers: Sequence[int] = ()


def encode(wait: Wait) -> str | None:
    """Return the id of a wait, or None where it would be too long."""
    asked = wait.arguments
    subject = asked.batch_id or (f"s{asked.subtree_of}" if asked.subtree_of else f"n{_ranges(wait.numbers)}")
    until = "" if wait.until is None else _milliseconds(wait.until)
    parts = (_milliseconds(wait.created), until, asked.mode, subject, asked.cursor or "")
    text = PREFIX + ".".join(parts).rstrip(".")
    return text if len(text) <= LONGEST else None


def decode(text: str) -> Wait:
    """Decode an id.

    Raises:
        ValueError: It is no valid id of a wait.
    """
    if not text.startswith(PREFIX) or len(text) > LONGEST:
        raise ValueError(text)
    created, until, mode, subject, cursor = (*text[1:].split("."), "")[:5]
    about = {"b": {"batch_id": subject}, "s": {"subtree_of": subject[1:]}, "n": {}}[subject[:1]]
    return Wait(
        created=_seconds(created),
        until=_seconds(until) if until else None,
        arguments=WaitArguments.model_validate({"mode": mode, "cursor": cursor or None, **about}),
        numbers=tuple(_numbers(subject[1:])) if subject.startswith("n") else (),
    )


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000):x}"


def _seconds(text: str) -> float:
    milliseconds = int(text, 16)
    if not 0 <= milliseconds < _END_OF_TIME:
        raise ValueError(text)
    return milliseconds / 1000


def _ranges(numbers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return "_".join("-".join(f"{end:x}" for end in run) for run in runs)


def _numbers(text: str) -> Iterator[int]:
    left = _MOST_JOBS
    for run in text.split("_"):
        ends = [int(end, 16) for end in run.split("-")]
        if any(last <= first for first, last in pairwise(ends)) or (left := left - (ends[-1] - ends[0]) - 1) < 0:
            raise ValueError(text)
        yield from range(ends[0], ends[-1] + 1)
