"""The trees and one tree in a real browser, before a real engine: what appears, changes and stays by itself."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import ENGINE_GONE, browser, go, open_web, page_in, scrolls_sideways
from tests.support.engines import House, Pump, house

pytestmark = pytest.mark.timeout(300)

__all__ = ("browser",)

HOSTILE = (
    '<script>window.owned=1</script><img src=x onerror="window.owned=1">',
    "javascript:window.owned=1",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07a link\x1b]8;;\x07",
    "abc\u202etxt.exe \u2066inside",
    "L" * 5000,
    "one line\nanother\r\n\tand one more",
    '"><svg onload="window.owned=1">',
    "a" + "\u0301" * 500,
)


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as built:
        built.start_engine()
        yield built


@pytest.fixture
def person(made: House) -> Iterator[Pump]:
    with made.pump() as pump:
        yield pump


def tree(page: Page, identity: str):
    return page.locator(f"#tree-{identity}")


def job(page: Page, identity: str):
    return page.locator(f"#job-{identity}")


def test_a_batch_appears_among_the_trees_runs_and_ends_without_a_reload(made: House, person: Pump, browser: Browser):
    with page_in(browser) as page:
        open_web(page, made)
        page.evaluate("window.isSame = true")
        gate = made.work / "gate-of-a-batch"
        batch = person.json("claude_run_batch_async", tasks=[f"Wait here stub:wait={gate}", "Be quick"])["batchId"]
        expect(tree(page, batch)).to_contain_text("Wait here")
        expect(tree(page, batch)).to_contain_text("2 jobs")
        expect(tree(page, batch).locator(".mark svg")).to_have_attribute("aria-label", "running")
        tree(page, batch).click()
        expect(page.locator(".tree-head")).to_contain_text("1 running")
        expect(page.locator(".tree-head")).to_contain_text("1 done")
        gate.touch()
        expect(page.locator(".tree-head")).to_contain_text("2 done")
        expect(page.locator(".page-tree .bar.completed")).to_have_count(2)
        page.go_back()
        expect(tree(page, batch).locator(".mark svg")).to_have_attribute("aria-label", "done")
        # It is the page that was loaded at first.
        assert page.evaluate("window.isSame") is True


def test_a_page_goes_on_with_the_next_engine_after_a_kill(made: House, browser: Browser):
    with page_in(browser, expected=ENGINE_GONE) as page:
        with made.pump() as pump:
            first = pump.json("claude_run_async", task="Before the kill")["jobId"]
            pump.settled(first)
        open_web(page, made)
        expect(tree(page, first)).to_contain_text("Before the kill")
        page.evaluate("window.isSame = true")
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        expect(page.locator("#engine")).to_have_text("reconnecting …")
        # What was there stays readable.
        expect(tree(page, first)).to_be_visible()
        made.start_engine()
        expect(page.locator("#engine")).to_have_text("live")
        with made.pump() as pump:
            second = pump.json("claude_run_async", task="After the kill")["jobId"]
        expect(tree(page, second)).to_contain_text("After the kill")
        expect(tree(page, first)).to_be_visible()
        assert page.evaluate("window.isSame") is True


def test_a_page_whose_engine_was_stopped_says_how_to_start_it_and_goes_on_then(made: House, browser: Browser):
    with page_in(browser, expected=ENGINE_GONE) as page:
        open_web(page, made)
        assert made.run("engine", "stop").returncode == 0
        made.wait_for_the_engine_to_go()
        notice = page.locator("#notice")
        expect(notice).to_contain_text("The engine has stopped, or the page was ended. Jobs go on.")
        expect(notice).to_contain_text("claude-jobs web")
        made.start_engine()
        expect(page.locator("#engine")).to_have_text("live")
        expect(notice).to_be_hidden()


def test_a_page_that_was_shut_out_says_how_to_get_in_again(made: House, browser: Browser):
    refused = (*ENGINE_GONE, "Failed to load resource: the server responded with a status of 401")
    with page_in(browser, expected=refused) as page:
        open_web(page, made)
        page.context.clear_cookies()
        # The stream that is open was let in; the next one is not.
        made.kill_engine()
        made.wait_for_the_engine_to_go()
        made.start_engine()
        expect(page.locator("#notice")).to_contain_text("Open it again with: claude-jobs web")
        expect(page.locator("#engine")).to_have_text("no access")


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_tasks_are_shown_as_texts_and_execute_nothing(made: House, person: Pump, browser: Browser, width: int):
    started = person.json("claude_run_batch_async", tasks=list(HOSTILE))
    person.settled(started["jobIds"][-1])
    with page_in(browser, width=width) as page:
        open_web(page, made)
        expect(tree(page, started["batchId"])).to_contain_text("<script>window.owned=")
        assert not scrolls_sideways(page)
        go(page, f"#/tree/{started['batchId']}")
        for identity in started["jobIds"]:
            expect(job(page, identity)).to_be_visible()
        texts = page.locator(".page-tree .name").all_text_contents()
        assert HOSTILE[0] in texts
        assert any("red a link" in text for text in texts)
        assert not any(re.search("[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text) for text in texts)
        assert not scrolls_sideways(page)
        heights = page.locator(".page-tree [role=row]").evaluate_all("rows => rows.map((row) => row.offsetHeight)")
        assert len(set(heights)) == 1
        go(page, f"#/tree/{started['batchId']}/{started['jobIds'][0]}")
        expect(page.locator(".pane")).to_contain_text("onerror")
        assert not scrolls_sideways(page)
        assert page.locator("main :is(script, img, iframe, object, embed, form)").count() == 0
        assert page.evaluate("window.owned") is None


def test_trees_are_filtered_by_words_status_and_cost(made: House, person: Pump, browser: Browser):
    dear = person.json("claude_run_async", task="Dear and done stub:cost=3.5")["jobId"]
    failed = person.json("claude_run_async", task="Cheap and failed stub:exit=1")["jobId"]
    for identity in (dear, failed):
        person.settled(identity)
    with page_in(browser) as page:
        open_web(page, made)
        expect(tree(page, dear)).to_be_visible()
        page.keyboard.press("/")
        for text, fits in (("cost>3", dear), ("status:failed cheap", failed), ("dear age<1h dir:/work", dear)):
            page.locator("#filter").fill(text)
            expect(tree(page, dear if fits == failed else failed)).to_have_count(0)
            expect(tree(page, fits)).to_be_visible()
        page.keyboard.press("Escape")
        expect(tree(page, dear)).to_be_visible()
        expect(tree(page, failed)).to_be_visible()
