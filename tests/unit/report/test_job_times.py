"""The time of a job in parts."""

from typing import Any

import pytest

from server.report.job_times import Part, parts_of, pauses_of
from tests.unit.report.sample import NOW, ZERO, attempt, used, wait


def shown(parts: list[Part]) -> list[tuple[str, float, float, str]]:
    return [(part.what, part.since - ZERO, part.until - ZERO, part.how) for part in parts]


def job(*attempts: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    times = used(0.1, *attempts) if attempts else {}
    return {"jobId": "j1", "status": status, "createdAt": ZERO, **times, **fields}


def test_a_job_is_queued_and_works():
    assert shown(parts_of(job(attempt(1, 5, 20)), (), NOW)) == [("queued", 0, 5, ""), ("working", 5, 20, "completed")]


def test_between_two_attempts_it_is_queued_and_each_has_its_own_end():
    tried = job(attempt(1, 0, 10, "overloaded"), attempt(2, 15, 30, "max_turns"), status="failed")
    assert shown(parts_of(tried, (), NOW)) == [
        ("working", 0, 10, "failed"),
        ("queued", 10, 15, ""),
        ("working", 15, 30, "failed"),
    ]


def test_after_an_answer_that_asks_for_subtasks_it_waits_for_them():
    divided = job(attempt(1, 0, 10, status="queued"), attempt(2, 50, 60))
    assert [part[0] for part in shown(parts_of(divided, (), NOW))] == ["working", "children", "working"]


def test_waits_divide_an_attempt_and_one_that_lasts_is_open():
    waits = [wait("children", 10, 20), wait("permission", 25)]
    parts = parts_of(job(attempt(1, 0, None, waits=waits), status="running"), (), NOW)
    assert shown(parts) == [
        ("working", 0, 10, "running"),
        ("children", 10, 20, "running"),
        ("working", 20, 25, "running"),
        ("permission", 25, 252, "running"),
    ]
    assert [part.is_open for part in parts] == [False, False, False, True]


def test_waits_that_overlap_or_reach_over_the_attempt_are_cut():
    waits = [wait("children", -5, 20), wait("permission", 10, 30), wait("children", 15, 18), wait("children", 35, 99)]
    assert shown(parts_of(job(attempt(1, 0, 40, waits=waits)), (), NOW)) == [
        ("children", 0, 20, "completed"),
        ("permission", 20, 30, "completed"),
        ("working", 30, 35, "completed"),
        ("children", 35, 40, "completed"),
    ]


def test_pauses_of_a_job_and_of_what_is_above_it_are_joined_and_others_are_not_its():
    pauses: list[list[Any]] = [
        [10, 20, "b1/j1"],
        [15, 30, ""],
        [40, None, "b1"],
        [50, 60, "b1/j2"],
        [70, 80, "b1/j1/j3"],
    ]
    assert pauses_of(["b1", "j1"], pauses, 100) == [(10, 30), (40, 100)]


def test_a_pause_is_a_part_of_the_time_in_the_queue():
    queued = job(status="queued")
    parts = parts_of(queued, [(ZERO + 10, ZERO + 20), (ZERO + 200, NOW)], NOW)
    assert shown(parts) == [
        ("queued", 0, 10, ""),
        ("paused", 10, 20, ""),
        ("queued", 20, 200, ""),
        ("paused", 200, 252, ""),
    ]
    assert [part.is_open for part in parts] == [False, False, False, True]


@pytest.mark.parametrize(
    ("reason", "status", "how"),
    [
        ("completed", "completed", "completed"),
        ("completed_with_denials", "queued", "completed"),
        ("cancelled", "cancelled", "cancelled"),
        ("interrupted", "queued", "cancelled"),
        ("overloaded", "queued", "failed"),
        ("deadline", "timeout", "failed"),
    ],
)
def test_an_attempt_ended_well_early_or_badly(reason: str, status: str, how: str):
    [part] = parts_of(job(attempt(1, 0, 10, reason, status=status)), (), NOW)
    assert part.how == how


def test_a_job_that_ended_before_it_began_was_queued_until_then():
    assert shown(parts_of(job(status="cancelled", endedAt=ZERO + 9), (), NOW)) == [("queued", 0, 9, "")]


def test_a_job_without_a_list_of_attempts_has_the_one_that_its_own_times_tell_of():
    told = {
        "jobId": "j1",
        "status": "completed",
        "createdAt": ZERO,
        "startedAt": ZERO + 2,
        "endedAt": ZERO + 8,
        "reason": "completed",
    }
    assert shown(parts_of(told, (), NOW)) == [("queued", 0, 2, ""), ("working", 2, 8, "completed")]
