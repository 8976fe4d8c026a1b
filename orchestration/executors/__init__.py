"""Executors: take tasks and a function, and return results."""

from orchestration.executors.parallel_executor import ParallelExecutor
from orchestration.executors.recursive_executor import RecursiveClaudeExecutor
from orchestration.failures import Failure, TaskFailedError
from orchestration.guard import UnknownParentError
from orchestration.limits import RecursionLimitError
from orchestration.patterns.recursive_orchestration import Subtasks

__all__ = [
    "Failure",
    "ParallelExecutor",
    "RecursionLimitError",
    "RecursiveClaudeExecutor",
    "Subtasks",
    "TaskFailedError",
    "UnknownParentError",
]
