"""A person steers jobs in the page: a real browser before a whole engine."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.support.browser import browser, go, open_web, page_in
from tests.support.engines import at_work_below
from tests.support.review_scene import (
    API,
    ASKED,
    AUTH,
    BROKEN,
    OAUTH,
    ROOT,
    SESSION,
    SUMMARY,
    TEMPLATES,
    TOKENS,
    UPLOAD,
    Scene,
    review_scene,
)
from tests.support.waiting import until_now

__all__ = ("browser",)

pytestmark = pytest.mark.timeout(300)

SECONDS = 30.0
REFUSED = ("Failed to load resource: the server responded with a status of 409",)
"""What the browser says of an action that the engine refuses, besides the page's own words."""


expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with review_scene() as made:
        yield made


def pane_of(page: Page, scene: Scene, task: str) -> Locator:
    """Open a job beside its tree."""
    go(page, f"#/tree/{scene.ids[ROOT]}/{scene.ids[task]}")
    pane = page.locator(".job")
    expect(pane.get_by_role("heading", name=task)).to_be_visible()
    return pane


def banner_of(page: Page) -> Locator:
    return page.get_by_role("region", name="What needs a decision")


def said(page: Page, words: str | re.Pattern[str]) -> None:
    """Wait until the page has said something."""
    expect(page.locator("#toasts").get_by_text(words)).to_be_visible()


def actions_of(page: Page) -> list[str]:
    """Return a list that takes in what the page has the engine do."""
    sent: list[str] = []

    def note(method: str, url: str, data: str | None) -> None:
        if method == "POST" and url.endswith("/api/actions"):
            sent.append(data or "")

    page.on("request", lambda request: note(request.method, request.url, request.post_data))
    return sent


def players(scene: Scene) -> list[str]:
    """Return the commands of the processes that play the tasks."""
    return [command for command in at_work_below(scene.made.base) if "played/claude" in command]


def test_a_permission_is_granted_from_the_banner_and_the_job_goes_on(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made, f"#/tree/{scene.ids[ROOT]}")
        banner = banner_of(page)
        expect(banner).to_contain_text(f"{SESSION} asks to run Bash: {ASKED}")
        expect(page).to_have_title(re.compile(r"^\(1\) "))
        banner.get_by_role("button", name="Allow once").click()
        said(page, "Allowed.")
        expect(banner).to_be_hidden()
        expect(page).not_to_have_title(re.compile(r"^\("))
        until_now(lambda: "waitingFor" not in scene.status(SESSION), SECONDS, "the answer")
        scene.end(SESSION)
        scene.until({SESSION: "completed"})
        row = page.get_by_role("row", name=SESSION)
        expect(row).to_contain_text("no findings")


def test_a_double_click_sends_one_answer(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made, f"#/tree/{scene.ids[ROOT]}")
        sent = actions_of(page)
        allow = banner_of(page).get_by_role("button", name="Allow once")
        expect(allow).to_be_enabled()
        allow.dblclick()
        said(page, "Allowed.")
        expect(banner_of(page)).to_be_hidden()
    assert len(sent) == 1


def test_a_request_that_has_just_appeared_is_not_answered_by_a_click_that_was_meant_for_another(
    browser: Browser, scene: Scene
):
    with page_in(browser) as page:
        open_web(page, scene.made)
        sent = actions_of(page)
        page.clock.install()
        go(page, f"#/tree/{scene.ids[ROOT]}")
        allow = banner_of(page).get_by_role("button", name="Allow once")
        # The page's clock stands still: the button has only just come.
        expect(allow).to_have_attribute("aria-disabled", "true")
        allow.click(force=True)
        page.clock.run_for(2000)
        expect(allow).to_be_enabled()
        assert sent == []


def test_the_pane_shows_the_whole_call_and_denies_it(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene, SESSION)
        expect(pane.locator(".asked")).to_contain_text(ASKED)
        pane.locator(".asked").get_by_role("button", name="Deny").click()
        said(page, "Denied; the job goes on without that call.")
        expect(pane.locator(".asked")).to_have_count(0)
    assert "waitingFor" not in scene.status(SESSION)


def test_a_subtree_is_killed_after_a_question_and_its_processes_are_gone(browser: Browser, scene: Scene):
    before = len(players(scene))
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene, AUTH)
        pane.get_by_role("button", name="Kill").click()
        question = page.get_by_role("dialog", name="Kill this job?")
        expect(question).to_contain_text(f"{AUTH} ({scene.ids[AUTH]})")
        expect(question).to_contain_text("This ends it now and 2 jobs below it that are not over.")
        expect(question.get_by_role("button", name="Keep")).to_be_focused()
        question.get_by_role("button", name="Kill 3 jobs").click()
        for task in (AUTH, OAUTH, SESSION):
            expect(page.get_by_role("row", name=task)).to_contain_text("cancelled")
        expect(pane.locator(".job-state")).to_have_text("cancelled")
        expect(pane.get_by_role("button", name="Kill")).to_have_count(0)
        # What was beside it runs on.
        expect(page.get_by_role("row", name=f"running {UPLOAD}")).to_contain_text("Read: web/upload.py")
    until_now(lambda: len(players(scene)) == before - 3, SECONDS, "the end of three processes")
    assert [scene.status(task)["status"] for task in (AUTH, OAUTH, SESSION)] == ["cancelled"] * 3
    assert scene.status(UPLOAD)["status"] == "running"


