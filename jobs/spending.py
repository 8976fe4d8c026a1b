"""What each account spends, by local day: settled costs, as the store keeps them, and those of attempts that run."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from jobs.model import DaySpending

LOADED_DAYS = 31
"""Days before today that a month can have begun."""


def local_day(at: float) -> str:
    """Return the day of a time, in seconds since the epoch, where this machine is: "2026-11-30"."""
    return time.strftime("%Y-%m-%d", time.localtime(at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an account has spent, attempts that run included.

    Args:
        today: US dollars today.
        month: US dollars this month.
    """

    today: float
    month: float


class Spending:
    """Spending of every account in memory; each step takes the same time, whatever the number of jobs.

    An attempt counts on the day on which it ends, and while it runs today. The store's thread asks too, at a spawn.

    Args:
        now: Returns seconds since the epoch.

    Attributes:
        midnight: End of today, in seconds since the epoch.
        month_end: End of this month.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._by_day: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._running: dict[str, tuple[str, float]] = {}
        self._sum_running: defaultdict[str, float] = defaultdict(float)
        self._today: dict[str, float] = {}
        self._month: dict[str, float] = {}
        self._began = self.midnight = self.month_end = 0.0

    def load(self, rows: Iterable[DaySpending]) -> None:
        """Take over what the store has kept of this month."""
        with self._lock:
            for row in rows:
                self._by_day[row.account, row.day] += row.cost_usd
            self._began = self.midnight = 0.0

    def note(self, account: str, job_id: str, cost_usd: float) -> None:
        """Record the US dollars that the running attempt of a job has cost so far."""
        with self._lock:
            _, before = self._running.get(job_id, (account, 0.0))
            self._running[job_id] = (account, cost_usd)
            self._sum_running[account] += cost_usd - before

    def settle(self, job_id: str, account: str | None, cost_usd: float, *, at: float) -> None:
        """Record what an attempt has cost in all; an account that is not known is not charged."""
        with self._lock:
            known, before = self._running.pop(job_id, ("", 0.0))
            self._sum_running[known] -= before
            if account is None or not cost_usd:
                return
            self._roll()
            self._by_day[account, local_day(at)] += cost_usd
            if self._began <= at < self.midnight:
                self._today[account] = self._today.get(account, 0.0) + cost_usd
                self._month[account] = self._month.get(account, 0.0) + cost_usd
            else:
                self._began = self.midnight = 0.0

    def of(self, account: str) -> Spent:
        """Return what an account has spent."""
        with self._lock:
            self._roll()
            running = max(0.0, self._sum_running.get(account, 0.0))
            return Spent(today=self._today.get(account, 0.0) + running, month=self._month.get(account, 0.0) + running)

    def accounts(self) -> Collection[str]:
        """Return the accounts that have spent something this month."""
        with self._lock:
            self._roll()
            return sorted(self._month.keys() | {account for account, cost in self._sum_running.items() if cost > 0})

    def _roll(self) -> None:
        """Sum up again where the day has changed, by itself or because the clock was set."""
        now = self._now()
        if self._began <= now < self.midnight:
            return
        then = time.localtime(now)
        year, month, day = then.tm_year, then.tm_mon, then.tm_mday
        self._began = _beginning(year, month, day)
        self.midnight = _beginning(year, month, day + 1)
        self.month_end = _beginning(year, month + 1, 1)
        today, this_month = local_day(now), local_day(now)[:7]
        self._today, self._month = {}, {}
        for (account, spent_on), cost in self._by_day.items():
            if spent_on == today:
                self._today[account] = cost
            if spent_on.startswith(this_month):
                self._month[account] = self._month.get(account, 0.0) + cost


def _beginning(year: int, month: int, day: int) -> float:
    # A day or a month too many is one of the next month or year; daylight saving time is looked up.
    return time.mktime((year, month, day, 0, 0, 0, 0, 0, -1))
