"""More windows of one browser than it opens connections: each stays live, and none holds up the others."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import browser, open_web, page_in
from tests.support.engines import House, house

pytestmark = pytest.mark.timeout(300)

__all__ = ("browser",)

WINDOWS = 8


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as built:
        built.start_engine()
        yield built


def test_eight_windows_stay_live_and_a_job_is_killed_in_the_last_one(made: House, browser: Browser):
    with made.pump() as person, page_in(browser) as first:
        open_web(first, made)
        address = first.url.partition("#")[0]
        windows: list[Page] = [first, *(first.context.new_page() for _ in range(WINDOWS - 1))]
        for window in windows[1:]:
            window.goto(address)
        for window in windows:
            expect(window.locator("#engine")).to_have_attribute("data-state", "live")
        job_id = person.json("claude_run_async", task="Stay a while stub:wait=/nonexistent")["jobId"]
        for window in windows:
            expect(window.locator(f"#tree-{job_id} .mark svg")).to_have_attribute("aria-label", "running")
        last = windows[-1]
        last.evaluate("id => { location.hash = `#/tree/${id}/${id}`; }", job_id)
        last.get_by_role("button", name="Kill").first.click()
        last.get_by_role("dialog").get_by_role("button", name="Kill").click()
        for window in windows[:-1]:
            expect(window.locator(f"#tree-{job_id} .mark svg")).to_have_attribute("aria-label", "cancelled")
            expect(window.locator("#engine")).to_have_attribute("data-state", "live")
