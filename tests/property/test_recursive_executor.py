"""Random trees through the executor, against a plain recursive function."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.executors import RecursiveClaudeExecutor, Subtasks
from orchestration.isolation import run_isolated
from orchestration.patterns import RecursiveOrchestrationPattern
from tests.support.long_form import LONG

leaves = st.integers(-9, 9) | st.just("fails")
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=6), max_leaves=25)


def oracle(tree: Any) -> int:
    """Add a tree up, where a leaf that fails counts 1,000 in its parent."""
    if isinstance(tree, list):
        return len(tree) + sum(1000 if part == "fails" else oracle(part) for part in tree)
    return int(tree)


def size(tree: Any) -> int:
    return 1 + (sum(size(part) for part in tree) if isinstance(tree, list) else 0)


async def work(node: dict) -> Any:
    if node["task"] == "fails":
        raise ValueError("a leaf that fails")
    if isinstance(node["task"], list):
        return Subtasks(tasks=node["task"][:2], state=[])
    return int(node["task"])


async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
    """Take the children two by two, so that a node resumes more than once."""
    values = [*subtasks.state, *(1000 if "error" in record else record["value"] for record in results.values())]
    rest = node["task"][len(values) : len(values) + 2]
    return Subtasks(tasks=rest, state=values) if rest else len(values) + sum(values)


@given(tree=trees.filter(lambda tree: tree != "fails"))
@settings(deadline=None, max_examples=200 if LONG else 30)
def test_the_executor_computes_what_a_recursive_function_computes(tree: Any):
    executor = RecursiveClaudeExecutor(max_depth=30, max_concurrent={0: 1, 1: 2}, work=work, resume=resume)
    assert asyncio.run(executor.execute_with_recursion(tree)) == oracle(tree)


@given(tree=trees)
@settings(deadline=None, max_examples=200 if LONG else 30)
def test_the_results_hold_every_node_once_under_its_parent(tree: Any):
    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=work, resume=resume)
    results = asyncio.run(run_isolated(graph.ainvoke({"tasks": [tree]})))["results"]
    assert len(results) == size(tree)
    for node_id, record in results.items():
        assert record["id"] == node_id
        assert ("value" in record) != ("error" in record)
        parent = results.get(record["parent_id"])
        assert record["depth"] == (0 if parent is None else parent["depth"] + 1)


@pytest.mark.parametrize("depth", [1, 60])
def test_a_chain_is_as_deep_as_the_limit_allows(depth: int):
    tree: Any = 5
    for _ in range(depth):
        tree = [tree]
    executor = RecursiveClaudeExecutor(max_depth=depth, work=work, resume=resume)
    assert asyncio.run(executor.execute_with_recursion(tree)) == 5 + depth
