"""A tree with jobs in every state, in a real browser: the picture at a glance, the keys, a job that comes and ends."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import browser, open_web, page_in, scrolls_sideways
from tests.support.review_scene import (
    API,
    ASKED,
    AUTH,
    BROKEN,
    OAUTH,
    PASSWORD,
    ROOT,
    SESSION,
    SUMMARY,
    TEMPLATES,
    TOKENS,
    UPLOAD,
    Scene,
    review_scene,
)

pytestmark = pytest.mark.timeout(300)

__all__ = ("browser",)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with review_scene() as made:
        yield made


@pytest.fixture
def page(scene: Scene, browser: Browser) -> Iterator[Page]:
    with page_in(browser) as page:
        open_web(page, scene.made, f"#/tree/{scene.ids[ROOT]}")
        row(page, scene, SUMMARY).wait_for()
        yield page


def row(page: Page, scene: Scene, task: str):
    return page.locator(f"#job-{scene.ids[task]}")


SAID = {
    ROOT: "waits for 4 of 6 jobs",
    AUTH: "waits for 2 of 4 jobs",
    TOKENS: "2 findings",
    PASSWORD: "no findings",
    OAUTH: "Grep: redirect_uri",
    SESSION: f"asks: Bash: {ASKED}",
    API: "4 findings in 2 files",
    BROKEN: "Prompt is too long",
    UPLOAD: "Read: web/upload.py",
    TEMPLATES: "waits for a slot",
    SUMMARY: f"waits for {UPLOAD}, {TEMPLATES}",
}


def test_it_is_plain_which_job_runs_which_tool_which_waits_for_what_and_what_it_cost(page: Page, scene: Scene):
    for task, said in SAID.items():
        expect(row(page, scene, task).locator(".now")).to_contain_text(said)
    costs = {TOKENS: "$0.19", BROKEN: "$0.31", API: "$0.66", SUMMARY: "\N{EN DASH}"}
    for task, cost in costs.items():
        assert row(page, scene, task).locator(".cost").text_content() == cost
    head = page.locator(".tree-head")
    for words in ("1 asks you", "2 running", "3 waiting", "1 queued", "3 done", "1 failed", "of $5.00"):
        expect(head).to_contain_text(words)
    assert page.title() == f"(1) {ROOT} · claude-jobs"


def test_each_job_has_bars_for_its_time_and_a_line_for_now(page: Page, scene: Scene):
    for task, bars in (
        (TOKENS, ".bar.working.completed"),
        (BROKEN, ".bar.working.failed"),
        (OAUTH, ".bar.working.running"),
        (TEMPLATES, ".bar.queued"),
        (AUTH, ".bar.children.running"),
        (SESSION, ".bar.permission.running"),
    ):
        expect(row(page, scene, task).locator(bars)).to_have_count(1)
    expect(page.locator(".plot-now")).to_be_visible()
    row(page, scene, BROKEN).locator(".bar.failed").hover()
    expect(page.locator(".tip")).to_contain_text("failed: prompt too long")


def test_nested_jobs_fold_and_open_in_place_by_keys(page: Page, scene: Scene):
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    expect(row(page, scene, OAUTH)).to_have_count(0)
    expect(row(page, scene, AUTH)).to_contain_text("4 jobs")
    page.keyboard.press("ArrowRight")
    expect(row(page, scene, OAUTH)).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator("dialog")).to_contain_text(SESSION)
    page.keyboard.press("Escape")
    expect(row(page, scene, SESSION)).to_have_attribute("aria-selected", "true")


@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read_on_their_background(scene: Scene, browser: Browser, *, dark: bool):
    with page_in(browser, dark=dark) as page:
        open_web(page, scene.made, f"#/tree/{scene.ids[ROOT]}")
        row(page, scene, SUMMARY).wait_for()
        faint = page.evaluate(CONTRAST)
    assert faint == []


def test_a_phone_shows_all_of_a_row_without_scrolling_sideways(scene: Scene, browser: Browser):
    with page_in(browser, width=390, height=844) as page:
        open_web(page, scene.made, f"#/tree/{scene.ids[ROOT]}")
        shown = row(page, scene, TOKENS)
        expect(shown.locator(".now")).to_be_visible()
        expect(shown.locator(".bar").last).to_be_visible()
        assert not scrolls_sideways(page)
        page.goto(page.url.split("#", maxsplit=1)[0])
        expect(page.locator(f"#tree-{scene.ids[ROOT]}")).to_contain_text(ROOT)
        assert not scrolls_sideways(page)


CONTRAST = """() => {
  // The parts of a colour as numbers, drawn over what is behind it.
  const parts = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const over = ([r, g, b, a = 1], back) => [r, g, b].map((one, at) => one * a + back[at] * (1 - a));
  const backOf = (element) => {
    if (!element) return [255, 255, 255];
    const own = parts(getComputedStyle(element).backgroundColor);
    return own[3] === undefined ? own : over(own, backOf(element.parentElement));
  };
  const linear = (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((one) => linear(one / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!says || !element.checkVisibility() || element.closest(".sr-only, :disabled, svg")) continue;
    const back = backOf(element);
    const text = over(parts(getComputedStyle(element).color), back);
    const [high, low] = [light(text), light(back)].sort((one, other) => other - one);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faint.push(`${element.className}: ${element.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return faint;
}"""
"""Returns the texts whose contrast is below what WCAG 2.2 wants (1.4.3, level AA)."""
