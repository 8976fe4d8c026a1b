"""Waits of running attempts: joined, bounded, and gone once the attempt is settled."""

import pytest

from jobs.wait_history import JOINED_SECONDS, MOST_WAITS, WaitHistory, kept_waits
from jobs.waiting_for import AttemptWait, WaitingFor

CHILDREN, PERMISSION = WaitingFor.CHILDREN, WaitingFor.PERMISSION


class Hand:
    """A clock that a test sets."""

    at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def history(hand: Hand) -> WaitHistory:
    return WaitHistory(hand)


def spans(waits: "tuple[AttemptWait, ...] | list[AttemptWait]") -> list[tuple[str, float, float | None]]:
    return [(wait.what.value, wait.since, wait.until) for wait in waits]


def wait(history: WaitHistory, hand: Hand, since: float, until: float, what: WaitingFor = CHILDREN) -> None:
    hand.at = since
    history.begin("j1", what)
    hand.at = until
    history.end("j1", what)


def test_a_wait_lasts_until_it_ends_and_a_settled_attempt_has_an_end_of_each(history: WaitHistory, hand: Hand) -> None:
    hand.at = 2.0
    history.note_parked("j1", True)
    assert spans([*history.of("j1")]) == [("children", 2.0, None)]
    assert spans(history.ended_at("j1", 7.0)) == [("children", 2.0, 7.0)]
    hand.at = 5.0
    history.note_parked("j1", False)
    assert spans(history.ended_at("j1", 7.0)) == [("children", 2.0, 5.0)]
    history.forget("j1")
    assert history.of("j1") == ()


def test_a_second_beginning_and_an_end_of_nothing_change_nothing(history: WaitHistory, hand: Hand) -> None:
    history.end("j1", PERMISSION)
    hand.at = 1.0
    history.begin("j1", PERMISSION)
    hand.at = 3.0
    history.begin("j1", PERMISSION)
    assert spans([*history.of("j1")]) == [("permission", 1.0, None)]
    assert history.of("j2") == ()


def test_waits_of_a_kind_that_follow_at_once_are_one_and_others_stay_apart(history: WaitHistory, hand: Hand) -> None:
    wait(history, hand, 1.0, 2.0)
    wait(history, hand, 1.5, 1.75, PERMISSION)
    wait(history, hand, 2.0 + JOINED_SECONDS / 2, 5.0)
    wait(history, hand, 5.0 + 2 * JOINED_SECONDS, 9.0)
    hand.at = 9.25
    history.begin("j1", CHILDREN)
    assert spans([*history.of("j1")]) == [
        ("children", 1.0, 5.0),
        ("permission", 1.5, 1.75),
        ("children", 7.0, None),
    ]


def test_of_many_waits_the_longest_are_kept_in_their_order(history: WaitHistory, hand: Hand) -> None:
    for number in range(5 * MOST_WAITS):
        wait(history, hand, 10.0 * number, 10.0 * number + (5.0 if number % 10 == 0 else 0.5))
    kept = history.ended_at("j1", 1e9)
    assert len(kept) == MOST_WAITS
    assert sum(one.length == 5.0 for one in kept) == MOST_WAITS // 2
    assert [one.since for one in kept] == sorted(one.since for one in kept)


def test_a_clock_that_was_set_back_makes_no_wait_of_less_than_nothing(history: WaitHistory, hand: Hand) -> None:
    wait(history, hand, 8.0, 3.0)
    assert spans([*history.of("j1")]) == [("children", 8.0, 8.0)]


def test_one_inside_another_is_a_part_of_it() -> None:
    outer = AttemptWait(what=CHILDREN, since=1.0, until=9.0)
    inner = AttemptWait(what=CHILDREN, since=2.0, until=3.0)
    assert kept_waits([inner, outer]) == (outer,)
