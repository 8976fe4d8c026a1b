"""The system's Chromium, and pages in it that tell of everything that went wrong."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Playwright, expect, sync_playwright

from tests.support.engines import House

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Names of the browser in distributions."""

SECONDS = 30.0
"""Bound of each wait for what a page shows."""

ENGINE_GONE = ("Failed to load resource: net::ERR_",)
"""What a browser says of itself where an engine does not answer."""

_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`violation of ${event.violatedDirective} by ${event.blockedURI} ${event.sample}`);
});
"""


def find_chromium() -> str:
    """Return the browser's path; without one the test is skipped, which in continuous integration is a failure."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: install the package `chromium`, or put one of {', '.join(NAMES)} on the PATH")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser for the tests of a file.

    The thread counts as one with a running event loop until it ends, so no asynchronous test may be in the file.
    """
    with sync_playwright() as playwright, launched(playwright) as started:
        yield started


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """Start the system's browser for as long as the block lasts."""
    path = find_chromium()
    expect.set_options(timeout=SECONDS * 1000)
    # As root it has no sandbox of its own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    started = playwright.chromium.launch(executable_path=path, args=arguments)
    try:
        yield started
    finally:
        started.close()


@contextmanager
def page_in(
    browser: Browser, *, width: int = 1280, height: int = 800, dark: bool = False, expected: Sequence[str] = ()
) -> Iterator[Page]:
    """Open an empty page; at the end every error, violation of its policy and dialog in it fails the test.

    Args:
        browser: The browser.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        dark: The system prefers dark colours.
        expected: How messages begin that are part of the test.
    """
    troubles: list[str] = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(tuple(expected)):
            troubles.append(f"{message.text} ({message.location.get('url', '')})")

    def note_dialog(dialog: Dialog) -> None:
        troubles.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    try:
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        page.add_init_script(_TELL_VIOLATIONS)
        page.on("console", note_message)
        page.on("pageerror", lambda error: troubles.append(f"an error: {error}"))
        page.on("dialog", note_dialog)
        yield page
        assert troubles == [], troubles
    finally:
        context.close()


def open_web(page: Page, made: House, where: str = "") -> None:
    """Open the page of a house's engine as a person does: with the URL that `claude-jobs web` prints.

    Args:
        page: An empty page.
        made: Where the engine runs.
        where: A part of the page, such as `#/tree/ID`.
    """
    done = made.run("web", "--no-open")
    found = re.search(r"http://127\.0\.0\.1:\d+/open\?code=\S+", done.stdout)
    assert found, done
    page.goto(found[0])
    page.wait_for_url(re.compile(r"/(#.*)?$"))
    page.locator("#engine[data-state=live]").wait_for()
    if where:
        go(page, where)


def go(page: Page, where: str) -> None:
    """Go to a part of the page without loading it again."""
    page.evaluate("where => { location.hash = where; }", where)


def scrolls_sideways(page: Page) -> bool:
    """Tell whether the page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
