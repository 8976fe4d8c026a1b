from orchestration.executors import ParallelExecutor, RecursiveClaudeExecutor
from orchestration.failures import Failure, TaskFailedError
from orchestration.guard import MemoryGuard, UnknownParentError
from orchestration.limits import RecursionLimitError, SpawnGuard, TreeLimits
from orchestration.patterns import ParallelOrchestrationPattern, RecursiveOrchestrationPattern, Subtasks
from orchestration.progress import Progress

__all__ = [
    "Failure",
    "MemoryGuard",
    "ParallelExecutor",
    "ParallelOrchestrationPattern",
    "Progress",
    "RecursionLimitError",
    "RecursiveClaudeExecutor",
    "RecursiveOrchestrationPattern",
    "SpawnGuard",
    "Subtasks",
    "TaskFailedError",
    "TreeLimits",
    "UnknownParentError",
]
