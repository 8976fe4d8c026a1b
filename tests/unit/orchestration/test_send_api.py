"""The reducer and the chunks."""

import pytest

from orchestration.patterns.send_api import MAX_SENDS, chunk_size, chunks, create_sends, merge


def test_results_are_united_and_other_keys_replaced():
    merged = merge({"results": {"a": 1}, "tasks": [1, 2], "depth": 0}, {"results": {"b": 2}, "tasks": [3]})
    assert merged == {"results": {"a": 1, "b": 2}, "tasks": [3], "depth": 0}


def test_merging_changes_neither_argument():
    old, new = {"results": {"a": 1}}, {"results": {"b": 2}}
    merge(old, new)
    assert old == {"results": {"a": 1}}
    assert new == {"results": {"b": 2}}


def test_the_first_results_need_no_results_before_them():
    assert merge({}, {"results": {"a": 1}}) == {"results": {"a": 1}}


def test_one_send_per_payload_in_order():
    sends = create_sends("child", [3, 1, 2])
    assert [(send.node, send.arg) for send in sends] == [("child", 3), ("child", 1), ("child", 2)]
    assert create_sends("child", []) == []


def test_chunks_hold_every_item_once_and_know_where_they_begin():
    assert list(chunks(list(range(5)), 2)) == [(0, [0, 1]), (2, [2, 3]), (4, [4])]
    assert list(chunks([], 2)) == []


def test_a_chunk_of_no_items_is_refused():
    with pytest.raises(ValueError, match="at least one item, not 0"):
        list(chunks([1], 0))


@pytest.mark.parametrize("count", [1, 200, 201, 10_000, 40_000, 40_001, 1_000_000])
def test_no_more_chunks_than_one_superstep_takes(count: int):
    assert -(-count // chunk_size(count)) <= MAX_SENDS
