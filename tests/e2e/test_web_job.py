"""The selected job in the page: a real browser before a whole engine."""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import browser, go, open_web, page_in, scrolls_sideways
from tests.support.engines import House, Pump, house
from tests.support.review_scene import AUTH, BROKEN, OAUTH, ROOT, TOKENS, Scene, review_scene
from tests.support.spoken import Spoken

__all__ = ("browser",)

pytestmark = pytest.mark.timeout(300)

SECONDS = 30.0
MOST = 6500
"""Entries on the page: 2,000, and a page of the shortest."""
KEY = "sk-ant-api03-" + "Zx9_kQ4v" * 12
"""In the form of a key; nobody's."""

OUT_OF_SIGHT = "\u202e\u2066\u200b\u200f\x1b[31m\x1b]52;c;aGVsbG8=\x07\x9b2J"
MARKUP = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 2'>",
    "<svg onload='window.ran = 3'><a href='javascript:window.ran = 4'>click</a></svg>",
    "<iframe srcdoc='<script>parent.ran = 5</script>'></iframe><style>*{display:none}</style>",
    "[click](javascript:window.ran=6) </pre></code></div>",
)
HOSTILE = f"{''.join(MARKUP)}{OUT_OF_SIGHT}end"

expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with review_scene() as made:
        yield made


@contextmanager
def speaking(**environ: str) -> Iterator[tuple[House, Spoken, Pump]]:
    """Make a house whose jobs say what the test has them say."""
    with house(**environ) as made:
        spoken = Spoken(made)
        with made.pump({"CLAUDE_JOBS_CLI": str(spoken.cli)}) as person:
            yield made, spoken, person


def pane_of(page: Page, job_id: str, root_id: str = "") -> Locator:
    """Open a job beside its tree."""
    go(page, f"#/tree/{root_id or job_id}/{job_id}")
    pane = page.locator(".job")
    expect(pane.locator(".job-state")).not_to_have_text("Reading …")
    return pane


def fact(pane: Locator, name: str) -> Locator:
    return pane.locator(f"dt:text-is('{name}') + dd")


def test_a_job_opens_and_its_transcript_grows_while_it_runs(browser: Browser):
    with speaking() as (made, spoken, person), page_in(browser) as page:
        spoken.begin()
        spoken.says("I look at the parser first.")
        job_id = person.json("claude_run_async", task="Review the parser")["jobId"]
        open_web(page, made)
        pane = pane_of(page, job_id)
        expect(pane.get_by_role("heading", name="Review the parser")).to_be_visible()
        expect(pane.locator(".job-state")).to_have_text("running")
        expect(pane.locator(".box.is-task")).to_contain_text("Review the parser")
        expect(pane.locator(".transcript")).to_contain_text("I look at the parser first.")
        # The task is there once.
        expect(pane.locator(".entry.is-task")).to_have_count(0)

        spoken.calls("t1", "Bash", {"command": "pytest -x", "description": "Run the tests"})
        call = pane.locator(".call", has_text="Bash(pytest -x)")
        expect(call).to_be_visible()
        expect(fact(pane, "Now")).to_contain_text("Bash: pytest -x")
        spoken.returns("t1", "collected 3 items\n...\n3 passed")
        expect(call.locator("summary small")).to_have_text("3 lines")
        expect(call.get_by_text("collected 3 items")).to_have_count(0)
        call.locator("summary").click()
        expect(call.get_by_text("collected 3 items")).to_be_visible()
        expect(call).to_contain_text("Run the tests")

        spoken.thinks("The lexer is the weak part.")
        thought = pane.locator(".is-thinking")
        expect(thought).to_contain_text("Thinking")
        spoken.returns("t9", "no such file", is_error=True)
        spoken.says("It holds:\n\n```python\nassert parse('') is None\n```\n\nAs `parse` says: **sound**.")
        expect(pane.locator("pre.code")).to_have_text("assert parse('') is None")
        expect(pane.locator("code.inline")).to_have_text("parse")
        expect(pane.locator("strong")).to_have_text("sound")
        spoken.ends("The parser is sound.", cost=0.25)
        expect(pane.locator(".job-state")).to_have_text("done")
        expect(pane.locator(".box.is-good")).to_contain_text("The parser is sound.")
        expect(fact(pane, "Cost")).to_contain_text("$0.25")
        expect(fact(pane, "Tokens")).to_contain_text("10k in, 500 out")
        expect(pane.get_by_role("button", name="Copy resume line")).to_be_visible()


