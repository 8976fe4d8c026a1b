"""The house rules held by the graphs themselves, compiled and run: what the source cannot show."""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from langgraph.config import get_config
from langgraph.types import Send

from jobs.batch_graph import BatchGraph
from jobs.event_bus import JobEventBus
from jobs.model import Job, JobStatus
from jobs.settings import Settings
from jobs.store.live import LiveStore
from orchestration.executors import ParallelExecutor, RecursiveClaudeExecutor
from orchestration.patterns import DictState, ParallelOrchestrationPattern, RecursiveOrchestrationPattern
from tests.support.sources import parsed, relative, sources
from tests.unit.jobs.support import FakeRunner, parts

pytestmark = pytest.mark.anyio

PUSHED = ("__pregel_push",)
"""What LangGraph writes down as the trigger of a task that a Send made."""


async def work(node: dict) -> Any:
    return node["task"]


async def route(state: dict) -> list[Send]:
    return [Send("work", state)]


BUILDERS: dict[str, Callable[[], Any]] = {
    "recursive": lambda: RecursiveOrchestrationPattern.create_recursive_graph(work=work).builder,
    "parallel": lambda: ParallelOrchestrationPattern.build_parallel_graph(
        dict, {"coordinator": ParallelExecutor().execute_parallel_tasks, "work": work}, route
    ),
    "ParallelExecutor": lambda: ParallelExecutor().graph.builder,
    "RecursiveClaudeExecutor": lambda: RecursiveClaudeExecutor(work=work).graph.builder,
}


def functions(runnables: list[Any]) -> set[Any]:
    return {function for one in runnables for function in (one.func, one.afunc) if function is not None}


def nodes_of(builder: Any) -> set[Any]:
    return functions([node.runnable for node in builder.nodes.values()])


def routers_of(builder: Any) -> set[Any]:
    return functions([branch.path for branches in builder.branches.values() for branch in branches.values()])


@pytest.mark.parametrize("name", BUILDERS)
async def test_a_graphs_state_is_a_plain_dictionary(name: str):
    builder = BUILDERS[name]()
    assert builder.state_schema is DictState
    assert list(builder.channels) == ["__root__"]  # LangGraph makes a channel per key of any other state


def test_the_state_of_every_graph_is_a_dict_with_a_reducer():
    assert get_origin(DictState) is Annotated
    state, reducer = get_args(DictState)
    assert get_origin(state) is dict
    assert callable(reducer)


@pytest.mark.parametrize("name", BUILDERS)
async def test_no_function_is_a_node_and_routes(name: str):
    builder = BUILDERS[name]()
    assert nodes_of(builder)
    assert routers_of(builder)
    assert nodes_of(builder).isdisjoint(routers_of(builder))


async def test_a_function_that_does_both_is_seen():
    builder = BUILDERS["recursive"]()
    [routing] = routers_of(builder)
    builder.add_node("both", routing)
    assert not nodes_of(builder).isdisjoint(routers_of(builder))


def test_graphs_are_built_in_the_patterns_and_nowhere_else():
    built = {
        relative(path)
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and "StateGraph" in [alias.name for alias in node.names]
    }
    assert built == {
        "orchestration/patterns/langgraph_patterns.py",
        "orchestration/patterns/recursive_orchestration.py",
    }


class NotingRunner(FakeRunner):
    """Writes down as what LangGraph runs each job."""

    def __init__(self, _: Settings, store: LiveStore, event_bus: JobEventBus) -> None:
        super().__init__(store, event_bus)
        self.tasks: list[tuple[str, tuple[str, ...]]] = []

    async def start(self, job_id: str) -> None:
        told = get_config()["metadata"]
        self.tasks.append((told["langgraph_node"], tuple(told["langgraph_triggers"])))
        await super().start(job_id)


async def test_the_jobs_of_a_batch_are_sends_of_one_run_of_the_recursive_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entered: list[list[str]] = []
    run = BatchGraph.run

    async def noting(graph: BatchGraph, jobs: Sequence[Job]) -> None:
        entered.append([job.id for job in jobs])
        await run(graph, jobs)

    monkeypatch.setattr(BatchGraph, "run", noting)
    async with parts(tmp_path, runner=NotingRunner) as engine:
        ids = await engine.run("a", "b", "c")
        ended = await engine.over(*ids)
    assert [job.status for job in ended] == [JobStatus.COMPLETED] * 3
    assert entered == [ids]
    assert engine.runner.tasks == [("child", PUSHED)] * 3
