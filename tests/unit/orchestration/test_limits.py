"""The rules of a tree, the guard that keeps them in memory, and failures as data."""

import pytest

from orchestration.failures import Failure, TaskFailedError
from orchestration.guard import MemoryGuard
from orchestration.limits import LimitKind, RecursionLimitError, SpawnFacts, TrackingGuard, TreeLimits

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (SpawnFacts(depth=3, asked=1), LimitKind.DEPTH),
        (SpawnFacts(depth=1, asked=2, children=3), LimitKind.CHILDREN),
        (SpawnFacts(depth=1, asked=2, nodes=9), LimitKind.NODES),
    ],
)
def test_each_total_is_held(facts: SpawnFacts, kind: LimitKind):
    with pytest.raises(RecursionLimitError) as refusal:
        TreeLimits(max_depth=2, max_children=4, max_nodes=10).check(facts)
    assert refusal.value.kind is kind
    assert str(refusal.value).endswith(refusal.value.remedy)


def test_exactly_the_limit_is_allowed():
    facts = SpawnFacts(depth=2, asked=1, children=3, nodes=9)
    TreeLimits(max_depth=2, max_children=4, max_nodes=10).check(facts)


@pytest.mark.parametrize(("depth", "slots"), [(0, 1), (1, 10), (2, 50), (5, 50)])
def test_a_level_that_is_not_named_takes_the_number_of_the_deepest_above_it(depth: int, slots: int):
    assert TreeLimits().slots_at(depth) == slots


def test_a_level_above_every_named_one_takes_the_largest_number():
    assert TreeLimits(max_concurrent={2: 7, 3: 4}).slots_at(0) == 7
    assert TreeLimits(max_concurrent={}).slots_at(0) == 1


async def test_a_refused_batch_counts_for_nothing():
    guard = MemoryGuard(TreeLimits(max_children=3))
    guard.register("r", parent_id=None, depth=0, root_id="r")
    with pytest.raises(RecursionLimitError):
        await guard.admit("r", 4)
    assert await guard.admit("r", 3) == 1


async def test_a_root_counts_as_one_node_and_a_batch_as_none():
    guard = MemoryGuard(TreeLimits(max_nodes=2))
    guard.register("r", parent_id=None, depth=0, root_id="r")
    guard.register("r", parent_id=None, depth=0, root_id="r")
    guard.open("b")
    assert await guard.admit("b", 2) == 1
    with pytest.raises(RecursionLimitError, match="Too many total jobs for root r: 3/2"):
        await guard.admit("r", 2)


async def test_an_authority_that_wants_to_know_is_told_of_every_node():
    seats = []

    class Authority:
        async def admit(self, parent_id: str | None, asked: int) -> int:
            return 0

        def register(self, node_id: str, *, parent_id: str | None, depth: int, root_id: str) -> None:
            seats.append((node_id, parent_id, depth, root_id))

    assert isinstance(Authority(), TrackingGuard)
    MemoryGuard(TreeLimits(), Authority()).register("a", parent_id="r", depth=1, root_id="r")
    assert seats == [("a", "r", 1, "r")]


def test_a_failure_keeps_what_is_plain_of_an_exception_and_survives_as_data():
    refusal = RecursionLimitError(kind=LimitKind.NODES, depth=2, value=11, limit=10, tree_id="t")
    record = Failure.of(refusal).record()
    assert record["fields"] == {"kind": "nodes", "depth": 2, "value": 11, "limit": 10, "tree_id": "t"}
    assert type(record["fields"]["kind"]) is str
    error = Failure.from_record(record).error()
    assert isinstance(error, RecursionLimitError)
    assert (error.kind, str(error)) == (LimitKind.NODES, str(refusal))


def test_any_other_failure_is_raised_as_a_task_that_failed():
    error = Failure.of(KeyError("name")).error()
    assert isinstance(error, TaskFailedError)
    assert "KeyError: 'name'" in str(error)
