"""`orchestration` in a project of its own, where LangGraph and anyio are installed and nothing else is."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLED = ("langgraph", "anyio")

PROJECT = """
import asyncio

from orchestration.executors import RecursiveClaudeExecutor, Subtasks


async def work(node):
    number = node["task"]
    return 1 if number == 1 else Subtasks(tasks=[number // 2, number - number // 2])


async def add(node, subtasks, results):
    return sum(record["value"] for record in results.values())


executor = RecursiveClaudeExecutor(work=work, resume=add)
print(asyncio.run(executor.execute_with_recursion(12)))

from orchestration import *
from orchestration.executors import ParallelExecutor
from orchestration.patterns import ParallelOrchestrationPattern, RecursiveOrchestrationPattern

RecursiveClaudeExecutor(max_depth=5, max_concurrent={0: 1, 1: 10, 2: 50})
RecursiveOrchestrationPattern().create_recursive_graph()
ParallelOrchestrationPattern().create_parallel_sends("node", [1, 2])
ParallelExecutor()
RecursionLimitError()
"""


def required(names: tuple[str, ...]) -> dict[str, Distribution]:
    """Return what an installer would install for some names: the distributions and all that they need, by name."""
    found: dict[str, Distribution] = {}
    missing = list(names)
    while missing:
        name = missing.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # needed on another platform, or only with an extra
            continue
        for requirement in found[name].requires or []:
            if "extra ==" not in requirement:
                name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
                missing.append(re.sub(r"[-_.]+", "-", name).lower())
    return found


def modules(installed: Distribution) -> Iterator[Path]:
    """Return the files of a distribution that stand below its site directory, relative to it."""
    for file in installed.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            yield Path(file)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the library, its two requirements, and what those need."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "orchestration", folder / "orchestration", ignore=shutil.ignore_patterns("__pycache__"))
    for installed in required(INSTALLED).values():
        for file in modules(installed):
            link = folder / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(str(installed.locate_file(file)))
    return folder


def run(program: str, site: Path, project: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a file of a project, with one directory to import from besides the standard library."""
    main = project / "main.py"
    main.write_text(f"import sys\nsys.path.append({str(site)!r})\n{program}")
    return subprocess.run(
        [sys.executable, "-I", "-S", "-B", str(main)],
        cwd=project,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_project_elsewhere_runs_a_recursion_and_makes_each_class_with_langgraph_and_anyio_alone(
    site: Path, tmp_path: Path
):
    done = run(PROJECT, site, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "12\n"


@pytest.mark.parametrize(
    "name", ["jobs", "server", "mcp", "aiosqlite", "psutil", "typer", "rich", "langgraph.checkpoint.sqlite"]
)
def test_what_the_engine_needs_besides_is_not_there(name: str, site: Path, tmp_path: Path):
    assert "ModuleNotFoundError" in run(f"import {name}", site, tmp_path).stderr


def test_without_langgraph_the_project_does_not_run(site: Path, tmp_path: Path):
    hidden = "sys.modules['langgraph'] = None\n"
    assert "langgraph" in run(hidden + PROJECT, site, tmp_path).stderr
