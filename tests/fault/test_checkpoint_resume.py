"""A tree whose process is killed half-way goes on from its checkpoints. Run as a program, this file is that process."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from orchestration.executors import RecursiveClaudeExecutor, Subtasks
from orchestration.isolation import run_isolated
from orchestration.patterns import RecursiveOrchestrationPattern

pytestmark = pytest.mark.anyio

TREES: dict[str, dict[str, list[str]]] = {
    # The branch of "a" is over, with all that is below it, when "killer" is the last to run, two levels down.
    "deep": {"root": ["a", "b", "c"], "a": ["a1", "a2"], "a2": ["a21", "a22"], "c": ["c1", "killer"], "c1": ["c11"]},
    # More siblings than one superstep takes, so that the killer sits in a group of its own with four others.
    "wide": {"root": [*(f"w{number}" for number in range(204)), "killer"]},
    # No killer: the process dies when the guard's answer for the deepest batch is stored, and nothing after it is.
    "admitted": {"root": ["a"], "a": ["a1", "a2"]},
}


WAITING = {"deep": ["c", "root"], "wide": ["root"], "admitted": ["a", "root"]}
"""The nodes that waited for children when the process was killed, from below."""


class SignallingSaver(AsyncSqliteSaver):
    """Tells when the results of given tasks are on disk."""

    dies_at: Any

    def await_values(self, values: set[Any]) -> anyio.Event:
        self.missing, self.stored, self.dies_at = values, anyio.Event(), None
        return self.stored

    async def aput_writes(
        self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await super().aput_writes(config, writes, task_id, task_path)
        for _, value in writes:
            if isinstance(value, dict):
                self.missing -= {record["value"] for record in value.get("results", {}).values()}
            if self.dies_at is not None and value == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
        if not self.missing:
            self.stored.set()


async def life(name: str, database: str, log: str, *, dies: bool) -> Any:
    """Run a tree, or what an earlier life left of it; every call is noted in the log."""
    tree = TREES[name]

    def note(call: str) -> None:
        with Path(log).open("a") as lines:
            print(call, file=lines, flush=True)

    async def work(node: dict) -> Any:
        task = node["task"]
        note(f"work {task}")
        if task == "killer" and dies:
            with anyio.fail_after(60):
                await stored.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return Subtasks(tasks=tree[task]) if task in tree else task

    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        note(f"resume {node['task']}")
        return node["task"]

    async with SignallingSaver.from_conn_string(database) as saver:
        assert isinstance(saver, SignallingSaver)
        everything = {*tree, *(child for children in tree.values() for child in children)}
        stored = saver.await_values(everything - {"killer", *WAITING[name]})
        saver.dies_at = {"depth": 2} if dies and name == "admitted" else None
        executor = RecursiveClaudeExecutor(work=work, resume=resume, max_children=300, checkpointer=saver)
        return await executor.execute_with_recursion("root", thread_id="t")


@pytest.mark.parametrize("name", TREES)
async def test_a_killed_tree_runs_only_what_had_not_finished(name: str, tmp_path: Path):
    database, log = str(tmp_path / "checkpoints.db"), str(tmp_path / "log")
    command = [sys.executable, "-m", __name__, name, database, log]
    killed = await anyio.run_process(command, check=False, stdout=None, stderr=None)
    assert killed.returncode == -signal.SIGKILL
    first = Counter(Path(log).read_text().splitlines())
    assert set(first.values()) == {1}
    Path(log).write_text("")

    with anyio.fail_after(60):
        assert await life(name, database, log, dies=False) == "root"

    rest = ["work a1", "work a2"] if name == "admitted" else ["work killer"]
    assert Path(log).read_text().splitlines() == [*rest, *(f"resume {parent}" for parent in WAITING[name])]


async def test_a_finished_thread_returns_its_value_and_runs_nothing():
    ran = 0

    async def work(node: dict) -> Any:
        nonlocal ran
        ran += 1
        return "value"

    executor = RecursiveClaudeExecutor(work=work, checkpointer=InMemorySaver())
    with anyio.fail_after(60):
        assert await executor.execute_with_recursion("x", thread_id="t") == "value"
        assert await executor.execute_with_recursion("x", thread_id="t") == "value"
        assert [event async for event in executor.astream("x", thread_id="t")] == []
        assert ran == 1
        assert await executor.execute_with_recursion("x", thread_id="another") == "value"
    assert ran == 2


async def test_a_cancelled_tree_goes_on_where_it_stopped_and_streams_only_the_rest():
    waiting = anyio.Event()
    calls: Counter[str] = Counter()

    async def work(node: dict) -> Any:
        calls[node["task"]] += 1
        if node["task"] == "root":
            return Subtasks(tasks=["quick", "slow"], state="kept")
        if node["task"] == "slow" and calls["slow"] == 1:
            waiting.set()
            await anyio.sleep_forever()
        return node["task"]

    async def resume(node: dict, subtasks: Subtasks, results: Mapping[str, dict]) -> Any:
        return [subtasks.state, *(record["value"] for record in results.values())]

    executor = RecursiveClaudeExecutor(work=work, resume=resume, checkpointer=InMemorySaver())

    async def first_life() -> None:
        await executor.execute_with_recursion("root", thread_id="t")

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first_life)
            await waiting.wait()
            tasks.cancel_scope.cancel()
        told = [event async for event in executor.astream("root", thread_id="t")]
    assert calls == {"root": 1, "quick": 1, "slow": 2}
    assert [event["depth"] for event in told if event["event"] == "started"] == [1]
    assert told[-1]["value"] == ["kept", "quick", "slow"]


async def test_failures_are_kept_in_checkpoints_as_plain_data():
    async def work(node: dict) -> Any:
        if node["task"] == "bad":
            raise ValueError("no such file")
        return node["task"]

    saver = InMemorySaver()
    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=work, checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "t"}}
    with anyio.fail_after(60):
        await run_isolated(graph.ainvoke({"tasks": ["bad", "good"]}, config, durability="sync"))
        values = (await graph.aget_state(config)).values
    assert values["results"]["0"]["error"] == {"type": "ValueError", "message": "no such file", "fields": {}}


if __name__ == "__main__":
    anyio.run(lambda: life(sys.argv[1], sys.argv[2], sys.argv[3], dies=True))
