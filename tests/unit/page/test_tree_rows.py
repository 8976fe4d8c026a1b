"""The rows of a tree in a browser: what they show, how few of them there are, the keys, and that nothing moves."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import scrolls_sideways
from tests.unit.page.played_engine import NOW, job, shown

FAMILY = [
    job("jroot", status="running", waitingFor="children", children=3, costUsd=0.1, key="Review src/"),
    job("jauth", status="running", waitingFor="children", children=2, costUsd=0.2, key="auth/"),
    job("jtok", parentJobId="jauth", depth=2, costUsd=0.3, key="tokens.py", excerpt="2 findings"),
    job("jses", parentJobId="jauth", depth=2, status="running", key="session.py", waitingFor="permission",
        waitingBecause="Bash git log"),
    job("jdb", status="failed", key="migrate.py", error="Prompt is too long", costUsd=0.4),
    job("jsum", status="queued", key="summary", waitingFor="siblings", dependsOn=["jauth", "jdb"]),
]  # fmt: skip


NONE = "\N{EN DASH}"


def names(page: Page) -> list[str]:
    """Return the names of the rows that are shown, from top to bottom."""
    script = """rows => rows
      .filter((row) => row.id)
      .sort((one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top)
      .map((row) => row.querySelector(".name").textContent)"""
    found: list[str] = page.locator(".page-tree [role=row]").evaluate_all(script)
    return found


def row(page: Page, identity: str) -> Any:
    return page.locator(f"#job-{identity}")


def cells(page: Page, identity: str) -> list[str]:
    """Return what the cells of a job say."""
    found = row(page, identity)
    return [found.locator(cell).text_content() or "" for cell in (".name", ".now", ".cost", ".time")]


def test_each_job_has_its_place_what_it_does_its_cost_and_its_time(browser: Browser):
    with shown(browser, FAMILY) as (page, _):
        row(page, "jroot").wait_for()
        assert names(page) == ["Review src/", "auth/", "tokens.py", "session.py", "migrate.py", "summary"]
        # The cost of a parent is that of all below it, too.
        assert cells(page, "jroot") == ["Review src/", "waits for 2 of 3 jobs", "$1.00", "10:00"]
        assert cells(page, "jauth")[:3] == ["auth/", "waits for 1 of 2 jobs", "$0.50"]
        assert cells(page, "jtok") == ["tokens.py", "2 findings", "$0.30", "10s"]
        assert cells(page, "jses")[1] == "asks: Bash git log"
        assert cells(page, "jdb")[1] == "Prompt is too long"
        # Of the two that it depends on, one is over.
        assert cells(page, "jsum") == ["summary", "waits for auth/", NONE, NONE]
        levels = [row(page, identity).get_attribute("aria-level") for identity in ("jroot", "jauth", "jtok", "jdb")]
        assert levels == ["1", "2", "3", "2"]
        # Symbols have words for those who do not see them.
        assert row(page, "jses").locator("svg").get_attribute("aria-label") == "asks you"
        assert page.title() == "(1) Task of jroot · claude-jobs"


def test_the_heading_counts_the_jobs_and_says_time_cost_of_the_budget_and_tokens(browser: Browser):
    with shown(browser, FAMILY) as (page, engine):
        engine.change(maxBudgetUsd=5)
        head = page.locator(".tree-head")
        expect(head).to_contain_text("$1.00 of $5.00")
        for words in ("1 asks you", "3 waiting", "1 done", "1 failed", "10:00", "1.1k tokens"):
            expect(head).to_contain_text(words)


def test_counts_of_jobs_read_as_words(browser: Browser):
    two = [
        job("jroot", status="running", waitingFor="children", children=2),
        *(job(f"j{at}", status="running", waitingFor="permission", waitingBecause="Bash ls") for at in range(2)),
    ]
    with shown(browser, two) as (page, engine):
        expect(page.locator(".tree-head")).to_contain_text("2 ask you")
        engine.change(job("j0", status="running", order=1.0))
        expect(page.locator(".tree-head")).to_contain_text("1 asks you")


def test_a_pane_that_is_wide_is_wide_in_the_next_tree_too(browser: Browser):
    with shown(browser, FAMILY, where="#/tree/jroot/jdb", width=1400) as (page, _):
        page.get_by_role("button", name="Wide, for reading").click()
        wide = page.locator(".pane").bounding_box()
        page.get_by_role("link", name="Trees", exact=True).click()
        page.locator("#tree-jroot").click()
        row(page, "jdb").click()
        assert page.get_by_role("button", name="Wide, for reading").get_attribute("aria-pressed") == "true"
        assert page.locator(".pane").bounding_box() == wide


def test_a_fold_hides_what_is_below_and_counts_it(browser: Browser):
    with shown(browser, FAMILY) as (page, _):
        row(page, "jauth").locator(".twist").click()
        assert names(page) == ["Review src/", "auth/", "migrate.py", "summary"]
        assert row(page, "jauth").get_attribute("aria-expanded") == "false"
        expect(row(page, "jauth").locator(".more")).to_have_text("2 jobs")
        # Nothing was opened beside the rows.
        assert page.evaluate("location.hash") == "#/tree/jroot"
        row(page, "jauth").locator(".twist").click()
        assert len(names(page)) == 6


def test_keys_walk_the_rows_fold_open_a_job_and_close_it(browser: Browser):
    with shown(browser, FAMILY) as (page, _):
        row(page, "jroot").wait_for()

        def selected() -> str | None:
            return page.locator("[role=treegrid]").get_attribute("aria-activedescendant")

        def press(*keys: str) -> str | None:
            for key in keys:
                page.keyboard.press(key)
            return selected()

        assert selected() == "job-jroot"
        assert press("ArrowDown", "ArrowDown") == "job-jtok"
        assert press("ArrowLeft") == "job-jauth"
        assert press("ArrowLeft") == "job-jauth"
        assert row(page, "jauth").get_attribute("aria-expanded") == "false"
        assert press("l", "l") == "job-jtok"
        assert press("End") == "job-jsum"
        assert press("g") == "job-jroot"
        assert press("Space", "ArrowDown") == "job-jroot"
        assert press("ArrowRight", "ArrowDown") == "job-jauth"
        press("Enter")
        expect(page.locator(".pane")).to_be_visible()
        assert page.evaluate("location.hash") == "#/tree/jroot/jauth"
        press("ArrowDown")
        page.wait_for_url("**/#/tree/jroot/jtok")
        press("Escape")
        expect(page.locator(".pane")).to_be_hidden()
        assert page.evaluate("location.hash") == "#/tree/jroot"
        press("?")
        expect(page.locator("dialog")).to_contain_text("kill a job and all below it; asks first")
        press("Escape")
        expect(page.locator("dialog")).to_have_count(0)


def test_one_step_back_closes_a_job_that_was_opened_and_the_next_leaves_the_tree(browser: Browser):
    with shown(browser, FAMILY, where="#/") as (page, _):
        page.locator("#tree-jroot").click()
        row(page, "jtok").click()
        row(page, "jdb").click()
        assert page.evaluate("location.hash") == "#/tree/jroot/jdb"
        page.go_back()
        expect(page.locator(".pane")).to_be_hidden()
        assert page.evaluate("location.hash") == "#/tree/jroot"
        page.go_back()
        expect(page.locator("#tree-jroot")).to_be_visible()


def test_the_filter_leaves_what_fits_and_what_is_above_it_and_escape_clears_it(browser: Browser):
    with shown(browser, FAMILY) as (page, _):
        row(page, "jroot").wait_for()
        page.keyboard.press("/")
        page.keyboard.type("status:asking")
        expect(row(page, "jdb")).to_have_count(0)
        assert names(page) == ["Review src/", "auth/", "session.py"]
        page.keyboard.press("Enter")
        # The keys go on with the first one that fits.
        assert page.locator("[role=treegrid]").get_attribute("aria-activedescendant") == "job-jses"
        page.keyboard.press("Escape")
        assert len(names(page)) == 6
        assert page.locator("#filter").input_value() == ""
        page.keyboard.press("/")
        page.keyboard.type("nothing-like-this")
        told = page.locator(".grid-ask")
        expect(told).to_contain_text("No job of this tree matches")
        # Where the rows would begin, so that it is seen.
        place, head = told.bounding_box(), page.locator(".grid-head").bounding_box()
        assert place is not None
        assert head is not None
        assert 0 < place["y"] - head["y"] < 150


def test_rows_that_come_and_change_move_neither_the_selection_nor_what_is_read(browser: Browser):
    rows = [job("jroot", status="running"), *(job(f"j{at}", at=at) for at in range(180))]
    with shown(browser, rows, height=500) as (page, engine):
        row(page, "jroot").wait_for()
        page.locator(".page-tree .rows").evaluate("rows => { rows.scrollTop = 1000; }")
        expect(row(page, "j35")).to_be_visible()
        row(page, "j35").click()
        page.keyboard.press("Escape")
        before = row(page, "j35").bounding_box()
        # New ones in front of it: nested below one that is above what is seen.
        engine.change(*(job(f"n{at}", parentJobId="j2", depth=2, order=3.0 + at / 100) for at in range(5)))
        expect(page.locator("[role=treegrid]")).to_have_attribute("aria-rowcount", "186")
        assert row(page, "j35").bounding_box() == before
        assert row(page, "j35").get_attribute("aria-selected") == "true"


def test_ten_thousand_jobs_are_asked_for_and_then_scroll_in_few_rows(browser: Browser):
    rows = [job("jroot", children=9999), *(job(f"j{at}", at=at / 20) for at in range(9999))]
    with shown(browser, rows) as (page, engine):
        ask = page.locator(".grid-ask")
        expect(ask).to_contain_text("This tree has 10,000 jobs.")
        assert names(page) == ["Task of jroot"]
        assert [query.get("parents") for query in engine.asked] == [None, ""]
        ask.get_by_role("button", name="Show the 9,999 jobs right below").click()
        expect(page.locator("[role=treegrid]")).to_have_attribute("aria-rowcount", "10000")
        scroller = page.locator(".page-tree .rows")
        slowest = scroller.evaluate("""async rows => {
          const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
          let slowest = 0;
          for (let at = 0; at < 60; at += 1) {
            rows.scrollTop += 5000;
            const began = performance.now();
            await frame();
            await frame();
            slowest = Math.max(slowest, performance.now() - began);
            const top = rows.getBoundingClientRect().top;
            const seen = document.elementFromPoint(100, top + 200).closest("[role=row]");
            if (!seen) throw new Error("no row at " + rows.scrollTop);
          }
          return slowest;
        }""")
        assert page.locator(".page-tree [role=row]").count() < 60
        page.keyboard.press("End")
        expect(row(page, "j9998")).to_be_visible()
        assert row(page, "j9998").get_attribute("aria-rowindex") == "10000"
        # Two frames and what they draw; a page that drew all rows would take seconds.
        assert slowest < 1000


def test_jobs_below_one_are_loaded_when_it_is_opened_in_a_large_tree(browser: Browser):
    many = [job(f"k{at}", parentJobId="jwide", depth=2) for at in range(2100)]
    below = {"counts": {"completed": 2100}, "costUsd": 21.0, "asking": 0}
    few = [job("jroot", children=1), job("jwide", children=2100, below=below)]
    with shown(browser, [*few, *many]) as (page, engine):
        # The few right below the root are there at once.
        expect(row(page, "jwide").locator(".more")).to_have_text("2,100 jobs")
        assert cells(page, "jwide")[2] == "$21.00"
        row(page, "jwide").click()
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        expect(page.locator("dialog")).to_contain_text("Show 2,100 jobs?")
        page.keyboard.press("Escape")
        assert "jroot,jwide" not in [query.get("parents") for query in engine.asked]
        page.keyboard.press("ArrowRight")
        page.get_by_role("button", name="Show them").click()
        expect(row(page, "k5")).to_be_visible()
        assert engine.asked[-1]["parents"] == "jroot,jwide"


HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "javascript:alert(3)",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil\x07link\x1b]8;;\x07",
    "abc\u202etxt.exe\u202c \u2066x",
    "L" * 200,
    "one\ntwo\r\n\tthree",
    '"><svg onload=alert(4)>',
    "a" + "\u0301" * 190,
    "漢字" * 90,
    "{{constructor.constructor('alert(5)')()}}",
]


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_texts_are_texts_and_break_no_layout(browser: Browser, width: int):
    rows = [job("jroot", task=HOSTILE[0], children=len(HOSTILE))]
    for number, text in enumerate(HOSTILE):
        said: dict[str, Any] = {
            "task": text,
            "key": text,
            "excerpt": text,
            "error": text,
            "activity": text,
            "reason": text,
        }
        rows.append(job(f"j{number}", status=("completed", "failed", "running")[number % 3], **said))
    with shown(browser, rows, width=width) as (page, _):
        row(page, "j9").wait_for()
        assert page.locator(".page-tree :is(script, img, iframe, object, a:not([href^='#']))").count() == 0
        heights = page.locator(".page-tree [role=row]").evaluate_all("rows => rows.map((row) => row.offsetHeight)")
        assert len(set(heights)) == 1
        assert not scrolls_sideways(page)
        texts = names(page)
        assert HOSTILE[0] in texts
        assert "red link" in texts
        assert "abctxt.exe x" in texts
        assert not any(re.search("[\x00-\x1f\u202a-\u202e\u2066-\u2069]", text) for text in texts)
        edges = page.locator(".page-tree [role=row] .cost").evaluate_all(
            "cells => cells.map((cell) => Math.round(cell.getBoundingClientRect().right))"
        )
        assert len(set(edges)) == 1


def test_a_bar_tells_attempt_times_and_reason_when_pointed_at(browser: Browser):
    began = NOW - 600
    attempts = [
        {"number": 1, "from": began + 60, "to": began + 200, "status": "queued", "reason": "overloaded"},
        {"number": 2, "from": began + 220},
    ]
    one = job("jroot", status="running", attempt=2, attempts=attempts)
    with shown(browser, [one]) as (page, _):
        failed = row(page, "jroot").locator(".bar.failed")
        failed.hover()
        tip = page.locator(".tip")
        expect(tip).to_contain_text("ran 2:20")
        expect(tip).to_contain_text(f"1:00 {NONE} 3:20")
        expect(tip).to_contain_text("attempt 1 · failed: overloaded")
        row(page, "jroot").locator(".bar.working.running").hover()
        expect(tip).to_contain_text("attempt 2")
        row(page, "jroot").locator(".name").hover()
        expect(tip).to_be_hidden()


def test_the_timeline_zooms_by_a_drag_and_by_keys_and_fits_again(browser: Browser):
    with shown(browser, FAMILY) as (page, _):
        row(page, "jroot").wait_for()

        def ticks() -> list[str]:
            return page.locator(".axis .tick").all_text_contents()

        fitted = ticks()
        axis = page.locator(".axis").bounding_box()
        assert axis is not None
        y = axis["y"] + 60
        page.mouse.move(axis["x"] + 50, y)
        page.mouse.down()
        page.mouse.move(axis["x"] + 120, y, steps=4)
        page.mouse.up()
        assert len(set(ticks()) - set(fitted)) > 1
        # The drag opened no job.
        assert page.evaluate("location.hash") == "#/tree/jroot"
        page.keyboard.press("0")
        assert ticks() == fitted
        page.keyboard.press("+")
        page.keyboard.press("+")
        assert ticks() != fitted
        page.get_by_role("button", name="Show all of the time").click()
        assert ticks() == fitted


def test_the_critical_path_has_a_line_and_can_be_shown_alone(browser: Browser):
    rows = [job("jroot", lasted=100, children=2), job("jfast", lasted=20), job("jslow", at=1, lasted=90)]
    with shown(browser, rows) as (page, _):
        expect(row(page, "jslow").locator(".path")).to_have_count(1)
        expect(row(page, "jfast").locator(".path")).to_have_count(0)
        page.keyboard.press("c")
        faded = row(page, "jfast").locator(".bars").evaluate("bars => getComputedStyle(bars).opacity")
        assert float(faded) < 0.5
        assert page.get_by_role("button", name="Critical path").get_attribute("aria-pressed") == "true"


def test_a_tree_on_a_phone_has_no_sideways_scroll_and_a_job_takes_the_whole_width(browser: Browser):
    with shown(browser, FAMILY, width=390, height=844, dark=True) as (page, _):
        row(page, "jses").wait_for()
        assert not scrolls_sideways(page)
        row(page, "jses").click()
        pane = page.locator(".pane").bounding_box()
        assert pane is not None
        assert pane["width"] == 390
        assert not scrolls_sideways(page)
