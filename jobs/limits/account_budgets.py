"""Daily and monthly budgets of an account, over all its trees; what they refuse and what they pause."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.errors import JobsError
from jobs.limits.throttle import Pause, clock_time
from jobs.settings import Settings
from jobs.spending import Spending


class AccountBudgetError(JobsError):
    """A budget of the account is used up; nothing was spawned.

    Args:
        pause: Until when nothing of the account starts, and why.
    """

    def __init__(self, pause: Pause) -> None:
        self.pause = pause
        super().__init__(
            f"Nothing starts before {clock_time(pause.until)} because {pause.because}. Finish with what you have, "
            "without spawning; a person can raise that setting."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFigures:
    """What an account has spent, and what it may.

    Args:
        account: The account, as `jobs.claude.account` names it.
        today: US dollars today.
        month: US dollars this month.
        daily: Most US dollars a day, or None.
        monthly: Most US dollars a month, or None.
    """

    account: str
    today: float
    month: float
    daily: float | None
    monthly: float | None


class AccountBudgets:
    """Compares what accounts spend with the settings, which are read at each use.

    Args:
        settings: The engine's settings.
        spending: What each account spends.
    """

    def __init__(self, settings: Settings, spending: Spending) -> None:
        self._settings = settings
        self._spending = spending

    @property
    def are_set(self) -> bool:
        """Whether there is a budget."""
        return self._settings.daily_budget_usd is not None or self._settings.monthly_budget_usd is not None

    def pause_of(self, account: str) -> Pause | None:
        """Return until when nothing of an account starts because a budget is used up, or None."""
        daily, monthly = self._settings.daily_budget_usd, self._settings.monthly_budget_usd
        if daily is None and monthly is None:
            return None
        spent = self._spending.of(account)
        # The month ends last.
        if monthly is not None and spent.month >= monthly:
            return Pause(until=self._spending.month_end, because=_used_up("monthly", monthly, spent.month))
        if daily is not None and spent.today >= daily:
            return Pause(until=self._spending.midnight, because=_used_up("daily", daily, spent.today))
        return None

    def pauses(self) -> Mapping[str, Pause]:
        """Return the pause of each account that has one."""
        if not self.are_set:
            return {}
        found = ((account, self.pause_of(account)) for account in self._spending.accounts())
        return {account: pause for account, pause in found if pause is not None}

    def check(self, account: str) -> None:
        """Refuse a spawn of an account whose budget is used up.

        Raises:
            AccountBudgetError: Naming budget, spending, the end and what to do.
        """
        if (pause := self.pause_of(account)) is not None:
            raise AccountBudgetError(pause)

    def figures(self) -> Sequence[AccountFigures]:
        """Return what each account has spent this month, the one that spent most first."""
        found = [(account, self._spending.of(account)) for account in self._spending.accounts()]
        return [
            AccountFigures(
                account=account,
                today=spent.today,
                month=spent.month,
                daily=self._settings.daily_budget_usd,
                monthly=self._settings.monthly_budget_usd,
            )
            for account, spent in sorted(found, key=lambda one: -one[1].month)
        ]


def _used_up(which: str, budget: float, spent: float) -> str:
    return f"the {which} budget of {budget:.4f} USD is used up, with {spent:.4f} USD spent (setting {which}_budget_usd)"
