"""What a job is, how it is kept, and how it runs.

The names load when they are first asked for: the command line needs the words of `jobs`, and not LangGraph.
"""

from importlib import import_module
from typing import Any

_HOME = {"EnhancedJobManager": "manager", "RecursionManager": "recursion_manager"}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