def test_each_attempt_has_its_own_transcript_and_says_why_it_ended(browser: Browser):
    with speaking() as (made, spoken, person), page_in(browser) as page:
        spoken.begin(1)
        spoken.says("These are the first words.", 1)
        spoken.ends("Prompt is too long", 1, is_error=True, stderr="a warning on the side")
        spoken.begin(2)
        spoken.says("These are the second words.", 2)
        job_id = person.json("claude_run_async", task="Read the large file")["jobId"]
        assert person.settled(job_id)["status"] == "failed"
        open_web(page, made)
        pane = pane_of(page, job_id)
        expect(pane.locator(".job-state")).to_have_text("failed · prompt too long")
        expect(pane.locator(".box.is-bad")).to_contain_text("Prompt is too long")
        expect(pane.locator(".transcript")).to_contain_text("These are the first words.")
        expect(pane.locator(".entry.is-stderr")).to_contain_text("a warning on the side")

        person.json("claude_retry", jobId=job_id)
        expect(pane.locator(".job-state")).to_have_text("running · attempt 2 · again after prompt too long")
        expect(pane.locator(".transcript")).to_contain_text("These are the second words.")
        expect(pane.locator(".transcript")).not_to_contain_text("These are the first words.")
        attempts = pane.locator(".attempts").get_by_role("button")
        expect(attempts).to_have_count(2)
        expect(attempts.nth(0)).to_contain_text("prompt too long")
        attempts.nth(0).click()
        expect(attempts.nth(0)).to_have_attribute("aria-pressed", "true")
        expect(pane.locator(".transcript")).to_contain_text("These are the first words.")
        expect(pane.locator(".transcript")).not_to_contain_text("These are the second words.")


def test_a_hostile_transcript_executes_nothing(browser: Browser):
    with speaking() as (made, spoken, person), page_in(browser) as page:
        spoken.begin(model=f"claude{HOSTILE}")
        spoken.says(HOSTILE)
        spoken.says(f"```{HOSTILE}\n{HOSTILE}\n```\n`{MARKUP[0]}`")
        spoken.thinks(HOSTILE)
        spoken.calls(f"t1{HOSTILE}", f"Bash{HOSTILE}", {"command": HOSTILE, f"name{MARKUP[1]}": HOSTILE})
        spoken.returns(f"t1{HOSTILE}", f"{HOSTILE}\n{HOSTILE}")
        spoken.says(HOSTILE, parent_tool_use_id=f"t1{HOSTILE}")
        spoken.frame("system", subtype="informational", content=HOSTILE)
        spoken.frame("system", subtype="api_retry", error=HOSTILE, error_status=529)
        spoken.line(HOSTILE.replace("\n", " "))
        spoken.line("x" * 1_000_000 + MARKUP[1])
        spoken.ends(HOSTILE, is_error=True, stderr=HOSTILE)
        job_id = person.json("claude_run_async", task=f"{HOSTILE} task")["jobId"]
        person.settled(job_id)
        open_web(page, made)
        pane = pane_of(page, job_id)
        expect(pane.locator(".transcript")).to_contain_text("<script>window.ran = 1</script>")
        expect(pane.locator(".box.is-task")).to_contain_text("<img src=x onerror='window.ran = 2'>")
        for folded in pane.locator("details:not([open]) > summary").all():
            folded.click()
        for more in pane.get_by_role("button", name="Show all", exact=True).all():
            more.click()
        assert page.evaluate("window.ran") is None
        for tag in ("script", "img", "iframe", "style", "a", "form", "object", "embed", "link"):
            expect(pane.locator(tag)).to_have_count(0)
        assert pane.locator("[onerror], [onload], [style*='display']").count() == 0
        # Nothing turns the direction, hides or reaches a terminal.
        shown = str(page.evaluate("document.documentElement.textContent"))
        assert not set(shown) & set("\u202e\u2066\u200b\u200f\x1b\x9b\x07")
        assert "end" in shown
        # A line of a megabyte does not widen the page.
        assert not scrolls_sideways(page)
        assert pane.evaluate("one => one.scrollWidth <= one.clientWidth")


