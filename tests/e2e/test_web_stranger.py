"""Another web site in the browser of a person who was let in: it reads nothing of the page and changes nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import browser as browser  # noqa: PLC0414 - pytest finds fixtures by name
from tests.support.browser import open_web, page_in
from tests.support.engines import House, house
from tests.support.page_client import asked_for
from tests.support.waiting import until_now

HOLD = "stub:wait=/nonexistent"
NOISE = ("Failed to load resource", "Access to fetch", "Refused to", "Framing", "EventSource's response", "Access to")
"""How a browser says that it refuses what this site tries."""

TRIES = """
async ([port, job]) => {
  const page = `http://127.0.0.1:${port}`;
  const kill = JSON.stringify({ do: "kill", id: job });
  const got = {};
  const tried = async (name, how) => {
    try { got[name] = String(await how()); } catch (error) { got[name] = "refused"; }
  };
  const sent = (more) => fetch(`${page}/api/actions`, { method: "POST", credentials: "include", body: kill, ...more });
  const headers = { "content-type": "application/json", "x-claude-jobs": "1" };
  await tried("as the page does", () => sent({ headers }).then((answer) => answer.text()));
  await tried("as a form", () => sent({ mode: "no-cors" }).then((answer) => answer.text()));
  const plain = { "content-type": "text/plain" };
  await tried("as text", () => sent({ mode: "no-cors", headers: plain }).then((answer) => answer.text()));
  await tried("a read", () => fetch(`${page}/api/jobs/${job}`, { credentials: "include" }).then((it) => it.text()));
  await tried("a read that is hidden", () =>
    fetch(`${page}/api/session`, { credentials: "include", mode: "no-cors" }).then((it) => it.text()));
  await tried("the stream", () => new Promise((done, fail) => {
    const source = new EventSource(`${page}/api/feed`, { withCredentials: true });
    source.onmessage = done;
    source.addEventListener("page", done);
    source.onerror = () => { source.close(); fail(new Error()); };
  }));
  await tried("a script", () => new Promise((done, fail) => {
    const script = document.createElement("script");
    script.src = `${page}/static/main.js`;
    script.onload = done;
    script.onerror = fail;
    document.head.append(script);
  }));
  await tried("a frame", () => new Promise((done, fail) => {
    const frame = document.createElement("iframe");
    frame.src = `${page}/`;
    frame.onload = () => { try { done(frame.contentDocument.body.textContent); } catch { fail(new Error()); } };
    document.body.append(frame);
  }));
  return got;
}
"""


class Stranger(BaseHTTPRequestHandler):
    """Another site on this host, as a job may serve one."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title><body></body>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def stranger() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house() as built:
        built.start_engine()
        yield built


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with page_in(browser, expected=NOISE) as opened:
        yield opened


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_another_site_reads_nothing_and_changes_nothing(made: House, page: Page, host: str):
    open_web(page, made)
    port = asked_for(made)["port"]
    with made.pump() as person, stranger() as elsewhere:
        job_id = person.json("claude_run_async", task=HOLD)["jobId"]
        until_now(lambda: person.json("claude_status", jobId=job_id)["status"] == "running", 60, "the start")
        page.goto(f"http://{host}:{elsewhere}/")
        got = page.evaluate(TRIES, [port, job_id])
        assert set(got.values()) <= {"refused", ""}, got
        assert len(got) == 8
        # A form that leaves the other site for the page.
        page.evaluate(
            """([port, job]) => {
              const form = document.createElement("form");
              form.method = "post";
              form.action = `http://127.0.0.1:${port}/api/actions`;
              form.enctype = "text/plain";
              document.body.append(form);
              form.submit();
            }""",
            [port, job_id],
        )
        page.wait_for_url(f"http://127.0.0.1:{port}/api/actions")
        assert '"ok": false' in page.content()
        assert person.json("claude_status", jobId=job_id)["status"] == "running"
        # The person is still let in.
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#engine[data-state=live]").wait_for()
        person.json("claude_kill_job", jobId=job_id)


def test_no_script_of_the_page_itself_sees_the_cookie(made: House, page: Page):
    open_web(page, made)
    assert page.evaluate("document.cookie") == ""
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)


def test_a_link_that_is_loaded_again_goes_on_to_the_page_and_the_code_is_in_no_address(made: House, page: Page):
    open_web(page, made)
    url = asked_for(made)["url"]
    for _ in range(2):
        page.goto(url)
        page.locator("#engine[data-state=live]").wait_for()
        assert "code" not in page.url


def test_a_browser_that_was_not_let_in_is_told_how_to_get_in(made: House, page: Page):
    port = asked_for(made)["port"]
    for path in ("/", "/open?code=used"):
        page.goto(f"http://127.0.0.1:{port}{path}")
        assert page.locator("pre").inner_text() == "claude-jobs web"
