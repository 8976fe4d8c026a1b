"""The rules of this project's graphs, read from the source of `orchestration/` and `jobs/`.

Fan-out is by LangGraph's Send and by nothing else; graph state is a plain dictionary; a function is a node or it
routes.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.support.sources import ROOT, parsed, relative, sources

SCANNED = ("orchestration", "jobs")

ALLOWED: Mapping[str, Mapping[str, str]] = {
    "orchestration/isolation.py": {
        "ensure_future": "The one call of LangGraph: a single asyncio task, so that it gets one native cancel.",
        "wait": "Waits for that one task.",
    },
    "orchestration/patterns/langgraph_patterns.py": {
        "StateGraph": "Callers may bring a state type of their own; for `dict` it is the plain dictionary.",
    },
    "jobs/manager.py": {
        "start_soon": "Takes over the engine's, and calls it below.",
        "start_soon(self.run_batch)": "Enters the graph once for a batch, outside the request; its jobs are Sends.",
        "start_soon(self._parts.runner.cancel)": "Ends processes, and runs none.",
        "start_soon(self._graph.load_soon)": "Loads the graph, and runs nothing.",
    },
    "jobs/assembly.py": {
        "ensure_future": "The life of a manager that stands alone, which no request owns; its jobs are Sends.",
        "create_task_group": "Holds what such a manager keeps running.",
        "start_soon": "Starts the engine's own services in that group.",
        "start_soon(task)": "Starts the engine's own services, and each batch as an engine does.",
    },
    "jobs/sessions.py": {
        "start_soon(self._manager.run_batch)": "Enters the graph once for a batch, as the manager does.",
    },
    "jobs/recursion_manager.py": {
        "create_task_group": "Holds the waves of one batch.",
        "start_soon": "Enters the graph once for each wave of a large batch.",
        "start_soon(enter)": "Enters the graph once for each wave of a large batch; its jobs are Sends.",
    },
    "jobs/runner/runner.py": {
        "start_soon(self._end)": "Ends a process, and runs none.",
    },
    "jobs/runner/cleanup.py": {
        "start_soon(self._work)": "Cleans up behind attempts that are over, all of them in one task.",
    },
}
"""File to call to the reason why it may stand there. Extend it, with a reason, rather than working around a rule."""

FAN_OUT = frozenset(
    {"gather", "TaskGroup", "create_task", "ensure_future", "as_completed", "create_task_group", "start_soon"}
)
ASYNCIO_ONLY = frozenset({"wait", "Task", "*"})
"""Names that are harmless on anything but asyncio itself."""
ENTERS = frozenset({"_start_soon", "start_soon"})
"""The engine's own task group as it is handed to a part; what may be started there is named one by one."""
SCHEMAS = frozenset({"TypedDict", "BaseModel"})
"""What LangGraph would take for a state beside a plain dictionary; a dataclass is seen where the graph is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One place where a rule is broken."""

    path: str
    line: int
    what: str
    remedy: str


def breaches(source: str, path: str) -> list[Breach]:
    """Return every place in a file that breaks a rule and is not allowed."""
    return breaches_in(ast.parse(source), path)


def breaches_in(tree: ast.Module, path: str) -> list[Breach]:
    return [breach for breach in all_breaches(tree, path) if breach.what not in ALLOWED.get(path, {})]


def all_breaches(tree: ast.Module, path: str) -> Iterator[Breach]:
    for rule in (fan_out, entries, graph_state, state_types, double_roles, graph_concurrency):
        yield from rule(tree, path)


def fan_out(tree: ast.Module, path: str) -> Iterator[Breach]:
    remedy = "Return Sends from a routing function."
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] == "asyncio"
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if name in FAN_OUT:
                yield Breach(path=path, line=node.lineno, what=name, remedy=remedy)
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in ASYNCIO_ONLY and module in modules:
                yield Breach(path=path, line=node.lineno, what=name, remedy=remedy)
            case ast.ImportFrom(module="asyncio" | "anyio", names=names):
                for alias in names:
                    if alias.name in FAN_OUT | ASYNCIO_ONLY:
                        yield Breach(path=path, line=node.lineno, what=alias.name, remedy=remedy)


