"""How many jobs may run: the API's limits, pauses, starts under way and free memory."""

import pytest

from jobs.limits.throttle import (
    DEFAULT_PAUSE_SECONDS,
    FIRST_BACK_OFF_SECONDS,
    HALVING_SECONDS,
    JITTER_SECONDS,
    LONGEST_BACK_OFF_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LOOK_SECONDS,
    Throttle,
)
from tests.unit.jobs.support import Clock

GB = 2**30


class Memory:
    def __init__(self) -> None:
        self.free = 8 * GB
        self.looks = 0

    def __call__(self) -> int:
        self.looks += 1
        return self.free


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def throttle(clock: Clock, memory: Memory) -> Throttle:
    return Throttle(
        max_running=16, max_starting=3, free_memory=memory, memory_floor=GB, clock=clock, jitter=lambda: 1.0
    )


def test_limits_that_arrive_together_halve_the_window_once(throttle: Throttle, clock: Clock):
    for _ in range(20):
        throttle.limited()
    assert throttle.window == 8
    clock.moved += HALVING_SECONDS
    throttle.limited()
    assert throttle.window == 4


def test_the_window_never_closes_and_never_grows_beyond_the_machine(throttle: Throttle, clock: Clock):
    for _ in range(20):
        throttle.limited()
        clock.moved += HALVING_SECONDS
    assert throttle.window == 1
    for _ in range(500):
        throttle.succeeded()
    assert throttle.window == 16


def test_a_window_of_successes_widens_it_by_one(throttle: Throttle):
    throttle.limited()
    for _ in range(9):
        throttle.succeeded()
    assert throttle.window == 9


def test_only_a_window_of_jobs_is_admitted(throttle: Throttle):
    throttle.limited()
    assert [throttle.admits(7), throttle.admits(8)] == [True, False]


@pytest.mark.parametrize("resets_in", [LONGEST_PAUSE_SECONDS + 1, 1.7e12, 1e30])
def test_a_usage_limit_that_ends_when_none_can_end_pauses_as_one_that_does_not_say(
    throttle: Throttle, clock: Clock, resets_in: float
):
    throttle.used_up(clock.now() + resets_in, "five_hour")
    assert throttle.pause is not None
    assert throttle.pause.until == pytest.approx(clock.now() + DEFAULT_PAUSE_SECONDS + JITTER_SECONDS, abs=1)


def test_a_weekly_limit_is_waited_for(throttle: Throttle, clock: Clock):
    week = 7 * 86_400.0
    throttle.used_up(clock.now() + week, "seven_day")
    assert throttle.pause is not None
    assert throttle.pause.until == pytest.approx(clock.now() + week + JITTER_SECONDS, abs=1)


def test_a_usage_limit_pauses_everything_until_it_ends_and_a_little_longer(throttle: Throttle, clock: Clock):
    throttle.used_up(clock.now() + 100, "five_hour")
    assert throttle.pause is not None
    assert throttle.pause.because == "five_hour"
    assert throttle.pause.until == pytest.approx(clock.now() + 100 + JITTER_SECONDS, abs=1)
    clock.moved += 100
    assert not throttle.admits(0)
    clock.moved += JITTER_SECONDS
    assert throttle.admits(0)
    assert throttle.pause is None


def test_a_limit_that_does_not_say_when_it_ends_pauses_for_a_while(throttle: Throttle, clock: Clock):
    throttle.used_up(None, "a usage limit")
    clock.moved += DEFAULT_PAUSE_SECONDS + JITTER_SECONDS
    assert throttle.admits(0)


def test_of_two_limits_the_later_end_counts(throttle: Throttle, clock: Clock):
    throttle.used_up(clock.now() + 1000, "seven_day")
    throttle.used_up(clock.now() + 10, "five_hour")
    clock.moved += 500
    assert throttle.pause is not None
    assert throttle.pause.because == "seven_day"


def test_an_end_in_the_past_pauses_for_the_jitter_alone(throttle: Throttle, clock: Clock):
    throttle.used_up(clock.now() - 1000, "five_hour")
    clock.moved += JITTER_SECONDS
    assert throttle.admits(0)


def test_each_attempt_that_trouble_ends_waits_twice_as_long_until_one_succeeds(throttle: Throttle, clock: Clock):
    waits = []
    for _ in range(9):
        throttle.back_off("overloaded")
        assert throttle.pause is not None
        waits.append(round(throttle.pause.until - clock.now()))
        clock.moved += waits[-1] + 1
    assert waits == [1, 2, 4, 8, 16, 32, *[LONGEST_BACK_OFF_SECONDS] * 3]
    throttle.succeeded()
    throttle.back_off("overloaded")
    assert throttle.pause is not None
    assert throttle.pause.until - clock.now() == pytest.approx(FIRST_BACK_OFF_SECONDS, abs=0.5)


def test_attempts_that_end_together_back_off_once(throttle: Throttle, clock: Clock):
    for _ in range(20):
        throttle.back_off("overloaded")
    clock.moved += FIRST_BACK_OFF_SECONDS
    assert throttle.admits(0)


def test_starts_are_staggered(throttle: Throttle):
    for number in range(3):
        assert throttle.admits(number)
        throttle.launching(f"j{number}")
    assert not throttle.admits(3)
    throttle.started("j0")
    throttle.started("j0")
    assert throttle.admits(3)


def test_below_the_floor_of_memory_nothing_is_launched_unless_nothing_runs(
    throttle: Throttle, clock: Clock, memory: Memory
):
    memory.free = GB // 2
    assert [throttle.admits(1), throttle.admits(0)] == [False, True]
    memory.free = 2 * GB
    clock.moved += LOOK_SECONDS
    assert throttle.admits(1)


def test_memory_is_not_looked_at_for_every_job_of_a_line(throttle: Throttle, memory: Memory):
    for _ in range(1000):
        throttle.admits(1)
    assert memory.looks <= 2
