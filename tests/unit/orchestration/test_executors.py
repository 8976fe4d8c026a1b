"""`ParallelExecutor` and `RecursiveClaudeExecutor`."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest
from langgraph.types import Send

from orchestration.executors import (
    Failure,
    ParallelExecutor,
    RecursionLimitError,
    RecursiveClaudeExecutor,
    Subtasks,
    TaskFailedError,
    UnknownParentError,
)
from orchestration.patterns import ParallelOrchestrationPattern

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    """No test here waits for ever."""
    with anyio.fail_after(60):
        yield


class Gauge:
    """Counts how many blocks run at once."""

    def __init__(self) -> None:
        self.now: Counter[Any] = Counter()
        self.peak: Counter[Any] = Counter()

    @asynccontextmanager
    async def inside(self, key: Any = None) -> AsyncIterator[None]:
        self.now[key] += 1
        self.peak[key] = max(self.peak[key], self.now[key])
        try:
            for _ in range(20):  # lets everything start that may
                await anyio.lowlevel.checkpoint()
            yield
        finally:
            self.now[key] -= 1


async def invert(number: int) -> float:
    return 1 / number


async def test_results_reach_the_aggregator_in_the_order_of_the_tasks():
    async def later_ones_first(number: int) -> int:
        for _ in range(50 - number * 10):
            await anyio.lowlevel.checkpoint()
        return number

    assert await ParallelExecutor().execute_parallel_tasks([0, 1, 2, 3], later_ones_first, list) == [0, 1, 2, 3]


async def test_a_failing_task_reaches_the_aggregator_as_a_failure_beside_its_siblings():
    results = await ParallelExecutor().execute_parallel_tasks([1, 0, 2], invert, list)
    assert results == [1.0, Failure(type="ZeroDivisionError", message="division by zero"), 0.5]


async def test_the_aggregator_may_be_async_and_what_it_raises_is_raised():
    async def total(results: list[float]) -> float:
        return sum(results)

    assert await ParallelExecutor().execute_parallel_tasks([1, 2], invert, total) == 1.5
    with pytest.raises(TypeError):
        await ParallelExecutor().execute_parallel_tasks([1, 0], invert, sum)


async def test_no_tasks_are_aggregated_too():
    assert await ParallelExecutor().execute_parallel_tasks([], invert, len) == 0


@pytest.mark.parametrize(("bound", "peak"), [(3, 3), (None, 12)])
async def test_no_more_tasks_run_at_once_than_the_bound(bound: int | None, peak: int):
    gauge = Gauge()

    async def work(task: int) -> None:
        async with gauge.inside():
            pass

    await ParallelExecutor(max_concurrent=bound).execute_parallel_tasks(range(12), work, len)
    assert gauge.peak[None] == peak


async def test_the_stream_hands_out_each_result_as_soon_as_it_is_there():
    gate = anyio.Event()

    async def work(task: str) -> str:
        if task == "slow":
            await gate.wait()
        if task == "bad":
            raise ValueError(task)
        return task

    seen = []
    async with aclosing(ParallelExecutor().stream_parallel_tasks(["slow", "quick", "bad"], work)) as results:
        async for index, result in results:
            seen.append((index, result))
            if len(seen) == 2:
                gate.set()
    assert seen[-1] == (0, "slow")
    assert set(seen[:2]) == {(1, "quick"), (2, Failure(type="ValueError", message="bad"))}


async def add_up(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> int:
    return sum(record["value"] for record in results.values())


async def halve(node: dict) -> Any:
    """Count to a number by dividing it."""
    number = node["task"]
    return 1 if number == 1 else Subtasks(tasks=[number // 2, number - number // 2])


async def test_a_divided_task_has_the_value_that_its_parts_come_to():
    executor = RecursiveClaudeExecutor(work=halve, resume=add_up)
    assert await executor.execute_with_recursion(30) == 30


async def test_too_deep_a_spawn_is_an_error_of_its_branch():
    async def depths(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        return [record.get("error", {}).get("fields", {}).get("limit") for record in results.values()]

    executor = RecursiveClaudeExecutor(max_depth=1, work=halve, resume=depths)
    with pytest.raises(RecursionLimitError) as refusal:
        await RecursiveClaudeExecutor(max_depth=-1, work=halve).execute_with_recursion(4)
    assert (refusal.value.depth, refusal.value.limit) == (0, -1)
    assert "Do this work in the current job" in str(refusal.value)
    assert await executor.execute_with_recursion(2) == [None, None]
    assert await executor.execute_with_recursion(4) == [None, None]


async def test_work_that_calls_the_executor_below_its_own_node_is_held_to_the_depth():
    async def dig(node: dict) -> Any:
        return 1 + await executor.execute_with_recursion("dig", parent_id=node["id"])

    async def dig_until_refused(node: dict) -> Any:
        try:
            return await dig(node)
        except RecursionLimitError as refusal:
            return refusal.limit * 100

    executor = RecursiveClaudeExecutor(max_depth=3, work=dig_until_refused)
    assert await executor.execute_with_recursion("dig") == 303


@pytest.mark.parametrize("calls", [False, True])
async def test_a_parent_gives_its_slot_back_while_it_waits_for_its_children(calls: bool):
    """One slot at depth 1: the grandchild waits for its uncle, who runs only if the parent has let the slot go."""
    uncle_ran = anyio.Event()

    async def work(node: dict) -> Any:
        match node["task"]:
            case "root":
                return Subtasks(tasks=["parent", "uncle"])
            case "parent" if calls:
                return await executor.execute_with_recursion("grandchild", parent_id=node["id"])
            case "parent":
                return Subtasks(tasks=["grandchild"])
            case "grandchild":
                await uncle_ran.wait()
            case "uncle":
                uncle_ran.set()
        return 1

    executor = RecursiveClaudeExecutor(max_concurrent={0: 1}, work=work, resume=add_up)
    assert await executor.execute_with_recursion("root") == 2


async def test_a_parent_that_called_for_children_has_its_slot_again_afterwards():
    gauge = Gauge()

    async def work(node: dict) -> Any:
        if node["depth"] == 1:
            sends = ParallelOrchestrationPattern.create_parallel_sends("child", [1, 2])
            await executor.execute_parallel(sends, parent_id=node["id"])
            async with gauge.inside():
                return 1
        return Subtasks(tasks=range(4)) if node["depth"] == 0 else 1

    executor = RecursiveClaudeExecutor(max_concurrent={0: 1}, work=work, resume=add_up)
    assert await executor.execute_with_recursion("root") == 4
    assert gauge.peak[None] == 1


async def test_a_root_may_call_for_children_again_and_its_tree_keeps_its_memory():
    refused: list[str] = []

    async def work(node: dict) -> Any:
        if node["depth"] == 0:
            first = await executor.execute_with_recursion("first", parent_id=node["id"])
            second = await executor.execute_with_recursion("second", parent_id=node["id"])
            with pytest.raises(RecursionLimitError) as refusal:
                await executor.execute_with_recursion("third", parent_id=node["id"])
            refused.append(refusal.value.kind)
            return [first, second]
        return node["task"], node["index"]

    executor = RecursiveClaudeExecutor(work=work, max_children=2)
    assert await executor.execute_with_recursion("root") == [("first", 0), ("second", 1)]
    assert refused == ["children"]


@pytest.mark.parametrize("gives_up", ["by closing the stream", "by cancelling the call"])
async def test_a_parent_that_gives_its_child_up_has_its_slot_again(gives_up: str):
    gauge = Gauge()

    async def give_up(node_id: str) -> None:
        if gives_up == "by closing the stream":
            async with aclosing(executor.astream("child", parent_id=node_id)) as events:
                await anext(events)
        else:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await executor.execute_with_recursion("child", parent_id=node_id)

    async def work(node: dict) -> Any:
        match node["depth"]:
            case 0:
                return Subtasks(tasks=range(4))
            case 1:
                await give_up(node["id"])
                async with gauge.inside():
                    return 1
            case _:
                return await anyio.sleep_forever()

    executor = RecursiveClaudeExecutor(max_concurrent={0: 1}, work=work, resume=add_up)
    assert await executor.execute_with_recursion("root") == 4
    assert gauge.peak[None] == 1


async def test_a_cancelled_tree_ends_although_every_parent_waits_for_its_slot():
    waiting = 0
    all_wait = anyio.Event()

    async def work(node: dict) -> Any:
        nonlocal waiting
        match node["depth"]:
            case 0:
                return Subtasks(tasks=range(4))
            case 1:
                return await executor.execute_with_recursion("child", parent_id=node["id"])
            case _:
                waiting += 1
                if waiting == 4:
                    all_wait.set()
                return await anyio.sleep_forever()

    executor = RecursiveClaudeExecutor(max_concurrent={0: 1, 2: 4}, work=work, resume=add_up)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(executor.execute_with_recursion, "root")
        await all_wait.wait()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("slots", [0, -1])
async def test_a_level_without_a_slot_is_refused_rather_than_waited_for(slots: int):
    with pytest.raises(ValueError, match="Give each level at least 1"):
        RecursiveClaudeExecutor(max_concurrent={0: 1, 1: slots}, work=halve)
    with pytest.raises(ValueError, match="Give at least 1, or None"):
        ParallelExecutor(max_concurrent=slots)


async def test_each_depth_has_its_own_bound_over_the_whole_tree():
    gauge = Gauge()

    async def work(node: dict) -> Any:
        async with gauge.inside(node["depth"]):
            return Subtasks(tasks=range(4)) if node["depth"] < 3 else 1

    executor = RecursiveClaudeExecutor(max_concurrent={0: 1, 1: 2, 2: 3, 3: 5}, work=work, resume=add_up)
    assert await executor.execute_with_recursion("root") == 64
    assert gauge.peak == {0: 1, 1: 2, 2: 3, 3: 5}


async def test_more_children_than_a_parent_may_have_are_refused_together():
    async def work(node: dict) -> Any:
        return Subtasks(tasks=range(4)) if node["depth"] == 0 else node["task"]

    async def kinds(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        return {record["error"]["fields"]["kind"] for record in results.values()}

    executor = RecursiveClaudeExecutor(work=work, resume=kinds, max_children=3)
    assert await executor.execute_with_recursion("root") == {"children"}


async def test_a_fork_bomb_stops_at_the_number_of_nodes_that_a_tree_may_have():
    ran = 0

    async def bomb(node: dict) -> Any:
        nonlocal ran
        ran += 1
        return Subtasks(tasks=[1, 2, 3])

    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        return None

    await RecursiveClaudeExecutor(max_depth=50, work=bomb, resume=resume, max_nodes=40).execute_with_recursion(0)
    assert ran == 40


async def test_prepared_sends_run_at_depth_one_and_answer_in_their_order():
    async def work(node: dict) -> Any:
        if node["task"] == "bad":
            raise ValueError("bad")
        return node["task"], node["depth"]

    sends = [Send("child", "b"), Send("child", "bad"), Send("child", "a")]
    results = await RecursiveClaudeExecutor(work=work).execute_parallel(sends)
    assert results == [("b", 1), Failure(type="ValueError", message="bad"), ("a", 1)]


async def test_a_batch_that_is_too_wide_is_refused_whole():
    executor = RecursiveClaudeExecutor(work=halve, max_children=2)
    with pytest.raises(RecursionLimitError, match="Too many children for one parent: 3/2"):
        await executor.execute_parallel([Send("child", 1)] * 3)


async def test_a_root_that_raises_is_an_error_for_the_caller():
    async def work(node: dict) -> Any:
        raise OSError("disk full")

    with pytest.raises(TaskFailedError, match="OSError: disk full") as error:
        await RecursiveClaudeExecutor(work=work).execute_with_recursion("x")
    assert error.value.failure.type == "OSError"


async def test_an_unknown_parent_is_an_error_and_not_a_new_tree():
    executor = RecursiveClaudeExecutor(work=halve, resume=add_up)
    with pytest.raises(UnknownParentError, match="No running node 'ghost'"):
        await executor.execute_with_recursion(1, parent_id="ghost")


async def test_a_tree_that_is_over_is_forgotten():
    ids = []

    async def work(node: dict) -> Any:
        ids.append(node["id"])
        return 1

    executor = RecursiveClaudeExecutor(work=work)
    await executor.execute_with_recursion("x")
    await executor.execute_parallel([Send("child", "y")])
    for node_id in ids:
        with pytest.raises(UnknownParentError):
            await executor.execute_with_recursion("late", parent_id=node_id)


async def test_an_injected_guard_has_the_word_and_knows_nothing_of_a_batch_without_parent():
    asked = []

    class Authority:
        async def admit(self, parent_id: str | None, count: int) -> int:
            asked.append((parent_id, count))
            return 7

    async def work(node: dict) -> Any:
        return node["depth"]

    executor = RecursiveClaudeExecutor(max_depth=0, work=work, guard=Authority())
    assert await executor.execute_parallel([Send("child", 1), Send("child", 2)]) == [7, 7]
    assert asked == [(None, 2)]


async def test_two_trees_of_one_executor_do_not_share_slots_or_totals():
    both_running = anyio.Event()
    running = 0

    async def work(node: dict) -> Any:
        nonlocal running
        running += 1
        if running == 2:
            both_running.set()
        await both_running.wait()
        return node["root_id"]

    executor = RecursiveClaudeExecutor(max_concurrent={0: 1}, work=work, max_nodes=1)
    roots = await ParallelExecutor().execute_parallel_tasks([1, 2], executor.execute_with_recursion, set)
    assert len(roots) == 2


async def test_the_stream_of_a_tree_tells_every_branch_and_ends_with_the_root():
    executor = RecursiveClaudeExecutor(work=halve, resume=add_up)
    async with aclosing(executor.astream(3)) as events:
        told = [event async for event in events]
    finished = [(event["depth"], event["value"]) for event in told if event["event"] == "finished"]
    assert sorted(finished) == [(0, 3), (1, 1), (1, 2), (2, 1), (2, 1)]
    assert all({"id", "parent_id", "depth", "root_id"} <= event.keys() for event in told)
    assert (told[-1]["event"], told[-1]["parent_id"]) == ("finished", None)


async def test_the_stream_tells_what_work_spawns_by_calling_the_executor():
    async def work(node: dict) -> Any:
        return node["depth"] if node["depth"] == 2 else await executor.execute_with_recursion(0, parent_id=node["id"])

    executor = RecursiveClaudeExecutor(work=work)
    async with aclosing(executor.astream("root")) as events:
        depths = [event["depth"] async for event in events if event["event"] == "finished"]
    assert depths == [2, 1, 0]


async def test_a_tree_that_is_streamed_inside_a_node_tells_its_own_reader():
    inner_events = []

    async def leaf(node: dict) -> Any:
        return "leaf"

    async def work(node: dict) -> Any:
        if node["depth"] == 0:
            return Subtasks(tasks=["below"])
        async with aclosing(RecursiveClaudeExecutor(work=leaf).astream("inner")) as events:
            inner_events.extend([event["event"] async for event in events])
        return "outer"

    async with aclosing(RecursiveClaudeExecutor(work=work).astream("root")) as events:
        outer = [event async for event in events]
    assert inner_events == ["started", "finished"]
    assert "leaf" not in [event.get("value") for event in outer]


async def test_a_closed_stream_leaves_no_work_running():
    running = 0

    async def work(node: dict) -> Any:
        nonlocal running
        running += 1
        try:
            await anyio.sleep_forever()
        finally:
            running -= 1

    async with aclosing(RecursiveClaudeExecutor(work=work).astream("x")) as events:
        async for _ in events:
            break
    assert running == 0
