"""The shell of the page: what is empty says what to do, the title counts what asks, hidden pages ask nothing."""

import json
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.support.browser import scrolls_sideways
from tests.unit.page.played_engine import NOW, job, shown, tree_of


def hide(page: Page, *, hidden: bool) -> None:
    """Have the page think that its tab is in the background, or in front again."""
    state = json.dumps(hidden)
    page.evaluate(
        f"Object.defineProperty(document, 'hidden', {{configurable: true, value: {state}}});"
        "document.dispatchEvent(new Event('visibilitychange'));"
    )


def trees(*rows: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return [tree_of([row], **fields) for row in rows]


def test_where_there_are_no_trees_the_page_says_how_to_begin(browser: Browser):
    with shown(browser, where="#/") as (page, _):
        empty = page.locator(".page-trees .empty")
        expect(empty).to_contain_text("No jobs yet")
        expect(empty).to_contain_text('claude-jobs run "Say what this project does"')


def test_a_tree_that_is_not_there_is_told_with_a_way_back(browser: Browser):
    with shown(browser, where="#/tree/jnowhere") as (page, engine):
        engine.trees = []
        expect(page.locator(".page-tree .empty")).to_contain_text("This tree is not there")
        expect(page.get_by_role("button", name="Critical path")).to_be_hidden()
        page.get_by_role("link", name="All trees", exact=True).click()
        expect(page.locator(".page-trees")).to_be_visible()


def test_the_newest_tree_is_on_top_and_the_title_counts_what_asks(browser: Browser):
    with shown(browser, where="#/") as (page, engine):
        old = job("jold", rootId="jold", task="An old one", createdAt=NOW - 90_000)
        new = job("jnew", rootId="jnew", task="A new one", status="running", costUsd=0.5, createdAt=NOW - 60)
        engine.trees = [*trees(old), *trees(new, asking=2, maxBudgetUsd=5)]
        expect(page).to_have_title("(2) claude-jobs")
        rows = page.locator(".page-trees [role=row][id]")
        assert [
            row.get_attribute("aria-rowindex") for row in (page.locator("#tree-jnew"), page.locator("#tree-jold"))
        ] == [
            "1",
            "2",
        ]
        expect(rows).to_have_count(2)
        expect(page.locator("#tree-jnew")).to_contain_text("asks you 2 times")
        expect(page.locator("#tree-jnew .cost")).to_have_text("$0.50of $5.00")
        expect(page.locator("#tree-jnew .begun")).to_have_text("1m ago")
        expect(page.locator("#tree-jold .place")).to_contain_text("/srv/shop/src")
        page.keyboard.press("/")
        page.keyboard.type("nothing")
        expect(page.locator(".page-trees .empty")).to_contain_text("No tree matches")


def test_a_new_tree_does_not_move_the_one_under_the_pointer(browser: Browser):
    with shown(browser, where="#/", height=400) as (page, engine):
        rows = [job(f"j{at}", rootId=f"j{at}", createdAt=NOW - 100 - at) for at in range(40)]
        engine.trees = trees(*rows)
        page.locator("#tree-j2").hover()
        before = page.locator("#tree-j2").bounding_box()
        engine.trees = trees(job("jnewest", rootId="jnewest", createdAt=NOW), *rows)
        expect(page.locator(".page-trees [role=grid]")).to_have_attribute("aria-rowcount", "41")
        assert page.locator("#tree-j2").bounding_box() == before


def test_a_hidden_page_lets_its_stream_go_after_ten_seconds_and_comes_back_fresh(browser: Browser):
    with shown(browser, [job("jroot")], where="#/") as (page, engine):
        page.locator("#tree-jroot").wait_for()
        page.clock.install()
        hide(page, hidden=True)
        page.clock.fast_forward(9000)
        page.clock.run_for(2000)
        asked = len(engine.asked)
        engine.trees = trees(job("jroot", task="A better name"))
        page.clock.run_for(60_000)
        assert len(engine.asked) == asked
        hide(page, hidden=False)
        page.clock.resume()
        expect(page.locator("#tree-jroot")).to_contain_text("A better name")


def test_links_of_jobs_and_pages_are_addresses_that_can_be_opened_again(browser: Browser):
    with shown(browser, [job("jroot", children=1), job("jbelow")], where="#/tree/jroot/jbelow") as (page, _):
        expect(page.locator(".pane")).to_be_visible()
        expect(page.locator("#job-jbelow")).to_have_attribute("aria-selected", "true")
        page.reload()
        expect(page.locator(".pane")).to_be_visible()
        expect(page.locator("#job-jbelow")).to_have_attribute("aria-selected", "true")
        page.get_by_role("link", name="Trees", exact=True).click()
        expect(page.locator("#tree-jroot")).to_be_visible()


def test_a_phone_has_the_symbols_explained_and_nothing_scrolls_sideways(browser: Browser):
    with shown(browser, where="#/", width=390, height=844) as (page, engine):
        engine.trees = trees(job("jroot"))
        page.get_by_role("button", name="Keys and symbols").click()
        expect(page.locator("dialog")).to_contain_text("waits for your permission")
        assert not scrolls_sideways(page)
