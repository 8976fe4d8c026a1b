"""The executor's guard and the engine's `RecursionManager` give one answer to one question."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.recursion_manager import RecursionManager
from jobs.scheduler import Scheduler
from jobs.store.memory import MemoryStore
from orchestration.guard import MemoryGuard
from orchestration.limits import RecursionLimitError, TreeLimits
from tests.contract.support import submission
from tests.support.long_form import LONG
from tests.unit.jobs.support import OpenGate

ROOT = "b0"

limits = st.builds(TreeLimits, max_depth=st.integers(0, 3), max_children=st.integers(1, 4), max_nodes=st.integers(1, 9))
spawns = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=8)
"""Which of the first nodes is the parent, counted round, and how many children it asks for."""


async def answer(admission: Awaitable[Any]) -> dict[str, Any] | None:
    """Return what a refusal says, or None."""
    try:
        await admission
    except RecursionLimitError as refusal:
        return {"kind": refusal.kind, "depth": refusal.depth, "value": refusal.value, "limit": refusal.limit}
    return None


async def compare(rules: TreeLimits, first: int, wanted: list[tuple[int, int]]) -> None:
    store = MemoryStore()
    manager = RecursionManager(rules, store, Scheduler(rules, 50, OpenGate()))
    guard = MemoryGuard(rules)
    guard.open(ROOT)
    nodes: list[str] = []
    for number, (choice, asked) in enumerate([(0, first), *wanted]):
        parent_id = nodes[choice % len(nodes)] if nodes else None
        ids = [f"n{number}-{index}" for index in range(asked)]
        batch = submission(f"b{number}", *ids, parent_id=parent_id)
        refusal = await answer(manager.admit(batch))
        assert await answer(guard.admit(parent_id or ROOT, asked)) == refusal
        if refusal is None:
            for job in await store.jobs(ids):
                guard.register(job.id, parent_id=job.parent_id or ROOT, depth=job.depth, root_id=job.root_id)
            nodes += ids
        if not nodes:
            return


@given(rules=limits, first=st.integers(1, 4), wanted=spawns)
@settings(deadline=None, max_examples=1_000 if LONG else 60)
def test_the_engine_and_the_executor_refuse_the_same_spawns_in_the_same_words(
    rules: TreeLimits, first: int, wanted: list[tuple[int, int]]
):
    asyncio.run(compare(rules, first, wanted))
