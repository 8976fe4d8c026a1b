"""LangGraph patterns and executors for work that divides itself, with nothing of jobs or MCP in them.

The names load when they are first asked for, so that `orchestration.limits` can be had without LangGraph.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Failure": "failures",
    "MemoryGuard": "guard",
    "ParallelExecutor": "executors",
    "ParallelOrchestrationPattern": "patterns",
    "Progress": "progress",
    "RecursionLimitError": "limits",
    "RecursiveClaudeExecutor": "executors",
    "RecursiveOrchestrationPattern": "patterns",
    "SpawnGuard": "limits",
    "Subtasks": "patterns",
    "TaskFailedError": "failures",
    "TreeLimits": "limits",
    "UnknownParentError": "guard",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
