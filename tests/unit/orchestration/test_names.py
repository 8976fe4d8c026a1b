"""Every public name is where users look for it, and type checkers are told the same."""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import jobs
import orchestration

PACKAGES = (orchestration, jobs)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("orchestration.patterns.send_api", "merge"),
        ("orchestration.patterns.langgraph_patterns", "ParallelOrchestrationPattern"),
        ("orchestration.patterns.recursive_orchestration", "RecursiveOrchestrationPattern"),
        ("orchestration.executors.parallel_executor", "ParallelExecutor"),
        ("orchestration.executors.recursive_executor", "RecursiveClaudeExecutor"),
        ("jobs.recursion_manager", "RecursionManager"),
        ("jobs.manager", "EnhancedJobManager"),
    ],
)
def test_a_name_of_a_module_is_also_a_name_of_its_package(module: str, name: str):
    package = module.rpartition(".")[0]
    assert getattr(import_module(package), name) is getattr(import_module(module), name)


@pytest.mark.parametrize("name", orchestration.__all__)
def test_a_name_of_the_top_package_loads(name: str):
    assert getattr(orchestration, name).__name__ == name


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_type_checkers_are_told_every_name(package: Any):
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} == set(package.__all__)
    [listed] = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert set(listed) == set(package.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package: Any):
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(package, "Nothing")  # noqa: B009 - a type checker knows that there is no such name
