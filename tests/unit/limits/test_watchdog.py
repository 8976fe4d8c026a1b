"""When a running attempt must be ended."""

import pytest

from jobs.limits.watchdog import Watchdog, WatchdogLimits
from jobs.model import Reason


@pytest.fixture
def dog() -> Watchdog:
    return Watchdog(limits=WatchdogLimits(silence=100, after_answer=10, output=1000), deadline=1000, heard_at=0)


def test_a_job_that_speaks_is_left_alone(dog: Watchdog):
    for now in range(0, 999, 99):
        dog.note_output(now, answered=False)
        assert dog.check(now, 5) is None


def test_silence_ends_it(dog: Watchdog):
    assert [dog.check(99, 5), dog.check(100, 5)] == [None, Reason.STALLED]


def test_waiting_for_descendants_is_no_silence(dog: Watchdog):
    dog.note_waiting(90)
    assert dog.check(150, 5) is None


def test_after_its_answer_it_must_leave_sooner(dog: Watchdog):
    dog.note_output(5, answered=True)
    assert [dog.check(14, 5), dog.check(15, 5)] == [None, Reason.STALLED]


def test_work_that_goes_on_after_an_answer_is_given_time_again(dog: Watchdog):
    dog.note_output(5, answered=True)
    dog.note_output(6, answered=False)
    assert dog.check(50, 5) is None


def test_its_time_ends_it_however_much_it_says(dog: Watchdog):
    dog.note_output(999, answered=False)
    assert dog.check(1000, 5) is Reason.DEADLINE


def test_waiting_does_not_move_its_deadline(dog: Watchdog):
    dog.note_waiting(999)
    assert dog.check(1000, 5) is Reason.DEADLINE


def test_while_a_limit_holds_its_own_jobs_back_its_time_stands_still(dog: Watchdog):
    for now in (500, 900, 1400):
        dog.held(now, back=True)
    dog.held(1450, back=False)
    dog.note_output(1899, answered=False)
    assert [dog.check(1899, 5), dog.check(1900, 5)] == [None, Reason.DEADLINE]


def test_the_end_of_its_trees_time_never_moves(dog: Watchdog):
    dog.latest = 700
    dog.held(100, back=True)
    dog.held(700, back=True)
    dog.note_output(700, answered=False)
    assert dog.check(700, 5) is Reason.DEADLINE


def test_more_output_than_it_may_write_ends_it(dog: Watchdog):
    assert [dog.check(1, 1000), dog.check(1, 1001)] == [None, Reason.OUTPUT_LIMIT]
