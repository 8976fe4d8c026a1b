"""Reasons why a live job waits: a closed set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class WaitingFor(StrEnum):
    """Why a live job does no work now. The first three are stored; the others are known while an engine runs."""

    SIBLINGS = "siblings"
    """It is queued until the jobs of its batch that it depends on have completed."""
    CHILDREN = "children"
    """Its subtasks, or those below it that it waits for in `claude_wait`."""
    PERMISSION = "permission"
    """It has asked for permission to call a tool, and waits for the answer."""
    SLOT = "slot"
    """It is queued until fewer jobs run."""
    LIMIT = "limit"
    """It is queued because of what its account may use, or how many of its jobs may run at once."""
    MEMORY = "memory"
    """It is queued until the machine has more free memory."""
    BACK_OFF = "back_off"
    """It is queued for some seconds after trouble of the API, or of the system with a start."""
    PAUSE = "pause"
    """A person has paused it, or a job or the tree above it."""

    @property
    def words(self) -> str:
        """What goes with "waiting for" in a sentence."""
        return _WORDS[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a live job waits for.

    Args:
        what: The kind.
        until: Seconds since the epoch at which it ends, or None where that is not known.
        because: For a person or a model: the limit, the ids of the siblings, the call that needs permission; or empty.
    """

    what: WaitingFor
    until: float | None = None
    because: str = ""

    def earlier(self, other: "Wait") -> "Wait":
        """Return the one of both that ends first; one without an end ends last."""
        return min(self, other, key=lambda wait: math.inf if wait.until is None else wait.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptWait:
    """Time during which an attempt did no work.

    Args:
        what: `CHILDREN`, the jobs below it for which it waited in a call, or `PERMISSION`.
        since: Seconds since the epoch.
        until: Seconds since the epoch, or None while it lasts.
    """

    what: WaitingFor
    since: float
    until: float | None = None

    @property
    def length(self) -> float:
        """Seconds that it took; endless while it lasts."""
        return self.end_or(math.inf) - self.since

    def end_or(self, at: float) -> float:
        """Return its end, or another time where it lasts: seconds since the epoch."""
        return at if self.until is None else self.until

    def touches(self, later: "AttemptWait", gap: float) -> bool:
        """Tell whether one that began later began less than so many seconds after its end."""
        return later.since < self.end_or(math.inf) + gap

    def joined(self, later: "AttemptWait") -> "AttemptWait":
        """Return both as one."""
        lasts = self.until is None or later.until is None
        until = None if lasts else max(self.end_or(0.0), later.end_or(0.0))
        return AttemptWait(what=self.what, since=self.since, until=until)


FOR_JOBS = frozenset({WaitingFor.SIBLINGS, WaitingFor.CHILDREN})
"""What keeps a job from being queued for a slot: other jobs have to end first."""

_WORDS: Mapping[WaitingFor, str] = {
    WaitingFor.SIBLINGS: "tasks it depends on",
    WaitingFor.CHILDREN: "its children",
    WaitingFor.PERMISSION: "permission",
    WaitingFor.SLOT: "a slot",
    WaitingFor.LIMIT: "a limit of its account",
    WaitingFor.MEMORY: "free memory",
    WaitingFor.BACK_OFF: "the next try after trouble",
    WaitingFor.PAUSE: "a person to resume it",
}