def test_a_hostile_request_shows_what_cannot_be_seen(browser: Browser):
    with review_scene() as scene, page_in(browser) as page:
        hidden = f"ls \u202e; rm -rf /\u2066 \u200b{MARKUP[1]}"
        asking = scene.status(OAUTH)
        assert asking["status"] == "running"
        with ExitStack() as stack:
            job = scene.pump_of(stack, OAUTH)
            job.send("tools/call", name="claude_permit", arguments={"tool_name": "Bash", "input": {"command": hidden}})
            open_web(page, scene.made)
            pane = pane_of(page, scene.ids[OAUTH], scene.ids[ROOT])
            asked = pane.locator(".asked")
            expect(asked).to_contain_text("ls U+202E; rm -rf /U+2066 U+200B<img src=x")
            expect(asked.locator("img")).to_have_count(0)
            assert page.evaluate("window.ran") is None


def test_secrets_are_not_shown(browser: Browser):
    answers: list[str] = []
    with speaking(ANTHROPIC_API_KEY=KEY) as (made, spoken, person), page_in(browser) as page:
        spoken.begin()
        spoken.says(f"The key is {KEY} and the rest.")
        spoken.calls("t1", "Bash", {"command": f"curl -H 'x-api-key: {KEY}' http://127.0.0.1/"})
        spoken.returns("t1", f"ANTHROPIC_API_KEY={KEY}\nsecond line")
        spoken.ends(f"It did not accept {KEY}.", is_error=True, stderr=f"stderr {KEY}")
        job_id = person.json("claude_run_async", task="Print the environment")["jobId"]
        person.settled(job_id)
        page.on("response", lambda response: answers.append(response.url))
        open_web(page, made)
        pane = pane_of(page, job_id)
        expect(pane.locator(".transcript")).to_contain_text("The key is [redacted] and the rest.")
        pane.locator(".call summary").click()
        expect(pane.locator(".call")).to_contain_text("second line")
        expect(pane.locator(".box.is-bad")).to_contain_text("It did not accept [redacted].")
        expect(pane.locator(".entry.is-stderr")).to_contain_text("stderr [redacted]")
        assert KEY not in page.content()
        path = f"/api/jobs/{job_id}"
        told = page.evaluate(
            "paths => Promise.all(paths.map(path => fetch(path).then(answer => answer.text())))",
            [path, f"{path}/transcript?after=0"],
        )
        assert all(KEY[:30] not in text for text in told)
        assert any(url.endswith(path) for url in answers)


def test_a_long_transcript_opens_at_its_end_and_stays_usable(browser: Browser):
    with speaking() as (made, spoken, person), page_in(browser) as page:
        spoken.begin()
        for number in range(20_000):
            spoken.says(f"Line {number} of many.")
        job_id = person.json("claude_run_async", task="Say much")["jobId"]
        open_web(page, made)
        pane = pane_of(page, job_id)
        talk = pane.get_by_role("region", name="Conversation")
        expect(talk.get_by_text("Line 19999 of many.")).to_be_visible()
        entries = pane.locator(".entry")
        assert entries.count() < MOST
        began = time.monotonic()
        first = entries.first.inner_text()
        pane.get_by_role("button", name="Show earlier").click()
        expect(entries.first).not_to_have_text(first)
        assert int(re.findall(r"\d+", entries.first.inner_text())[0]) < int(re.findall(r"\d+", first)[0])
        for _ in range(8):
            before = entries.first.inner_text()
            pane.get_by_role("button", name="Show earlier").click()
            expect(entries.first).not_to_have_text(before)
        assert entries.count() < MOST
        print(f"nine times earlier: {time.monotonic() - began:.1f} s")
        # What is new does not move who reads further up.
        spoken.says("One more at the end.")
        below = pane.get_by_role("button", name="New below")
        expect(below).to_be_visible()
        below.click()
        expect(talk.get_by_text("One more at the end.")).to_be_visible()
        expect(below).to_be_hidden()
        spoken.says("And it follows again.")
        expect(talk.get_by_text("And it follows again.")).to_be_visible()


def test_who_scrolls_up_is_left_there_and_told_what_is_new(browser: Browser):
    with speaking() as (made, spoken, person), page_in(browser) as page:
        spoken.begin()
        for number in range(100):
            spoken.says(f"Line {number}.")
        job_id = person.json("claude_run_async", task="Say much")["jobId"]
        open_web(page, made)
        pane = pane_of(page, job_id)
        talk = pane.get_by_role("region", name="Conversation")
        expect(talk.get_by_text("Line 99.")).to_be_in_viewport()
        spoken.says("It follows.")
        expect(talk.get_by_text("It follows.")).to_be_in_viewport()
        talk.evaluate("one => { one.scrollTop = 100; }")
        expect(talk.get_by_text("It follows.")).not_to_be_in_viewport()
        spoken.says("It is further down.")
        below = pane.get_by_role("button", name="New below")
        expect(below).to_be_visible()
        assert talk.evaluate("one => one.scrollTop") == 100
        below.click()
        expect(talk.get_by_text("It is further down.")).to_be_in_viewport()


