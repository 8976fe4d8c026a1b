"""Job queue for Claude Code: the model of a job, its store, and the runner of its processes.

The names load at their first use: the command line needs the types of `jobs`, and not LangGraph.
"""

from importlib import import_module
from typing import Any

_HOME = {"EnhancedJobManager": "manager", "RecursionManager": "recursion_manager"}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