def test_nothing_is_killed_where_the_question_is_left_and_the_focus_comes_back(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        sent = actions_of(page)
        kill = pane_of(page, scene, UPLOAD).get_by_role("button", name="Kill")
        kill.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(kill).to_be_focused()
        expect(kill).to_be_enabled()
        # The other way out: the button that has the focus leaves everything as it is.
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Keep")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
    assert sent == []
    assert scene.status(UPLOAD)["status"] == "running"


def test_a_job_is_paused_and_goes_on(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene, TEMPLATES)
        pane.get_by_role("button", name="Pause").click()
        expect(pane.locator(".job-state")).to_have_text("paused")
        assert scene.status(TEMPLATES)["waitingFor"] == "pause"
        pane.get_by_role("button", name="Resume").click()
        expect(pane.get_by_role("button", name="Pause")).to_be_visible()
        expect(pane.locator(".job-state")).to_have_text("queued")
    assert scene.status(TEMPLATES)["waitingFor"] == "slot"


def test_a_job_that_failed_runs_again(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene, BROKEN)
        expect(pane.locator(".job-outcome")).to_contain_text("Prompt is too long")
        pane.get_by_role("button", name="Run again").click()
        said(page, "Queued again: 1 job.")
        expect(pane.locator(".job-state")).to_contain_text("queued")
        for task in (UPLOAD, TEMPLATES, SUMMARY):
            scene.end(task)
        expect(pane.locator(".job-state")).to_have_text("running · attempt 2 · again after prompt too long")
        expect(pane.locator(".attempts").get_by_role("button")).to_have_count(2)
    assert scene.status(BROKEN)["attempt"] == 2


def test_a_retry_of_several_jobs_asks_which(browser: Browser, scene: Scene):
    scene.person.json("claude_kill_job", jobId=scene.ids[OAUTH])
    with page_in(browser) as page:
        open_web(page, scene.made)
        pane = pane_of(page, scene, ROOT)
        pane.get_by_role("button", name="Run again").click()
        question = page.get_by_role("dialog", name="Run again what failed?")
        expect(question).to_contain_text("Below it: 1 failed, 1 cancelled. Jobs that run again may cost money.")
        question.get_by_role("button", name="All 2").click()
        said(page, "Queued again: 2 jobs.")


def test_a_message_is_sent_once_and_goes_on_as_a_new_job(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made)
        sent = actions_of(page)
        pane = pane_of(page, scene, API)
        pane.get_by_role("button", name="Send…").click()
        dialog = page.get_by_role("dialog", name="Send a message")
        expect(dialog).to_contain_text("Its session goes on with this, as a new job.")
        field = dialog.get_by_label("Message")
        expect(field).to_be_focused()
        expect(dialog.get_by_role("button", name="Send")).to_be_disabled()
        field.fill("And the tests of api/?")
        field.press("Enter")
        page.keyboard.press("Enter")
        said(page, re.compile(r"Sent\. It runs as j\w+\."))
    assert len(sent) == 1
    tasks = [job.get("task") for job in scene.person.json("claude_list_jobs", limit=100)]
    assert tasks.count("And the tests of api/?") == 1


def test_a_message_whose_answer_was_lost_is_the_same_message_when_it_is_sent_again(browser: Browser, scene: Scene):
    with page_in(browser, expected=("Failed to load resource: net::ERR_FAILED",)) as page:
        open_web(page, scene.made)
        lost: list[int] = []

        def lose(route: Route) -> None:
            lost.append(route.fetch().status)
            route.abort()

        page.route("**/api/actions", lose, times=1)
        pane = pane_of(page, scene, API)
        for words in ("The engine does not answer.", "Sent. It runs as "):
            pane.get_by_role("button", name="Send…").click()
            page.get_by_role("dialog").get_by_label("Message").fill("Once more, please")
            page.get_by_role("dialog").get_by_role("button", name="Send").click()
            said(page, re.compile(re.escape(words)))
            expect(pane.get_by_role("button", name="Send…")).to_be_enabled()
    assert lost == [200]
    tasks = [job.get("task") for job in scene.person.json("claude_list_jobs", limit=100)]
    assert tasks.count("Once more, please") == 1


def test_the_words_of_the_engine_are_shown_where_it_refuses(browser: Browser, scene: Scene):
    with page_in(browser, expected=REFUSED) as page:
        open_web(page, scene.made)
        pane_of(page, scene, TOKENS)
        page.get_by_role("treegrid").focus()
        page.keyboard.press("r")
        said(page, "Nothing there has failed.")


def test_the_line_that_opens_the_session_and_the_id_are_copied(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        open_web(page, scene.made)
        pane = pane_of(page, scene, TOKENS)
        pane.get_by_role("button", name="Copy resume line").click()
        said(page, "Copied: the line that opens its session.")
        session = scene.status(TOKENS)["sessionId"]
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == f"cd {scene.made.work} && claude --resume {session}"
        pane.get_by_role("button", name="Copy id").click()
        said(page, "Copied: the id.")
        assert page.evaluate("navigator.clipboard.readText()") == scene.ids[TOKENS]


def test_everything_is_reached_with_the_keyboard(browser: Browser, scene: Scene):
    with page_in(browser) as page:
        open_web(page, scene.made, f"#/tree/{scene.ids[ROOT]}")
        expect(banner_of(page)).to_be_visible()
        page.get_by_role("treegrid").focus()
        page.keyboard.press("a")
        dialog = page.get_by_role("dialog", name="Permission")
        expect(dialog).to_contain_text(f"{SESSION} ({scene.ids[SESSION]}) asks to call Bash.")
        expect(dialog).to_contain_text(ASKED)
        expect(dialog).to_contain_text("Without an answer it is denied at")
        expect(dialog.get_by_role("button", name="Later")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(dialog.get_by_role("button", name="Allow once")).to_be_focused()
        page.keyboard.press("Enter")
        said(page, "Allowed.")
        expect(page.get_by_role("treegrid")).to_be_focused()
    assert "waitingFor" not in scene.status(SESSION)
