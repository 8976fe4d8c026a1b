"""What everything cost, in the page: a real browser before a whole engine."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import browser, go, open_web, page_in, scrolls_sideways
from tests.support.engines import House, house
from tests.support.review_scene import ROOT, Scene, review_scene

__all__ = ("browser",)

pytestmark = pytest.mark.timeout(300)

SECONDS = 30.0
expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture
def made() -> Iterator[House]:
    with house(CLAUDE_JOBS_DAILY_BUDGET_USD="10", CLAUDE_JOBS_MONTHLY_BUDGET_USD="200") as built:
        yield built


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with review_scene() as played:
        yield played


def part_of(page: Page, title: str) -> Locator:
    """Return the part of the page with this title."""
    return page.locator(".costs-part", has=page.get_by_role("heading", name=title, exact=True))


def cost_of(made: House, identity: str) -> float:
    """Return what `claude-jobs status` says of a batch's or a job's cost."""
    return float(json.loads(made.run("status", identity, "--json").stdout)["costUsd"])


def test_the_page_shows_the_figures_that_the_command_says(browser: Browser, made: House):
    with made.pump() as person, page_in(browser) as page:
        tasks = ["stub:cost=1.5 first", "stub:cost=0.75 second"]
        batch = person.json("claude_run_batch", tasks=tasks, maxBudgetUsd=5)
        single = person.json("claude_run_async", task="stub:cost=3.25 alone")["jobId"]
        person.settled(single)
        root = batch["batch_id"]
        open_web(page, made)
        go(page, "#/costs")
        total = cost_of(made, root) + cost_of(made, single)
        assert total == pytest.approx(5.5)
        expect(page.locator(".costs-sum")).to_have_text(f"${total:.2f}")
        rows = part_of(page, "Trees that cost most").locator("tbody tr")
        expect(rows).to_have_count(2)
        # The dearest first.
        expect(rows.nth(0)).to_contain_text("alone")
        expect(rows.nth(0)).to_contain_text(f"${cost_of(made, single):.2f}")
        expect(rows.nth(1)).to_contain_text(f"${cost_of(made, root):.2f}")
        expect(part_of(page, "Budgets")).to_contain_text(f"Today${total:.2f} of $10.00")
        expect(part_of(page, "Budgets")).to_contain_text(f"This month${total:.2f} of $200.00")
        expect(part_of(page, "Budgets").get_by_role("meter").first).to_have_attribute(
            "aria-valuetext", "$5.50 of $10.00, 55 %"
        )
        expect(part_of(page, "The last 30 days")).to_contain_text(f"${total:.2f} in all")
        assert page.locator(".day").count() == 30
        depths = part_of(page, "By depth").locator("tbody tr")
        # The jobs of a batch are below it.
        expect(depths).to_have_count(2)
        expect(depths.nth(0)).to_contain_text("$3.25")
        expect(depths.nth(1)).to_contain_text("$2.25")
        expect(part_of(page, "By model").locator("tbody tr")).to_contain_text("stub")

        rows.get_by_role("link", name="alone").first.click()
        expect(page).to_have_url(re.compile(rf"#/tree/{single}$"))


def test_one_tree_has_its_costs_by_depth_and_model(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        go(page, f"#/tree/{scene.ids[ROOT]}/costs")
        expect(page.get_by_role("heading", name=ROOT)).to_be_visible()
        status = scene.person.json("claude_status", jobId=scene.ids[ROOT])
        below = status["descendants"]["costUsd"]
        expect(page.locator(".costs-head")).to_contain_text("of $5.00")
        expect(page.locator(".costs-sum")).to_have_text(f"${status['costUsd'] + below:.2f}")
        depths = part_of(page, "By depth").locator("tbody tr")
        expect(depths).to_have_count(3)
        expect(depths.nth(2)).to_contain_text("4")
        expect(part_of(page, "By model")).to_contain_text("claude-sonnet-5")
        page.get_by_role("link", name="the tree").click()
        expect(page.get_by_role("treegrid")).to_be_visible()


def test_before_the_first_job_the_page_says_how_to_start_one(browser: Browser, made: House):
    made.start_engine()
    with page_in(browser) as page:
        open_web(page, made)
        go(page, "#/costs")
        expect(page.get_by_role("heading", name="Nothing has cost anything yet")).to_be_visible()
        expect(page.locator(".empty")).to_contain_text("claude-jobs run")


def test_a_tree_that_is_not_there_is_said_in_the_words_of_the_engine(browser: Browser, made: House):
    made.start_engine()
    with page_in(browser, expected=("Failed to load resource: the server responded with a status of 404",)) as page:
        open_web(page, made)
        go(page, "#/tree/j0000000000000000/costs")
        expect(page.get_by_role("heading", name="The costs cannot be read")).to_be_visible()
        expect(page.locator(".empty")).to_contain_text("not found")


def test_on_a_phone_the_costs_are_not_wider_than_the_screen(browser: Browser, scene: Scene):
    with page_in(browser, width=390, height=844, dark=True) as page:
        open_web(page, scene.made)
        for where in ("#/costs", f"#/tree/{scene.ids[ROOT]}/costs"):
            go(page, where)
            expect(part_of(page, "By depth")).to_be_visible()
            assert not scrolls_sideways(page)
            # Nor does a table: the costs are at its right.
            wider = "tables => tables.filter((one) => one.scrollWidth > one.clientWidth).length"
            assert page.locator(".table-scroll").evaluate_all(wider) == 0
            assert page.locator(".page-costs").evaluate("one => one.scrollWidth <= one.clientWidth")
