"""What may be injected: coroutine functions and plain ones; and what is left of what they raise."""

import copy
import pickle
import threading
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio
import pytest
from langgraph.checkpoint.memory import InMemorySaver

from orchestration import (
    Failure,
    ParallelExecutor,
    RecursionLimitError,
    RecursiveClaudeExecutor,
    RecursiveOrchestrationPattern,
    Subtasks,
    TaskFailedError,
)

pytestmark = pytest.mark.anyio


def on_the_loop() -> bool:
    return threading.current_thread() is threading.main_thread()


def work(node: dict[str, Any]) -> Any:
    assert not on_the_loop()
    return Subtasks(tasks=[1, 2]) if node["task"] == "all" else node["task"] * 10


def add(node: dict[str, Any], subtasks: Subtasks, results: Mapping[str, dict[str, Any]]) -> int:
    assert not on_the_loop()
    return sum(record["value"] for record in results.values())


def divide(number: int) -> float:
    return 1 / number


async def test_plain_functions_work_and_resume_in_a_thread():
    assert await RecursiveClaudeExecutor(work=work, resume=add).execute_with_recursion("all") == 30
    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=work, resume=add)
    assert (await graph.ainvoke({"tasks": ["all"]}))["results"]["0"]["value"] == 30


async def test_a_plain_function_that_blocks_leaves_the_loop_free():
    free = threading.Event()

    def until_the_loop_has_run(task: str) -> str:
        assert free.wait(60)
        return task

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, free.set)
        assert await ParallelExecutor().execute_parallel_tasks(["a"], until_the_loop_has_run, list) == ["a"]


async def test_tasks_and_aggregators_may_be_plain_partial_objects_or_return_an_awaitable():
    class Doubled:
        async def __call__(self, number: int) -> int:
            assert on_the_loop()
            return 2 * number

    async def power(exponent: int, number: int) -> int:
        assert on_the_loop()
        return int(number**exponent)

    run = ParallelExecutor().execute_parallel_tasks
    assert await run([2], Doubled(), list) == [4]
    assert await run([2], partial(power, 3), sum) == 8
    assert await run([2], lambda number: power(2, number), lambda results: power(2, results[0])) == 16
    assert await run([2], divide, list) == [0.5]


async def test_a_guard_may_be_plain_and_is_asked_on_the_loop():
    class Guard:
        def admit(self, parent_id: str | None, asked: int) -> int:
            assert on_the_loop()
            if parent_id is not None:
                raise RecursionLimitError
            return 0

    with pytest.raises(TaskFailedError):
        await RecursiveClaudeExecutor(work=work, resume=lambda *given: divide(0), guard=Guard()).execute_with_recursion(
            "all"
        )
    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=work, guard=Guard())
    assert (await graph.ainvoke({"tasks": [1]}))["results"]["0"]["value"] == 10


def fails(node: dict[str, Any]) -> float:
    return divide(0)


@pytest.mark.parametrize("saved", [False, True])
async def test_a_failure_in_this_process_keeps_its_traceback(saved: bool):
    named = {"thread_id": "t"} if saved else {}
    executor = RecursiveClaudeExecutor(work=fails, checkpointer=InMemorySaver() if saved else None)
    with pytest.raises(TaskFailedError) as raised:
        await executor.execute_with_recursion("x", **named)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert "return 1 / number" in "".join(traceback.format_exception(raised.value))


async def test_a_failure_that_comes_back_from_a_checkpoint_has_no_exception_any_more():
    saver = InMemorySaver()
    for _ in range(2):
        executor = RecursiveClaudeExecutor(work=fails, checkpointer=saver)
        with pytest.raises(TaskFailedError) as raised:
            await executor.execute_with_recursion("x", thread_id="t")
    assert raised.value.__cause__ is None
    assert "ZeroDivisionError: division by zero" in str(raised.value)


async def test_the_failures_of_a_flat_list_keep_their_exceptions_as_well():
    failure, half = await ParallelExecutor().execute_parallel_tasks([0, 2], divide, list)
    assert half == 0.5
    assert isinstance(failure.error().__cause__, ZeroDivisionError)
    [(_, streamed)] = [each async for each in ParallelExecutor().stream_parallel_tasks([0], divide)]
    assert isinstance(streamed.exception, ZeroDivisionError)


def test_what_is_stored_of_a_failure_is_plain_data():
    class UnpicklableError(Exception):
        def __reduce__(self) -> str:
            raise TypeError

    failure = Failure.of(UnpicklableError("no"))
    for same in (pickle.loads(pickle.dumps(failure)), copy.deepcopy(failure)):
        assert (same, same.exception) == (failure, None)
    record = failure.record()
    assert {type(each) for each in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record))} == {dict}


def test_a_recursion_limit_error_needs_no_arguments():
    assert str(RecursionLimitError()).startswith("Recursion depth limit exceeded. ")
