"""Reusable LangGraph patterns: flat fan-out, recursion, and the building blocks of both."""

from orchestration.patterns.langgraph_patterns import GraphBuildError, ParallelOrchestrationPattern
from orchestration.patterns.recursive_orchestration import (
    DuplicateIdError,
    RecursiveOrchestrationPattern,
    Subtasks,
    collect,
)
from orchestration.patterns.send_api import MAX_SENDS, DictState, chunks, create_sends, merge

__all__ = [
    "MAX_SENDS",
    "DictState",
    "DuplicateIdError",
    "GraphBuildError",
    "ParallelOrchestrationPattern",
    "RecursiveOrchestrationPattern",
    "Subtasks",
    "chunks",
    "collect",
    "create_sends",
    "merge",
]
