"""The page of a report in a real browser: it runs nothing, loads nothing, and can be read on any screen."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from server.report.document import document_of
from server.report.html_page import html_page
from tests.e2e.test_web_scene import CONTRAST
from tests.support.browser import browser, page_in, scrolls_sideways
from tests.unit.report.sample import FINDINGS, Sample, ended, hostile, large, review

pytestmark = pytest.mark.timeout(300)

__all__ = ("browser",)


@contextmanager
def opened(browser: Browser, path: Path, sample: Sample, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """Open the page of a tree from a file, as the person does to whom it was sent; nothing else may be asked for."""
    path.write_text("".join(html_page(document_of(sample.pages(), (), with_answers=True))))
    asked: list[str] = []
    with page_in(browser, width=width, dark=dark) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        yield page
        assert asked == [path.as_uri()]


def answered() -> Sample:
    sample = Sample()
    root = sample.job("all", answer=FINDINGS, **ended(0.1, 0, 1, 60))
    sample.job("part", root, answer=FINDINGS, **ended(0.1, 0, 1, 60))
    return sample


@pytest.mark.parametrize("make", [review, hostile, answered])
def test_a_page_runs_nothing_and_asks_for_nothing_however_much_of_it_is_opened(
    browser: Browser, tmp_path: Path, make: Callable[[], Sample]
):
    with opened(browser, tmp_path / "tree.html", make()) as page:
        for at in range(page.locator("summary").count()):
            summary = page.locator("summary").nth(at)
            if summary.is_visible() and not summary.evaluate("one => one.parentElement.open"):
                summary.click()
        assert page.locator("script, img, iframe, a, [style], [onerror]").count() == 0
        # Its own styles are allowed, or nothing would be in columns.
        assert page.locator(".line").first.evaluate("one => getComputedStyle(one).display") == "grid"
        assert page.evaluate("document.scripts.length") == 0


def test_a_script_that_were_in_the_page_after_all_would_not_run(browser: Browser, tmp_path: Path):
    path = tmp_path / "tree.html"
    text = "".join(html_page(document_of(review().pages(), (), with_answers=True)))
    evil = (
        '<script>document.title = "run"</script><img src="x" onerror="document.title = \'run\'"><p style="color: red">'
    )
    path.write_text(text.replace("<main>", f"<main>{evil}"))
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        expect(page).to_have_title(re.compile("^Review src/"))
        assert page.locator("p[style]").evaluate("one => getComputedStyle(one).color") != "rgb(255, 0, 0)"
    finally:
        context.close()


def test_a_line_opens_with_the_keys_and_shows_the_answer(browser: Browser, tmp_path: Path):
    with opened(browser, tmp_path / "tree.html", review()) as page:
        line = page.locator("summary.line", has_text="auth/tokens.py")
        answer = page.get_by_text("A token is written to the log")
        expect(answer).to_be_hidden()
        line.focus()
        page.keyboard.press("Enter")
        expect(answer).to_be_visible()
        page.keyboard.press("Enter")
        expect(answer).to_be_hidden()


def test_jobs_below_one_are_folded_and_what_is_about_it_is_opened_by_itself(browser: Browser, tmp_path: Path):
    with opened(browser, tmp_path / "tree.html", review()) as page:
        api = page.locator("summary.line", has_text=re.compile(r"^api/\s*4 jobs")).locator("xpath=../..")
        child = page.locator("summary.line", has_text="api/users.py")
        expect(child).to_be_visible()
        api.locator("> details > .about > summary").click()
        expect(api.locator("> details > .about h3", has_text="Attempts")).to_be_visible()
        expect(child).to_be_visible()
        api.locator("> details > summary").click()
        expect(child).to_be_hidden()


def test_bars_are_where_the_times_of_their_jobs_are(browser: Browser, tmp_path: Path):
    with opened(browser, tmp_path / "tree.html", review()) as page:

        def bar(name: str, kind: str) -> tuple[float, float]:
            rect = page.locator("summary.line", has_text=name).locator(f".bar .is-{kind}").last.bounding_box()
            line = page.locator("summary.line", has_text=name).locator(".bar").bounding_box()
            assert rect is not None
            assert line is not None
            return (rect["x"] - line["x"]) / line["width"], (rect["x"] + rect["width"] - line["x"]) / line["width"]

        assert bar("auth/password.py", "completed") == pytest.approx((72 / 252, 124 / 252), abs=0.01)
        assert bar("auth/oauth.py", "running") == pytest.approx((126 / 252, 1), abs=0.01)
        assert bar("auth/session.py", "wait") == pytest.approx((232 / 252, 1), abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_text_can_be_read_and_nothing_is_wider_than_the_screen(
    browser: Browser, tmp_path: Path, dark: bool, width: int
):
    with opened(browser, tmp_path / "tree.html", review(), width=width, dark=dark) as page:
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert page.evaluate(CONTRAST) == []
        assert not scrolls_sideways(page)
        page.emulate_media(media="print")
        assert page.evaluate(CONTRAST) == []
    with opened(browser, tmp_path / "hostile.html", hostile(), width=width, dark=dark) as page:
        assert not scrolls_sideways(page)


def test_each_job_is_told_to_those_who_do_not_see_the_page(browser: Browser, tmp_path: Path):
    with opened(browser, tmp_path / "tree.html", review()) as page:
        line = page.locator("summary.line", has_text="auth/oauth.py")
        expect(line.get_by_role("img", name="running")).to_be_visible()
        expect(
            line.get_by_role("img", name="queued 6s; ran 40s, failed: overloaded; queued 14s; ran 2:06")
        ).to_be_visible()
        expect(page.get_by_role("table")).to_have_count(2)
        expect(page.get_by_role("heading", level=1)).to_have_text("Review src/ for security problems")


def test_a_page_of_ten_thousand_jobs_is_drawn_and_scrolls(browser: Browser, tmp_path: Path):
    with opened(browser, tmp_path / "large.html", large(10_000)) as page:
        expect(page.locator("h2", has_text="10,000 jobs")).to_be_visible()
        page.keyboard.press("End")
        expect(page.locator("footer")).to_be_in_viewport()
