"""`ParallelOrchestrationPattern`: what it builds, and what it refuses to build."""

import operator
from typing import Annotated, Any, TypedDict

import anyio
import pytest
from langgraph.types import Send

from orchestration.patterns import GraphBuildError, ParallelOrchestrationPattern

pytestmark = pytest.mark.anyio
create = ParallelOrchestrationPattern.create_parallel_sends
build = ParallelOrchestrationPattern.build_parallel_graph


async def coordinator(state: dict) -> dict:
    return {"planned": len(state["tasks"])}


async def double(state: dict) -> dict:
    return {"results": {state["task"]: state["task"] * 2}}


async def fan_out(state: dict) -> list[Send]:
    return create("double", [{"task": task} for task in state["tasks"]])


async def join(state: dict) -> dict:
    return {"total": sum(state.get("results", {}).values())}


def test_sends_keep_the_order_of_the_tasks():
    assert create("n", [2, 1]) == [Send("n", 2), Send("n", 1)]
    assert create("n", []) == []


async def test_parallel_writes_to_a_plain_dict_all_arrive_before_the_join():
    graph = build(dict, {"coordinator": coordinator, "double": double, "join": join}, fan_out).compile()
    with anyio.fail_after(60):
        ended = await graph.ainvoke({"tasks": [1, 2, 3]})
    assert ended == {"tasks": [1, 2, 3], "planned": 3, "results": {1: 2, 2: 4, 3: 6}, "total": 12}


async def test_no_sends_go_straight_to_the_join():
    graph = build(dict[str, Any], {"coordinator": coordinator, "double": double, "join": join}, fan_out).compile()
    with anyio.fail_after(60):
        assert (await graph.ainvoke({"tasks": []}))["total"] == 0


async def test_without_a_join_of_ones_own_nothing_happens_there():
    graph = build(dict, {"coordinator": coordinator, "double": double}, fan_out).compile()
    with anyio.fail_after(60):
        assert (await graph.ainvoke({"tasks": [4]}))["results"] == {4: 8}


class Sums(TypedDict):
    tasks: list[int]
    doubled: Annotated[list[int], operator.add]


def test_a_state_type_of_ones_own_and_plain_functions_run_without_a_loop():
    def start(state: Sums) -> dict:
        return {}

    def work(state: dict) -> dict:
        return {"doubled": [state["task"] * 2]}

    def spread(state: Sums) -> list[Send]:
        return create("work", [{"task": task} for task in state["tasks"]])

    graph = build(Sums, {"coordinator": start, "work": work}, spread).compile()
    assert graph.invoke({"tasks": [1, 2], "doubled": []})["doubled"] == [2, 4]


def test_a_missing_coordinator_is_refused():
    with pytest.raises(GraphBuildError, match="No 'coordinator' among the nodes") as refusal:
        build(dict, {"double": double}, fan_out)
    assert "Add the function that runs first" in refusal.value.remedy


def test_a_graph_without_a_target_is_refused():
    with pytest.raises(GraphBuildError, match="No node to send to"):
        build(dict, {"coordinator": coordinator, "join": join}, fan_out)


def test_a_routing_function_that_is_a_node_too_is_refused():
    with pytest.raises(GraphBuildError, match="also the node 'double'"):
        build(dict, {"coordinator": coordinator, "double": fan_out}, fan_out)


def to_nowhere(state: dict) -> list[Send]:
    return [Send("nowhere", state)]


def to_nowhere_by_keyword(state: dict) -> list[Send]:
    return create_parallel_sends(target_node="nowhere", tasks=[state])


create_parallel_sends = create
NOWHERE = "nowhere"


def to_a_constant(state: dict) -> list[Send]:
    return [Send(NOWHERE, task) for task in state["tasks"]]


def to_an_enclosed_constant() -> Any:
    target = "nowhere"

    async def routing(state: dict) -> list[Send]:
        return create(target, state["tasks"]) or [Send(target, task) for task in state["tasks"]]

    return routing


class Router:
    def route(self, state: dict) -> list[Send]:
        return [Send(NOWHERE, state)]


@pytest.mark.parametrize(
    "routing", [to_nowhere, to_nowhere_by_keyword, to_a_constant, to_an_enclosed_constant(), Router().route]
)
def test_a_target_that_does_not_exist_is_refused_when_the_graph_is_built(routing: Any):
    with pytest.raises(GraphBuildError, match="'nowhere', which is not a node") as refusal:
        build(dict, {"coordinator": coordinator, "double": double}, routing)
    assert "['double']" in refusal.value.remedy


async def sends_to_a_key(state: dict) -> list[Send]:
    return [Send(state["target"], state)]


async def sends_to_a_variable(state: dict) -> list[Send]:
    NOWHERE = state["target"]  # noqa: N806 - the constant of this name is another
    return [Send(NOWHERE, state)]


async def names_a_node(state: dict) -> str:
    return str(state["target"])


@pytest.mark.parametrize("routing", [sends_to_a_key, sends_to_a_variable, names_a_node])
async def test_a_target_that_only_the_run_knows_is_refused_when_it_is_sent_to(routing: Any):
    graph = build(dict, {"coordinator": coordinator, "double": double}, routing).compile()
    with anyio.fail_after(60), pytest.raises(GraphBuildError, match="'elsewhere', which is not a node"):
        await graph.ainvoke({"tasks": [], "target": "elsewhere"})


def test_a_target_that_has_no_value_yet_is_checked_at_run_time_only():
    def routing(state: dict) -> list[Send]:
        return [Send(target, state)]

    build(dict, {"coordinator": coordinator, "double": double}, routing)
    target = "double"
    assert routing({}) == [Send(target, {})]


def test_a_routing_function_without_source_is_checked_at_run_time_only():
    routing = eval("lambda state: []")
    build(dict, {"coordinator": coordinator, "double": double}, routing)
