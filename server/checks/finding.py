"""The finding: the result of one check."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Args:
        name: What was checked.
        good: Whether it is as it should be.
        detail: What was found.
        remedy: What to do where it is not good, with the command to run.
        needed: Whether jobs cannot run without it; otherwise a problem is a mere note.
    """

    name: str
    good: bool
    detail: str
    remedy: str = ""
    needed: bool = True

    @property
    def mark(self) -> str:
        """Return "ok", "error", or "note" for a problem that keeps no job from running."""
        return "ok" if self.good else "error" if self.needed else "note"
