"""A tree of ten thousand jobs in a real browser, from a real engine."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import browser, open_web, page_in
from tests.support.engines import House, house
from tests.support.past import make_past

pytestmark = pytest.mark.timeout(300)

__all__ = ("browser",)

JOBS = 10_000
MOST_ROWS = 80
"""Rows in the document at most: those that a window of 800 pixels shows, and some above and below."""


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as built:
        make_past(built.paths.home, JOBS, per_tree=JOBS)
        built.start_engine()
        yield built


def test_ten_thousand_jobs_are_shown_once_they_are_asked_for_and_scroll(made: House, browser: Browser):
    with page_in(browser) as page:
        open_web(page, made, f"#/tree/b{0:016d}")
        ask = page.get_by_role("button", name="Show all 10,000 jobs")
        expect(page.locator(".page-tree [role=row]")).to_have_count(1)
        ask.click()
        rows = page.locator(".page-tree [role=row]")
        # The batch itself has a row, too.
        expect(page.locator("[role=treegrid]")).to_have_attribute("aria-rowcount", str(JOBS + 1), timeout=60_000)
        scroller = page.locator(".page-tree .rows")
        for share in (0.1, 0.5, 0.9, 0.3):
            scroller.evaluate("(rows, share) => { rows.scrollTop = rows.scrollHeight * share; }", share)
            number = round(JOBS * share) + 10
            expect(page.locator(f"#job-j{number:016d}")).to_be_visible()
            assert rows.count() < MOST_ROWS
        scroller.focus()
        page.keyboard.press("End")
        expect(page.locator(f"#job-j{JOBS - 1:016d}")).to_be_visible()
        assert rows.count() < MOST_ROWS


def test_the_button_that_loads_them_is_the_same_one_while_the_page_changes(made: House, browser: Browser):
    with page_in(browser) as page:
        open_web(page, made, f"#/tree/b{0:016d}")
        button = page.get_by_role("button", name="Show all 10,000 jobs")
        button.focus()
        made.run("pause")
        try:
            expect(page.locator(".page-tree .held")).to_be_visible()
            expect(button).to_be_focused()
        finally:
            made.run("resume")
        expect(page.locator(".page-tree .held")).to_be_hidden()
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("[role=treegrid]")).to_have_attribute("aria-rowcount", str(JOBS + 1), timeout=60_000)
