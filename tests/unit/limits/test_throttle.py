"""How many jobs may run: the API's limits, pauses, starts under way and free memory."""

import pytest

from jobs.limits.throttle import (
    DEFAULT_PAUSE_SECONDS,
    FIRST_BACK_OFF_SECONDS,
    HALVING_SECONDS,
    JITTER_SECONDS,
    LONGEST_BACK_OFF_SECONDS,
    LONGEST_LOOK_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LOOK_SECONDS,
    REASON_CHARS,
    RESCHEDULE_SECONDS,
    AccountLimits,
    Pause,
    Throttle,
    UsageLimit,
)
from tests.support.reachable import names_in
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


@pytest.fixture
def limits(throttle: Throttle) -> AccountLimits:
    return throttle.of("an account")


def test_limits_that_arrive_together_halve_the_window_once(limits: AccountLimits, clock: Clock):
    for _ in range(20):
        limits.on_rate_limited()
    assert limits.window == 8
    clock.moved += HALVING_SECONDS
    limits.on_rate_limited()
    assert limits.window == 4


def test_the_window_never_closes_and_never_grows_beyond_the_machine(limits: AccountLimits, clock: Clock):
    for _ in range(20):
        limits.on_rate_limited()
        clock.moved += HALVING_SECONDS
    assert limits.window == 1
    for _ in range(500):
        limits.on_success()
    assert limits.window == 16


def test_a_window_of_successes_widens_it_by_one(limits: AccountLimits):
    limits.on_rate_limited()
    for _ in range(9):
        limits.on_success()
    assert limits.window == 9


def test_only_a_window_of_jobs_is_admitted(limits: AccountLimits):
    limits.on_rate_limited()
    assert [limits.admits(7), limits.admits(8)] == [True, False]


@pytest.mark.parametrize("resets_in", [LONGEST_PAUSE_SECONDS + 1, 1.7e12, 1e30])
def test_a_usage_limit_that_ends_when_none_can_end_pauses_as_one_that_does_not_say(
    limits: AccountLimits, clock: Clock, resets_in: float
):
    limits.on_usage_limit(clock.now() + resets_in, "five_hour")
    assert limits.pause is not None
    assert limits.pause.until == pytest.approx(clock.now() + DEFAULT_PAUSE_SECONDS + JITTER_SECONDS, abs=1)


def test_a_weekly_limit_is_waited_for(limits: AccountLimits, clock: Clock):
    week = 7 * 86_400.0
    limits.on_usage_limit(clock.now() + week, "seven_day")
    assert limits.pause is not None
    assert limits.pause.until == pytest.approx(clock.now() + week + JITTER_SECONDS, abs=1)


def test_a_usage_limit_pauses_everything_until_it_ends_and_a_little_longer(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 100, "five_hour")
    assert limits.pause is not None
    assert limits.pause.because == "five_hour"
    assert limits.pause.until == pytest.approx(clock.now() + 100 + JITTER_SECONDS, abs=1)
    clock.moved += 100
    assert not limits.admits(0)
    clock.moved += JITTER_SECONDS
    assert limits.admits(0)
    assert limits.pause is None


