"""What LangGraph costs beside raw tasks: fan-out by number of Sends, and trees against their critical path."""

import asyncio
import gc
import random
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import anyio

from orchestration.isolation import run_isolated
from orchestration.patterns import RecursiveOrchestrationPattern, Subtasks

FAN_OUTS = (10, 100, 1_000, 10_000)
SEEDS = (1, 2, 3)
NODES = 500
DEPTH = 5
STRETCH = 5.0
"""Nodes last 0.05 to 1.5 s: long enough that the tree waits rather than computes, as one of Claude jobs does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a random tree: how long it works, and for how long again once its children are through."""

    seconds: float
    post: float
    children: "tuple[Node, ...]" = ()

    @property
    def critical(self) -> float:
        """Seconds from its start to its end if nothing but its own work and its children's holds it up."""
        if not self.children:
            return self.seconds
        return self.seconds + max(child.critical for child in self.children) + self.post


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of CPU per node of one fan-out: of raw tasks, of Sends, and of Sends where imports are frozen."""

    raw: float
    sent: float
    frozen: float

    @classmethod
    def measured(cls, count: int) -> Self:
        rounds = 3 if count > 1_000 else 10
        raw = best_cpu(partial(raw_fan_out, count), rounds)
        sent = best_cpu(partial(graph_fan_out, count), rounds)
        gc.collect()
        gc.freeze()
        try:
            frozen = best_cpu(partial(graph_fan_out, count), rounds)
        finally:
            gc.unfreeze()
        return cls(raw=raw / count, sent=sent / count, frozen=frozen / count)


def test_fan_out_beside_raw_tasks():
    """Print CPU per node.

    What a wide fan-out costs more per node than one of 100 is Python's collector, which then walks through everything
    that has been imported, about 100,000 objects, again and again. `gc.freeze()` after the imports spares it that.
    """
    print(f"\n{'nodes':>7} {'raw µs':>8} {'Send µs':>8} {'of 100':>7} {'frozen µs':>9} {'of 100':>7}", end="")
    print(f" {'MiB':>6} {'all pending':>11}")
    asyncio.run(graph_fan_out(1))  # the first run imports
    costs = {count: Cost.measured(count) for count in FAN_OUTS}
    hundred = costs[100]
    for count, cost in costs.items():
        print(
            f"{count:>7} {cost.raw * 1e6:>8.0f} {cost.sent * 1e6:>8.0f} {cost.sent / hundred.sent:>7.2f}"
            f" {cost.frozen * 1e6:>9.0f} {cost.frozen / hundred.frozen:>7.2f}"
            f" {peak_memory(graph_fan_out, count):>6.1f} {peak_memory(pending_fan_out, count):>11.1f}"
        )


def test_random_trees_beside_their_critical_path():
    print(f"\n{'tree':>9} {'seed':>4} {'critical s':>10} {'raw':>6} {'graph':>6}")
    for shape, duration, post in SHAPES:
        for seed in SEEDS:
            root = random_tree(random.Random(seed), duration, post)
            raw = wall(partial(raw_tree, root)) / root.critical
            graph = wall(partial(graph_tree, root)) / root.critical
            print(f"{shape:>9} {seed:>4} {root.critical:>10.2f} {raw:>5.3f}x {graph:>5.3f}x")


async def nothing(node: Any) -> None:
    """Do the work of a no-op node."""


async def raw_fan_out(count: int) -> None:
    async with anyio.create_task_group() as tasks:
        for index in range(count):
            tasks.start_soon(nothing, index)


async def graph_fan_out(count: int) -> None:
    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=nothing)
    await run_isolated(graph.ainvoke({"tasks": range(count)}))


async def pending_fan_out(count: int) -> None:
    """Let no node end before the last one has begun."""
    begun = 0
    all_begun = anyio.Event()

    async def work(node: dict[str, Any]) -> None:
        nonlocal begun
        begun += 1
        if begun == count:
            all_begun.set()
        await all_begun.wait()

    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=work)
    await run_isolated(graph.ainvoke({"tasks": range(count)}))


async def raw_tree(node: Node) -> None:
    await anyio.sleep(node.seconds)
    if node.children:
        async with anyio.create_task_group() as tasks:
            for child in node.children:
                tasks.start_soon(raw_tree, child)
        await anyio.sleep(node.post)


async def graph_tree(root: Node) -> None:
    async def work(node: dict[str, Any]) -> Any:
        await anyio.sleep(node["task"].seconds)
        return Subtasks(tasks=node["task"].children) if node["task"].children else None

    async def resume(node: dict[str, Any], subtasks: Subtasks, results: Mapping[str, Any]) -> None:
        await anyio.sleep(node["task"].post)

    graph = RecursiveOrchestrationPattern.create_recursive_graph(work=work, resume=resume)
    await run_isolated(graph.ainvoke({"tasks": [root]}))


Draw = Callable[[random.Random], float]


def uniform(dice: random.Random) -> float:
    return dice.uniform(0.01, 0.3)


def long_tailed(dice: random.Random) -> float:
    return min(0.02 * dice.paretovariate(1.2), 1.0)


def never(dice: random.Random) -> float:
    return 0.0


SHAPES: tuple[tuple[str, Draw, Draw], ...] = (
    ("uniform", uniform, never),
    ("post", uniform, uniform),
    ("long tail", long_tailed, never),
)


def random_tree(dice: random.Random, duration: Draw, post: Draw) -> Node:
    """Grow an irregular tree: each new node hangs under a random one that is not at the deepest level."""
    children: dict[int, list[int]] = {0: []}
    depth = {0: 0}
    for number in range(1, NODES):
        parent = dice.choice([node for node in children if depth[node] < DEPTH])
        children[parent].append(number)
        children[number], depth[number] = [], depth[parent] + 1

    def node(number: int) -> Node:
        below = tuple(node(child) for child in children[number])
        return Node(seconds=duration(dice) * STRETCH, post=post(dice) * STRETCH, children=below)

    return node(0)


def best_cpu(run: Callable[[], Awaitable[None]], rounds: int) -> float:
    """Return the least CPU time of some runs, in seconds."""
    return min(measured(run, time.process_time) for _ in range(rounds))


def wall(run: Callable[[], Awaitable[None]]) -> float:
    return measured(run, time.perf_counter)


def measured(run: Callable[[], Awaitable[None]], clock: Callable[[], float]) -> float:
    async def inside() -> float:
        gc.collect()
        start = clock()
        await run()
        return clock() - start

    return asyncio.run(inside())


def peak_memory(fan_out: Callable[[int], Coroutine[Any, Any, None]], count: int) -> float:
    """Return the MiB that Python holds at the peak of a fan-out."""
    tracemalloc.start()
    asyncio.run(fan_out(count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1024**2
