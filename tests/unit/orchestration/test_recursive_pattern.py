"""`RecursiveOrchestrationPattern`: spawning, resuming, refusing, failing, streaming."""

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from langgraph.errors import NodeCancelledError

from orchestration.guard import MemoryGuard
from orchestration.isolation import run_isolated
from orchestration.limits import TreeLimits
from orchestration.patterns import RecursiveOrchestrationPattern, Subtasks
from orchestration.patterns.send_api import MAX_SENDS

pytestmark = pytest.mark.anyio
create = RecursiveOrchestrationPattern.create_recursive_graph

TREE = {"r": ["a", "b"], "a": ["c", "d"]}


async def spawn_by_table(node: dict) -> Any:
    if node["task"] == "explode":
        raise ValueError("no such file")
    return Subtasks(tasks=TREE[node["task"]], state="kept") if node["task"] in TREE else node["task"].upper()


async def run(graph: Any, **state: Any) -> dict[str, Any]:
    with anyio.fail_after(60):
        ended: dict[str, Any] = await run_isolated(graph.ainvoke(state))
    return ended


async def test_every_node_of_every_level_is_in_the_results_with_its_parent_and_depth():
    results = (await run(create(work=spawn_by_table), tasks=["r"]))["results"]
    places = {node_id: (record["parent_id"], record["depth"], record["index"]) for node_id, record in results.items()}
    assert places == {
        "0": (None, 0, 0),
        "0.0": ("0", 1, 0),
        "0.1": ("0", 1, 1),
        "0.0.0": ("0.0", 2, 0),
        "0.0.1": ("0.0", 2, 1),
    }
    assert results["0.0.1"]["value"] == "D"


async def test_without_a_resume_a_node_has_the_results_of_its_children():
    results = (await run(create(work=spawn_by_table), tasks=["a"]))["results"]
    assert results["0"]["value"] == [results["0.0"], results["0.1"]]


async def test_resume_gets_what_was_asked_for_and_the_children_in_their_order():
    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        return [subtasks.state, list(subtasks.tasks), [record["value"] for record in results.values()]]

    results = (await run(create(work=spawn_by_table, resume=resume), tasks=["a"]))["results"]
    assert results["0"]["value"] == ["kept", ["c", "d"], ["C", "D"]]


async def test_resume_may_ask_again_and_its_children_get_ids_of_their_own():
    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        if len(subtasks.tasks) == 2:
            return Subtasks(tasks=["e"])
        return list(results)

    results = (await run(create(work=spawn_by_table, resume=resume), tasks=["a"]))["results"]
    assert set(results) == {"0", "0.0", "0.1", "0.2"}
    assert results["0"]["value"] == ["0.2"]


async def test_a_failing_task_is_an_error_beside_the_values_of_its_siblings():
    results = (await run(create(work=spawn_by_table), tasks=["x", "explode", "y"]))["results"]
    assert [results[node_id].get("value") for node_id in "012"] == ["X", None, "Y"]
    assert results["1"]["error"] == {"type": "ValueError", "message": "no such file", "fields": {}}


async def test_a_failing_resume_fails_its_own_node_only():
    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        raise OSError("disk full")

    results = (await run(create(work=spawn_by_table, resume=resume), tasks=["a", "b"]))["results"]
    assert results["0"]["error"]["type"] == "OSError"
    assert results["0.0"]["value"] == "C"
    assert results["1"]["value"] == "B"


async def test_a_cancelled_task_cancels_the_run_and_is_no_result():
    async def work(node: dict) -> Any:
        await anyio.sleep_forever()

    graph = create(work=work)
    with anyio.move_on_after(0) as scope:
        await run_isolated(graph.ainvoke({"tasks": [1, 2]}))
    assert scope.cancelled_caught


async def test_no_tasks_have_no_results():
    assert (await run(create(work=spawn_by_table), tasks=[]))["results"] == {}


async def test_subtasks_without_a_task_go_on_at_once():
    async def work(node: dict) -> Any:
        return Subtasks(tasks=[])

    assert (await run(create(work=work), tasks=["x"]))["results"]["0"]["value"] == []


async def test_ids_and_places_may_be_supplied():
    seen = []

    async def work(node: dict) -> Any:
        seen.append(node)
        return node["task"]

    graph = create(work=work, identify=lambda task, parent_id, index: task["id"])
    await run(graph, tasks=[{"id": "j7"}], parent_id="j1", depth=3, root_id="b1")
    assert seen == [
        {"task": {"id": "j7"}, "id": "j7", "parent_id": "j1", "depth": 3, "root_id": "b1", "index": 0},
    ]


async def test_two_tasks_with_one_id_are_an_error_and_not_a_lost_result():
    graph = create(work=spawn_by_table, identify=lambda task, parent_id, index: "same")
    with anyio.fail_after(60), pytest.raises(ValueError, match="2 tasks under no parent have 1 different ids"):
        await run_isolated(graph.ainvoke({"tasks": ["x", "y"]}))


async def test_a_batch_that_breaks_below_a_node_fails_that_node_only():
    graph = create(work=spawn_by_table, identify=lambda task, parent_id, index: "same" if parent_id else task)
    results = (await run(graph, tasks=["a", "x"]))["results"]
    assert results["a"]["error"]["type"] == "DuplicateIdError"
    assert results["x"]["value"] == "X"


