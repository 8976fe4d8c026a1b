"""What an account may spend on a day and in a month: what counts, when it ends, and what it holds back."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from jobs import spending as module
from jobs.limits.account_budgets import AccountBudgetError, AccountBudgets
from jobs.limits.throttle import Throttle
from jobs.model import DaySpending
from jobs.settings import Settings
from jobs.spending import Spending, local_day
from jobs.waiting_for import WaitingFor
from tests.unit.jobs.support import Clock


class Day:
    """A settings object, a clock that a test sets, and what was spent."""

    def __init__(self, **budgets: float) -> None:
        self.now = at(2026, 11, 30, 12)
        self.settings = Settings(home="/h", **budgets)
        self.spending = Spending(lambda: self.now)
        self.budgets = AccountBudgets(self.settings, self.spending)

    def pays(self, cost: float, account: str = "a", *, when: float | None = None) -> None:
        self.spending.settle("j", account, cost, at=self.now if when is None else when)


def at(year: int, month: int, day: int, hour: int) -> float:
    return datetime(year, month, day, hour, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is two hours ahead of UTC, without daylight saving time."""
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_day_begins_at_local_midnight_and_a_month_on_its_first():
    day = Day(daily_budget_usd=5.0, monthly_budget_usd=8.0)
    assert local_day(at(2026, 11, 30, 22)) == "2026-12-01"
    day.pays(5.0)
    pause = day.budgets.pause_of("a")
    assert pause is not None
    assert pause.until == at(2026, 11, 30, 22)
    assert pause.because == (
        "the daily budget of 5.0000 USD is used up, with 5.0000 USD spent (setting daily_budget_usd)"
    )
    day.now = at(2026, 11, 30, 22)
    assert day.budgets.pause_of("a") is None
    assert day.spending.of("a").month == 0.0


def test_the_month_counts_all_of_its_days_and_the_later_end_is_told():
    day = Day(daily_budget_usd=5.0, monthly_budget_usd=8.0)
    day.spending.load(
        [
            DaySpending(account="a", day="2026-10-31", cost_usd=100.0),
            DaySpending(account="a", day="2026-11-01", cost_usd=3.0),
        ]
    )
    assert day.budgets.pause_of("a") is None
    day.pays(5.0)
    pause = day.budgets.pause_of("a")
    assert pause is not None
    assert "the monthly budget of 8.0000 USD" in pause.because
    assert pause.until == at(2026, 11, 30, 22)
    day.now = at(2026, 11, 29, 12)
    # A clock that was set back: yesterday as it was.
    assert day.spending.of("a").today == 0.0


def test_a_thread_that_asks_while_another_one_sums_up_a_new_day_does_not_hear_of_the_day_before(
    monkeypatch: pytest.MonkeyPatch,
):
    day = Day(daily_budget_usd=8.0)
    day.pays(8.0)
    day.now = at(2026, 12, 1, 12)
    heard: list[float] = []
    other = threading.Thread(target=lambda: heard.append(day.spending.of("a").today))

    def local_day_while_the_other_asks(when: float) -> str:
        if other.ident is None:
            other.start()
            # It answers at once, or waits for the sum.
            other.join(0.2)
        return local_day(when)

    monkeypatch.setattr(module, "local_day", local_day_while_the_other_asks)
    assert day.spending.of("a").today == 0.0
    other.join(20.0)
    assert heard == [0.0]


def test_running_attempts_count_until_their_ends_are_written_and_then_once():
    day = Day(daily_budget_usd=1.0)
    day.spending.note("a", "j", 0.4)
    day.spending.note("a", "j", 0.9)
    assert day.budgets.pause_of("a") is None
    day.spending.note("a", "k", 0.2)
    assert day.budgets.pause_of("a") is not None
    day.spending.settle("j", "a", 0.9, at=day.now)
    day.spending.settle("k", "a", 0.05, at=day.now)
    assert day.spending.of("a").today == pytest.approx(0.95)
    assert day.budgets.pause_of("a") is None


def test_each_account_has_its_own_budget_and_a_raised_setting_counts_at_once():
    day = Day(daily_budget_usd=1.0)
    day.pays(2.0)
    assert day.budgets.pauses().keys() == {"a"}
    day.budgets.check("b")
    with pytest.raises(AccountBudgetError, match="Finish with what you have, without spawning"):
        day.budgets.check("a")
    day.settings.reload(Settings(home="/h", daily_budget_usd=3.0))
    day.budgets.check("a")
    day.settings.reload(Settings(home="/h"))
    assert day.budgets.pauses() == {}
    assert [(one.account, one.today, one.daily) for one in day.budgets.figures()] == [("a", 2.0, None)]


def test_jobs_of_the_account_wait_and_everybody_hears_of_it_once():
    day = Day(daily_budget_usd=1.0)
    throttle = Throttle(
        max_running=9, max_starting=9, free_memory=lambda: 2**40, memory_floor=0, clock=Clock(), budgets=day.budgets
    )
    heard: list[int] = []
    throttle.observe(lambda: heard.append(1))
    assert throttle.admits_of("a", 0)
    day.pays(1.0)
    assert not any([throttle.admits_of("a", 0), throttle.admits_of("a", 1)])
    assert throttle.admits_of("b", 0)
    assert len(heard) == 1
    wait = throttle.held_back_by("a", running=0, of_account=0)
    assert (wait.what, wait.until) == (WaitingFor.LIMIT, at(2026, 11, 30, 22))
    assert throttle.pauses().keys() == {"a"}
    day.settings.reload(Settings(home="/h", daily_budget_usd=2.0))
    assert throttle.admits_of("a", 0)
    assert (throttle.pause_of("a"), len(heard)) == (None, 2)