def entries(tree: ast.Module, path: str) -> Iterator[Breach]:
    """Yield what is started in the engine's task group: a job of a batch would be a fan-out beside the graph."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in ENTERS:
                started = ast.unparse(node.args[0]) if node.args else ""
                remedy = "Hand the jobs of a batch to the graph, and enter that once."
                yield Breach(path=path, line=node.lineno, what=f"start_soon({started})", remedy=remedy)


def graph_state(tree: ast.Module, path: str) -> Iterator[Breach]:
    remedy = "Build it over DictState."
    for node in calls(tree, "StateGraph"):
        state = node.args[0] if len(node.args) == 1 and not node.keywords else None
        if not (isinstance(state, ast.Name) and state.id == "DictState"):
            yield Breach(path=path, line=node.lineno, what="StateGraph", remedy=remedy)


def state_types(tree: ast.Module, path: str) -> Iterator[Breach]:
    remedy = "Keep the state a plain dictionary, and build graphs over DictState."
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=names):
                for alias in names:
                    if alias.name == "StateGraph" and alias.asname:
                        yield Breach(path=path, line=node.lineno, what="StateGraph", remedy="Import it by its name.")
            case ast.ClassDef(bases=bases) if path.startswith("orchestration/"):
                if any(called(base) in SCHEMAS for base in bases):
                    yield Breach(path=path, line=node.lineno, what=node.name, remedy=remedy)
            case ast.Call(func=func) if path.startswith("orchestration/") and called(func) in SCHEMAS:
                yield Breach(path=path, line=node.lineno, what=called(func), remedy=remedy)


def double_roles(tree: ast.Module, path: str) -> Iterator[Breach]:
    remedy = "Write a routing function of its own, which returns Sends and writes nothing."
    nodes = {ast.dump(given) for call in calls(tree, "add_node") for given in arguments(call)}
    for call in calls(tree, "add_conditional_edges"):
        # The first argument is the name of the node that the edges leave.
        if any(ast.dump(given) in nodes for given in arguments(call)[1:]):
            yield Breach(path=path, line=call.lineno, what="add_conditional_edges", remedy=remedy)
    for node in ast.walk(tree):
        match node:
            # A node that returns a Command says in one value what is written and where to go.
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("langgraph"):
                for alias in names:
                    if alias.name == "Command":
                        yield Breach(path=path, line=node.lineno, what="Command", remedy=remedy)


def arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def called(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def graph_concurrency(tree: ast.Module, path: str) -> Iterator[Breach]:
    remedy = "Hold a slot inside the node: LangGraph's own bound multiplies with nesting."
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys) if any(isinstance(k, ast.Constant) and k.value == "max_concurrency" for k in keys):
                yield Breach(path=path, line=node.lineno, what="max_concurrency", remedy=remedy)
            case ast.keyword(arg="max_concurrency"):
                yield Breach(path=path, line=node.value.lineno, what="max_concurrency", remedy=remedy)


def calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called == name:
                yield node


def test_no_file_breaks_a_house_rule():
    found = [breach for path in sources(*SCANNED) for breach in breaches_in(parsed(path), relative(path))]
    assert found == []


def test_the_scan_sees_both_packages():
    assert {path.relative_to(ROOT).parts[0] for path in sources(*SCANNED)} == set(SCANNED)


@pytest.mark.parametrize("path", ALLOWED)
def test_every_exception_is_in_use_and_has_a_reason(path: str):
    tree = parsed(ROOT / path)
    used = {breach.what for breach in all_breaches(tree, path)}
    assert set(ALLOWED[path]) <= used
    assert all(len(reason) > 20 for reason in ALLOWED[path].values())


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import asyncio\nasyncio.gather(a(), b())", "gather"),
        ("import asyncio as aio\naio.wait([a])", "wait"),
        ("from asyncio import gather", "gather"),
        ("from asyncio import wait as pause", "wait"),
        ("import asyncio\nasync def f():\n    async with asyncio.TaskGroup() as group: ...", "TaskGroup"),
        ("loop.create_task(a())", "create_task"),
        ("import asyncio\nasyncio.ensure_future(a())", "ensure_future"),
        ("import asyncio\nasyncio.as_completed([a()])", "as_completed"),
        ("import anyio\nasync def f():\n    async with anyio.create_task_group() as group: ...", "create_task_group"),
        ("group.start_soon(a)", "start_soon"),
        ("from asyncio import *", "*"),
        ("from asyncio import TaskGroup as Group", "TaskGroup"),
        ("import asyncio\n[asyncio.Task(work()) for work in works]", "Task"),
        ("import asyncio.tasks\nasyncio.tasks.gather(a())", "gather"),
        ("self._start_soon(self._runner.run, job.id)", "start_soon(self._runner.run)"),
        ("StateGraph(State)", "StateGraph"),
        ("StateGraph(DictState, input_schema=State)", "StateGraph"),
        ("from langgraph.graph import StateGraph as Graph", "StateGraph"),
        ("class State(TypedDict):\n    tasks: list", "State"),
        ("class State(typing.TypedDict):\n    tasks: list", "State"),
        ("DictState = TypedDict('DictState', {'tasks': list})", "TypedDict"),
        ("graph.StateGraph(state_schema=State)", "StateGraph"),
        ("g.add_node('a', work)\ng.add_conditional_edges('a', work, ['b'])", "add_conditional_edges"),
        ("g.add_node('a', self.a)\ng.add_conditional_edges('a', self.a)", "add_conditional_edges"),
        ("g.add_node('a', action=work)\ng.add_conditional_edges('a', path=work)", "add_conditional_edges"),
        ("g.add_node(work)\ng.add_conditional_edges('work', work)", "add_conditional_edges"),
        ("from langgraph.types import Command", "Command"),
        ("graph.ainvoke(state, {'max_concurrency': 4})", "max_concurrency"),
        ("graph.with_config(max_concurrency=4)", "max_concurrency"),
    ],
)
def test_a_source_that_breaks_a_rule_on_purpose_is_reported(source: str, what: str):
    assert what in [breach.what for breach in breaches(source, "orchestration/invented.py")]


@pytest.mark.parametrize(
    "source",
    [
        "await event.wait()",
        "StateGraph(DictState)",
        "g.add_node('a', work)\ng.add_conditional_edges('a', route, ['b'])",
        "def max_concurrency(): ...",
    ],
)
def test_a_source_that_keeps_the_rules_is_not_reported(source: str):
    assert breaches(source, "orchestration/invented.py") == []


def test_an_exception_holds_for_its_own_file_only():
    source = "import asyncio\nasyncio.ensure_future(a())"
    assert breaches(source, "orchestration/isolation.py") == []
    assert len(breaches(source, "orchestration/executors/native.py")) == 1


def test_the_library_imports_langgraph_anyio_and_the_standard_library_only():
    imported = set()
    for path in (ROOT / "orchestration").rglob("*.py"):
        for node in ast.walk(parsed(path)):
            match node:
                case ast.Import(names=names):
                    imported |= {alias.name.partition(".")[0] for alias in names}
                case ast.ImportFrom(module=str(module)):
                    imported.add(module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"anyio", "langgraph", "orchestration"}


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Absent())
{statement}
"""
OF_THE_ENGINE = (
    "jobs",
    "server",
    "mcp",
    "aiosqlite",
    "platformdirs",
    "psutil",
    "rich",
    "typer",
    "hypothesis",
)


def run_without(absent: tuple[str, ...], statement: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(absent=absent, statement=statement)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_limits_need_not_even_langgraph():
    done = run_without((*OF_THE_ENGINE, "langgraph", "langchain_core", "anyio"), "import orchestration.limits")
    assert done.returncode == 0, done.stderr


def test_an_absent_package_is_really_absent_in_these_tests():
    done = run_without(("langgraph",), "from orchestration.executors import ParallelExecutor")
    assert "langgraph is not installed here" in done.stderr
