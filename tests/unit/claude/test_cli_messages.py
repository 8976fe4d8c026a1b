from datetime import UTC, datetime

import pytest

from jobs.claude.cli_messages import reason_in, reset_in
from jobs.model import Reason

NOW = datetime(2026, 11, 22, 10, 22, tzinfo=UTC)


def at(month: int, day: int, hour: int, minute: int = 0, *, year: int = 2026) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("said", "resets"),
    [
        ("You've hit your 5-hour limit · resets 11:08am (UTC)", at(11, 22, 11, 8)),
        ("You've hit your session limit · resets 12am (UTC)", at(11, 23, 0)),
        ("You've hit your session limit · resets 12pm (UTC)", at(11, 22, 12)),
        ("You've hit your session limit · resets 1:10am (Europe/Moscow)", at(11, 22, 22, 10)),
        ("You've hit your session limit · resets 10:20am (UTC)", at(11, 22, 10, 20)),
        ("You've hit your weekly limit · resets 9am (UTC)", at(11, 23, 9)),
        ("You've hit your weekly limit · resets Nov 25, 5pm (UTC)", at(11, 25, 17)),
        ("You've hit your weekly limit · resets Nov 25 at 5:30pm (UTC)", at(11, 25, 17, 30)),
        ("You've hit your weekly limit · resets Jan 2, 5pm (UTC)", at(1, 2, 17, year=2027)),
        ("You've hit your weekly limit · resets Jan 2, 2027, 5pm (UTC)", at(1, 2, 17, year=2027)),
        ("Claude usage limit reached. Your limit will reset at 3pm (UTC).", at(11, 22, 15)),
        ("Claude AI usage limit reached|1795345722", 1795345722.0),
        ("You've hit your session limit", None),
        ("You've hit your session limit · resets 3pm (Nowhere/At_all)", None),
        ("You've hit your session limit · resets 3pm (../etc/passwd)", None),
        ("You've hit your session limit · resets 25:10am (UTC)", None),
        ("You've hit your session limit · resets Feb 31, 5pm (UTC)", None),
        ("You've hit your session limit · resets Xyz 1, 5pm (UTC)", None),
    ],
)
def test_a_message_names_the_time_of_the_reset(said: str, resets: float | None) -> None:
    assert reset_in(said, written_at=NOW.timestamp(), now=NOW.timestamp() + 86_400) == resets


@pytest.mark.parametrize(
    ("written", "named", "resets"),
    [
        (datetime(2026, 1, 1, 0, 30, tzinfo=UTC), "Dec 31, 11pm", at(12, 31, 23, year=2025)),
        (datetime(2026, 1, 1, 0, 20, tzinfo=UTC), "11:50pm", at(12, 31, 23, 50, year=2025)),
        (datetime(2026, 12, 31, 23, 30, tzinfo=UTC), "Jan 1, 2am", at(1, 1, 2, year=2027)),
        (datetime(2026, 12, 31, 23, 30, tzinfo=UTC), "2am", at(1, 1, 2, year=2027)),
        (NOW, "Nov 20, 5pm", at(11, 20, 17)),
    ],
)
def test_a_time_that_passed_shortly_before_the_message_is_the_one_that_it_names(
    written: datetime, named: str, resets: float
) -> None:
    said = f"You've hit your weekly limit · resets {named} (UTC)"
    assert reset_in(said, written_at=written.timestamp(), now=written.timestamp()) == resets


@pytest.mark.parametrize(
    ("now", "resets"),
    [
        (datetime(2026, 11, 22, 14, 0, tzinfo=UTC), at(11, 22, 15)),
        (datetime(2026, 11, 22, 15, 59, tzinfo=UTC), at(11, 22, 15)),
        (datetime(2026, 11, 22, 16, 10, tzinfo=UTC), None),
        (datetime(2026, 11, 22, 23, 59, tzinfo=UTC), None),
    ],
)
def test_an_hour_that_is_over_is_not_tomorrows_where_nothing_says_when_it_was_named(
    now: datetime, resets: float | None
) -> None:
    assert reset_in("Session limit reached · resets 3pm (UTC)", written_at=None, now=now.timestamp()) == resets


def test_an_hour_without_a_zone_is_one_of_this_machine() -> None:
    found = reset_in("Session limit reached ∙ resets 10am", written_at=NOW.timestamp(), now=NOW.timestamp())
    assert found is not None
    assert datetime.fromtimestamp(found).hour == 10  # noqa: DTZ006 - the machine's own clock is the point


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Credit balance is too low", Reason.BILLING),
        ("Credit balance too low · Add funds: https://platform.claude.com/settings/billing", Reason.BILLING),
        ("You've hit your org's monthly spend limit · ask your admin to raise it", Reason.BILLING),
        ("You're out of usage credits. /model to switch models.", Reason.BILLING),
        ("Your org is out of usage · add funds to continue", Reason.BILLING),
        ("Your seat type doesn't include usage credits", Reason.BILLING),
        ("Fable 5 requires usage credits. It resets Nov 25, 5pm (UTC).", Reason.USAGE_LIMIT),
        ("Opus 5 requires usage credits. Switch to another model to continue.", Reason.BILLING),
        ("API Error: Usage credits required for 1M context · run /usage-credits", Reason.BILLING),
        ("You've hit your weekly limit · resets Oct 9, 5pm (UTC)", Reason.USAGE_LIMIT),
        ("You've reached your Fable limit for this week. Switch models?", Reason.USAGE_LIMIT),
        ("5-hour limit reached ∙ resets 3pm", Reason.USAGE_LIMIT),
        ("Session limit reached ∙ resets 10am", Reason.USAGE_LIMIT),
        ("Prompt is too long", Reason.PROMPT_TOO_LONG),
        ("The credit balance is too low to pay for the order, so the test fails.", None),
        ("I looked at it. Credit balance is too low", None),
        ("Credit balance is too low\n\nThat is the message; it comes from billing.py.", None),
        ("Prompt is too long for what it says.", None),
        ("You've reached your destination.", None),
        ("You've hit your limit of three cookies, resets tomorrow", None),
        ("The rate limit reached its maximum", None),
        ("Usage limit reached: the loop ends.", None),
        ("", None),
        ("Credit balance is too low" + " x" * 1000, None),
    ],
)
def test_a_message_of_the_cli_is_known_as_a_whole_only(said: str, reason: Reason | None) -> None:
    assert reason_in(said) is reason
