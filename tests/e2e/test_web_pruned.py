"""A tree that is pruned while it is open in a real browser."""

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import browser, open_web, page_in
from tests.support.engines import house

pytestmark = pytest.mark.timeout(300)

__all__ = ("browser",)

NOT_FOUND = ("Failed to load resource: the server responded with a status of 404",)
"""What the browser says where the page looks at the job once more."""


def test_a_tree_that_is_pruned_while_it_is_open_says_so_and_offers_nothing_to_do(browser: Browser):
    with (
        house(CLAUDE_JOBS_KEEP_DAYS="1e-9") as made,
        made.pump() as person,
        page_in(browser, expected=NOT_FOUND) as page,
    ):
        job_id = person.json("claude_run", task="Be quick stub:say=done")["jobId"]
        open_web(page, made, f"#/tree/{job_id}/{job_id}")
        expect(page.locator(".job").get_by_text("Be quick").first).to_be_visible()
        assert made.run("prune").returncode == 0
        expect(page.get_by_role("heading", name="This tree is not there")).to_be_visible()
        expect(page.locator(".job")).to_be_hidden()
        assert page.title() == "claude-jobs"
        page.get_by_role("link", name="All trees", exact=True).click()
        expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
