"""Where the `claude` binary is."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from jobs.errors import ClaudeNotFoundError

_NAME = "claude"


def find_claude(explicit: str | None, path: str | None) -> Path:
    """Return the absolute path of the `claude` to run.

    Args:
        explicit: Path from the settings; where it is given, nothing else is tried.
        path: The client's PATH, or None where it has none.

    Raises:
        ClaudeNotFoundError: Naming every place that was looked at.
    """
    if explicit:
        chosen = Path(explicit).expanduser().absolute()
        if _executable(chosen):
            return chosen
        raise ClaudeNotFoundError((f"{chosen} (not an executable file)",))
    candidates = [*_on_path(path or ""), *_bundled()]
    for candidate in candidates:
        if _executable(candidate):
            return candidate
    raise ClaudeNotFoundError(_looked(path, candidates))


def _on_path(path: str) -> list[Path]:
    # An empty or relative entry means the working directory, where a repository could put its own `claude`.
    return [Path(entry) / _NAME for entry in path.split(os.pathsep) if entry.startswith(os.sep)]


def _bundled() -> list[Path]:
    # find_spec does not import the package, which would cost more than starting a job.
    spec = importlib.util.find_spec("claude_agent_sdk")
    return [Path(place) / "_bundled" / _NAME for place in (spec.submodule_search_locations or ())] if spec else []


def _executable(candidate: Path) -> bool:
    return candidate.is_file() and os.access(candidate, os.X_OK)


def _looked(path: str | None, candidates: Sequence[Path]) -> tuple[str, ...]:
    bundled = [str(candidate) for candidate in candidates if candidate.parent.name == "_bundled"]
    return (f"PATH ({path or 'empty'})", *(bundled or ["the package claude-agent-sdk (not installed)"]))