@pytest.mark.parametrize("count", [MAX_SENDS, MAX_SENDS + 1, 2 * MAX_SENDS + 3])
async def test_more_siblings_than_one_superstep_takes_look_like_any_others(count: int):
    async def work(node: dict) -> Any:
        return Subtasks(tasks=range(count)) if node["task"] == "root" else (node["task"], node["index"], node["depth"])

    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        return [record["value"] for record in results.values()]

    results = (await run(create(work=work, resume=resume), tasks=["root"], root_id="t"))["results"]
    assert results["t"]["value"] == [(index, index, 1) for index in range(count)]
    assert {record["parent_id"] for node_id, record in results.items() if node_id != "t"} == {"t"}


async def test_tasks_that_end_at_once_are_not_all_pending_together():
    """Groups of Sends begin one after the other, so that a wide fan-out does not hold everything at its peak."""
    pending = []

    async def work(node: dict) -> Any:
        pending.append(len(asyncio.all_tasks()))

    await run(create(work=work), tasks=range(5 * MAX_SENDS))
    assert len(pending) == 5 * MAX_SENDS
    assert max(pending) < 3 * MAX_SENDS, max(pending)


async def test_the_guard_is_asked_once_for_all_siblings_however_many_groups_they_make():
    asked = []

    class Guard:
        async def admit(self, parent_id: str | None, asked_for: int) -> int:
            asked.append((parent_id, asked_for))
            return 0

    await run(create(work=spawn_by_table, guard=Guard()), tasks=["x"] * (MAX_SENDS + 1))
    assert asked == [(None, MAX_SENDS + 1)]


async def test_the_guard_says_how_deep_its_nodes_stand():
    class Guard:
        async def admit(self, parent_id: str | None, asked: int) -> int:
            return 4

    assert (await run(create(work=spawn_by_table, guard=Guard()), tasks=["x"]))["results"]["0"]["depth"] == 4


async def test_a_refused_branch_fails_with_the_limit_and_its_cousins_go_on():
    guard = MemoryGuard(TreeLimits(max_depth=1))
    results = (await run(create(work=spawn_by_table, guard=guard), tasks=["r"], root_id="t"))["results"]
    refusal = results["t.0.0"]["error"]
    assert refusal["type"] == "RecursionLimitError"
    assert refusal["fields"] == {"kind": "depth", "depth": 2, "value": 2, "limit": 1, "tree_id": "t"}
    assert results["t.1"]["value"] == "B"


async def test_whatever_a_guard_raises_refuses_the_batch_and_nothing_else():
    class Guard:
        async def admit(self, parent_id: str | None, asked: int) -> int:
            if parent_id is not None:
                raise LookupError("the tree was closed")
            return 0

    results = (await run(create(work=spawn_by_table, guard=Guard()), tasks=["a", "x"]))["results"]
    assert results["0.0"]["error"]["message"] == "the tree was closed"
    assert results["1"]["value"] == "X"


async def test_cousins_do_not_wait_for_each_other():
    """A barrier between levels would hold the grandchild back until the slow cousin is through."""
    grandchild_ran = anyio.Event()

    async def work(node: dict) -> Any:
        if node["task"] == "slow cousin":
            await grandchild_ran.wait()
        if node["task"] == "quick":
            return Subtasks(tasks=["grandchild"])
        if node["task"] == "grandchild":
            grandchild_ran.set()
        return node["task"]

    results = (await run(create(work=work), tasks=["slow cousin", "quick"]))["results"]
    assert results["0"]["value"] == "slow cousin"


@pytest.mark.parametrize("subgraphs", [False, True])
async def test_the_stream_tells_every_branch_of_every_level(subgraphs: bool):
    events: list[Any] = []
    with anyio.fail_after(60):
        event: Any
        async for event in create(work=spawn_by_table).astream(
            {"tasks": ["r"], "root_id": "t"}, stream_mode="custom", subgraphs=subgraphs
        ):
            events.append(event[-1] if subgraphs else event)  # noqa: PERF401 - an async comprehension hides the wait
    seen = {(event["id"], event["event"]) for event in events}
    assert {("t", "spawned"), ("t.0", "spawned"), ("t.0.0", "started"), ("t.0.0", "finished"), ("t", "resumed")} <= seen
    [grandchild] = [event for event in events if event["id"] == "t.0.1" and event["event"] == "finished"]
    assert (grandchild["parent_id"], grandchild["depth"], grandchild["root_id"]) == ("t.0", 2, "t")
    assert grandchild["value"] == "D"
    assert events[-1]["id"] == "t"


async def test_the_stream_tells_failures_and_refusals():
    guard = MemoryGuard(TreeLimits(max_depth=0))
    graph = create(work=spawn_by_table, guard=guard)
    told: dict[str, Any] = {}
    with anyio.fail_after(60):
        async for event in graph.astream({"tasks": ["explode", "a"]}, stream_mode="custom"):
            told[event["id"]] = event
    assert (told["0"]["event"], told["0"]["error"]["message"]) == ("failed", "no such file")
    assert (told["1.0"]["event"], told["1.0"]["error"]["type"]) == ("refused", "RecursionLimitError")


async def test_the_graph_has_the_nodes_parent_and_child():
    assert {"parent", "child"} <= set(create(work=spawn_by_table).get_graph().nodes)


async def test_work_that_ends_cancelled_is_no_result_at_any_level():
    async def work(node: dict) -> Any:
        if node["task"] == "root":
            return Subtasks(tasks=["cancelled"])
        raise asyncio.CancelledError

    with pytest.raises(NodeCancelledError):
        await run(create(work=work), tasks=["root"])