def test_the_facts_say_what_the_engine_says(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene.ids[AUTH], scene.ids[ROOT])
        expect(fact(pane, "Now")).to_have_text("waits for 2 of 4 jobs")
        expect(fact(pane, "Model")).to_have_text("claude-sonnet-5 · CLI 2.1.330")
        expect(fact(pane, "Cost")).to_contain_text("with all below")
        expect(fact(pane, "Directory")).to_have_text(str(scene.made.work))
        expect(fact(pane, "Rights")).to_contain_text("acceptEdits")
        pane.get_by_text("More", exact=True).click()
        expect(fact(pane, "Id")).to_have_text(scene.ids[AUTH])


def test_a_failure_is_told_at_the_top(browser: Browser, scene: Scene):
    with page_in(browser, dark=True) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene.ids[BROKEN], scene.ids[ROOT])
        expect(pane.locator(".job-talk > :first-child > :first-child")).to_contain_text("Prompt is too long")
        expect(pane.get_by_role("button", name="Kill")).to_be_hidden()
        expect(pane.get_by_role("button", name="Run again")).to_be_visible()


def test_on_a_phone_the_job_takes_the_whole_screen_and_nothing_is_wider_than_it(browser: Browser, scene: Scene):
    with page_in(browser, width=390, height=844) as page:
        open_web(page, scene.made)
        for task in (OAUTH, TOKENS):
            pane = pane_of(page, scene.ids[task], scene.ids[ROOT])
            expect(pane.get_by_role("heading", name=task)).to_be_visible()
            box = pane.bounding_box()
            assert box == {"x": 0, "y": 0, "width": 390, "height": 844}
            assert not scrolls_sideways(page)
            assert pane.evaluate("one => one.scrollWidth <= one.clientWidth")
        pane.get_by_role("button", name="Close").click()
        expect(pane).to_be_hidden()
        expect(page).to_have_url(re.compile(rf"#/tree/{scene.ids[ROOT]}$"))


def test_a_job_is_there_again_after_a_look_at_the_costs(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene.ids[OAUTH], scene.ids[ROOT])
        expect(pane.locator(".transcript")).to_contain_text("The state is checked.")
        page.get_by_role("link", name="Costs", exact=True).first.click()
        expect(page.locator(".page-costs")).to_be_visible()
        page.go_back()
        expect(pane.get_by_role("heading", name=OAUTH)).to_be_visible()
        expect(pane.locator(".transcript")).to_contain_text("The state is checked.")
        before = pane.locator(".facts").first.inner_text()
        expect(pane.locator(".facts").first).not_to_have_text(before, use_inner_text=True)


def test_in_a_low_window_all_of_a_job_can_be_reached(browser: Browser, scene: Scene):
    with page_in(browser, width=640, height=220) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene.ids[OAUTH], scene.ids[ROOT])
        for name in ("Kill", "Pause"):
            pane.get_by_role("button", name=name).scroll_into_view_if_needed()
            expect(pane.get_by_role("button", name=name)).to_be_in_viewport(ratio=1)
        said = pane.get_by_text("The state is checked.").first
        said.scroll_into_view_if_needed()
        expect(said).to_be_in_viewport(ratio=1)
        assert pane.locator(".job-talk").evaluate("talk => talk.clientHeight") > 150


def test_one_step_back_leaves_a_question(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene.ids[OAUTH], scene.ids[ROOT])
        pane.get_by_role("button", name="Kill").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.go_back()
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert scene.status(OAUTH)["status"] == "running"


def test_the_wide_view_is_for_reading(browser: Browser, scene: Scene):
    with page_in(browser, width=1440, height=900) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene.ids[OAUTH], scene.ids[ROOT])
        narrow = pane.bounding_box()
        wide = pane.get_by_role("button", name="Wide, for reading")
        wide.click()
        expect(wide).to_have_attribute("aria-pressed", "true")
        assert narrow is not None
        assert 380 <= narrow["width"] <= 490
        assert (pane.bounding_box() or narrow)["width"] > 2 * narrow["width"]
        page.keyboard.press("Escape")
        expect(pane).to_be_hidden()
