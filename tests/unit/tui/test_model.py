"""The jobs of the view as a tree: whatever arrives in whatever order, the totals are those of a tree built at once."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.tui.model import JobTable, Node
from tests.unit.tui.stand_in import page, row

STATUSES = st.sampled_from(["queued", "running", "completed", "failed", "cancelled"])
WAITS = st.sampled_from([None, "permission", "children", "slot"])


def totals(table: JobTable) -> list[tuple[Any, ...]]:
    def of(node: Node) -> tuple[Any, ...]:
        counts = {state: count for state, count in sorted(node.counts.items()) if count}
        return node.id, node.row, counts, round(node.cost, 6), node.asking, [child.id for child in node.children]

    return [of(node) for top in table.tops() for node in top.walk()]


@given(
    st.lists(st.tuples(st.integers(0, 11), STATUSES, WAITS, st.integers(0, 5)), max_size=40),
    st.lists(st.integers(0, 10), min_size=11, max_size=11),
)
def test_changes_one_by_one_lead_to_the_tree_that_is_built_at_once(
    changes: list[tuple[int, str, str | None, int]], parents: list[int]
):
    def made(number: int, status: str, wait: str | None, cost: int) -> dict[str, Any]:
        parent = None if number == 0 else min(parents[number - 1], number - 1)
        waits = {"waitingFor": wait} if wait and status in ("queued", "running") else {}
        return row(number, status, parent=parent, costUsd=cost / 4, **waits)

    first = {number: made(number, "queued", None, 0) for number in range(6)}
    step_by_step = JobTable()
    step_by_step.apply(page(*first.values(), reset=True))
    step_by_step.arrange()
    known = dict(first)
    for number, status, wait, cost in changes:
        # A job is admitted after its parent.
        if number > max(known) + 1:
            continue
        known[number] = made(number, status, wait, cost)
        step_by_step.apply(page(known[number]))
        step_by_step.arrange()
    at_once = JobTable()
    at_once.apply(page(*known.values(), reset=True))
    at_once.arrange()
    assert totals(step_by_step) == totals(at_once)