def test_a_limit_that_does_not_say_when_it_ends_pauses_for_a_while(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(None, "a usage limit")
    clock.moved += DEFAULT_PAUSE_SECONDS + JITTER_SECONDS
    assert limits.admits(0)


def test_of_two_limits_the_later_end_counts(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 1000, "seven_day")
    limits.on_usage_limit(clock.now() + 10, "five_hour")
    clock.moved += 500
    assert limits.pause is not None
    assert limits.pause.because == "seven_day"


def test_an_end_that_is_over_by_a_moment_pauses_for_the_jitter_alone(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() - 10, "five_hour")
    clock.moved += JITTER_SECONDS
    assert limits.admits(0)


def test_an_end_that_is_long_over_pauses_as_one_that_does_not_say(limits: AccountLimits, clock: Clock):
    # Where the clock is ahead, each job would else use up its attempts within a minute.
    limits.on_usage_limit(clock.now() - 1000, "five_hour")
    assert limits.pause is not None
    assert limits.pause.until == pytest.approx(clock.now() + DEFAULT_PAUSE_SECONDS + JITTER_SECONDS, abs=1)


def test_a_pause_ends_at_its_time_of_day_though_the_machine_slept_meanwhile(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 3600, "five_hour")
    # The monotonic clock stands still while a laptop is closed.
    clock.set_by += 2 * 3600
    assert limits.pause is None
    assert limits.admits(0)


def test_a_clock_that_is_set_back_makes_no_pause_longer(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 100, "five_hour")
    clock.set_by -= 86_400
    clock.moved += 100 + JITTER_SECONDS
    assert limits.admits(0)


def test_a_back_off_ends_though_the_clock_is_set(limits: AccountLimits, clock: Clock):
    limits.back_off("overloaded")
    clock.set_by -= 86_400
    clock.moved += FIRST_BACK_OFF_SECONDS
    assert limits.admits(0)


def test_each_attempt_that_trouble_ends_waits_twice_as_long_until_one_succeeds(limits: AccountLimits, clock: Clock):
    waits = []
    for _ in range(9):
        limits.back_off("overloaded")
        assert limits.pause is not None
        waits.append(round(limits.pause.until - clock.now()))
        clock.moved += waits[-1] + 1
    assert waits == [1, 2, 4, 8, 16, 32, *[LONGEST_BACK_OFF_SECONDS] * 3]
    limits.on_success()
    limits.back_off("overloaded")
    assert limits.pause is not None
    assert limits.pause.until - clock.now() == pytest.approx(FIRST_BACK_OFF_SECONDS, abs=0.5)


def test_attempts_that_end_together_back_off_once(limits: AccountLimits, clock: Clock):
    for _ in range(20):
        limits.back_off("overloaded")
    clock.moved += FIRST_BACK_OFF_SECONDS
    assert limits.admits(0)


def test_a_job_that_completes_lifts_a_limit_once(limits: AccountLimits, clock: Clock):
    reset = clock.now() + 3600
    limits.on_usage_limit(reset, "five_hour")
    limits.on_success()
    assert limits.pause is None
    limits.on_usage_limit(reset, "five_hour")
    limits.on_success()
    assert limits.pause is not None
    clock.moved += 3600 + JITTER_SECONDS
    assert limits.pause is None


@pytest.mark.parametrize("resets_in", [3 * 3600.0, None])
def test_the_next_limit_of_the_same_name_is_lifted_once_more(
    limits: AccountLimits, clock: Clock, resets_in: float | None
):
    for _ in range(2):
        for _ in range(2):
            limits.on_usage_limit(None if resets_in is None else clock.now() + resets_in, "five_hour")
            limits.on_success()
        assert limits.pause is not None
        clock.moved += (resets_in or DEFAULT_PAUSE_SECONDS) + 2 * JITTER_SECONDS
        assert limits.pause is None


def test_a_job_that_began_before_a_limit_and_completes_after_it_lifts_each_limit_by_itself(
    limits: AccountLimits, clock: Clock
):
    limits.on_usage_limit(clock.now() + 100, "five_hour")
    limits.on_success()
    limits.on_usage_limit(clock.now() + 9000, "seven_day")
    assert limits.pause is not None
    limits.on_success()
    assert limits.pause is None


def test_what_was_paid_for_beyond_a_limit_does_not_lift_it(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 100, "five_hour", is_extra=True)
    limits.on_success()
    assert limits.pause is not None


def test_what_many_jobs_say_of_a_limit_neither_prolongs_it_nor_takes_room(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 100, "five_hour")
    first = limits.limits
    for number in range(1000):
        limits.on_usage_limit(clock.now() + 100, "five_hour")
        limits.on_usage_limit(clock.now() + 1 + number / 1000, f"invented {number}")
    assert set(first) <= set(limits.limits)
    assert len(limits.limits) <= 16


def test_the_name_of_a_limit_is_one_short_line(limits: AccountLimits, clock: Clock):
    limits.on_usage_limit(clock.now() + 100, "\x1b[31mno\n time " + "x" * 1000)
    assert limits.pause is not None
    because = limits.pause.because
    assert because.startswith("no time xxx")
    assert len(because) == REASON_CHARS


def test_a_limit_that_an_earlier_engine_noted_holds_and_one_that_can_be_none_does_not(
    limits: AccountLimits, clock: Clock
):
    for until in (-1e9, clock.now() - 1, clock.now() + 1e9, float("nan"), float("inf")):
        limits.restore(UsageLimit(until=until, because="five_hour"))
    assert limits.pause is None
    limits.restore(UsageLimit(until=clock.now() + 100, because="five_hour"))
    assert limits.pause is not None
    assert limits.pause.until == pytest.approx(clock.now() + 100, abs=1)


def test_a_pause_says_until_when_why_and_how_many_wait():
    said = [str(Pause(until=1e9, because="five_hour", waiting=jobs)) for jobs in (1, 2)]
    assert said[0].startswith("paused until 2001-09-")
    assert [one.partition(" because ")[2] for one in said] == ["five_hour; 1 job waits", "five_hour; 2 jobs wait"]


def test_an_account_that_meets_its_limit_leaves_the_others_alone(throttle: Throttle, clock: Clock):
    throttle.of("a").on_usage_limit(clock.now() + 100, "five_hour")
    throttle.of("a").on_rate_limited()
    throttle.of("b").back_off("overloaded")
    assert [throttle.admits_of(account, 0) for account in "abc"] == [False, False, True]
    assert throttle.admits(0)
    assert set(throttle.pauses()) == {"a", "b"}
    assert (throttle.of("a").window, throttle.of("b").window) == (8, 16)


def test_a_system_that_starts_no_process_holds_every_account_back(throttle: Throttle, clock: Clock):
    throttle.refused("no process")
    assert not throttle.admits(0)
    assert throttle.pause_of("a") is not None
    clock.moved += FIRST_BACK_OFF_SECONDS
    assert throttle.admits(0)


def test_accounts_of_which_nothing_is_known_are_dropped(throttle: Throttle, clock: Clock):
    throttle.of("limited").on_usage_limit(clock.now() + 100, "five_hour")
    for number in range(1000):
        throttle.of(f"account {number}")
    assert sum(name.startswith("account ") for name in names_in(throttle)) < 100
    assert set(throttle.pauses()) == {"limited"}


def test_how_soon_to_look_again_depends_on_what_is_waited_for(throttle: Throttle, clock: Clock, memory: Memory):
    assert throttle.look_again_in() == LONGEST_LOOK_SECONDS
    throttle.of("a").back_off("overloaded")
    throttle.of("a").on_usage_limit(clock.now() + 3600, "five_hour")
    assert throttle.look_again_in() == LONGEST_LOOK_SECONDS
    memory.free = 0
    clock.moved += LOOK_SECONDS
    assert throttle.look_again_in() == RESCHEDULE_SECONDS


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


def test_a_queued_job_is_told_what_keeps_it_in_line(throttle: Throttle, memory: Memory, clock: Clock):
    def held_back(account: str = "an account", of_account: int = 1) -> str:
        # What was read of the memory is kept for a moment.
        clock.moved += LOOK_SECONDS
        return throttle.held_back_by(account, running=16, of_account=of_account).what

    limits = throttle.of("an account")
    assert held_back() == "slot"
    memory.free = 0
    assert held_back() == "memory"
    limits.on_rate_limited()
    assert held_back(of_account=8) == "limit"
    limits.back_off("the API answered: overloaded")
    assert (held_back(), held_back("another")) == ("back_off", "memory")
    limits.on_usage_limit(clock.now() + 1000, "a limit")
    assert (held_back(), held_back("another")) == ("limit", "memory")
    throttle.refused("no process now")
    assert held_back("another") == "back_off"


def test_a_full_machine_is_no_limit_of_an_account(throttle: Throttle, limits: AccountLimits):
    assert throttle.held_back_by("an account", running=16, of_account=16).what == "slot"


def test_a_pause_of_extra_usage_ends_once_the_setting_allows_it(clock: Clock, memory: Memory):
    allowed: list[str] = []
    throttle = Throttle(
        max_running=16,
        max_starting=3,
        free_memory=memory,
        memory_floor=GB,
        clock=clock,
        uses_extra=lambda: bool(allowed),
    )
    limits = throttle.of("an account")
    limits.on_usage_limit(clock.now() + 100, "five_hour", is_extra=True)
    assert limits.pause is not None
    allowed.append("use")
    assert limits.pause is None
