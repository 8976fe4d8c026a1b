"""LangGraph patterns and executors for tasks that spawn subtasks, without any dependency on jobs or MCP.

The names load at their first use, so that `orchestration.limits` can be imported without LangGraph.
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
