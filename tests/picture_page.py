"""Draws `.github/page-*.png`, the pictures of the page in README.md and in server/README.md; `poe picture` draws all.

The real `claude` plays the demo's story in a whole engine, slowly. Once one job is held in a call of a tool and another
one asks for a permission, the page is opened in the system's Chromium: a tree, a job in it, and the costs of the tree,
each in light and dark colours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.picnic import ALLOWED_TOOLS, invitation, root_tasks, write_files
from tests.e2e.support import SYSTEM_PATH, find_cli
from tests.picture import SECONDS, held_story, is_held
from tests.support.browser import go, launched, open_web, page_in
from tests.support.engines import House, house
from tests.support.waiting import until_now

DIRECTORY = Path(__file__).parents[1] / ".github"
SLOWER = 5.0
"""Seconds that each answer of the scripted model takes longer, so that the bars of the timeline have a length."""

WIDTH, HEIGHT = 1360, 640
"""Of the window, in pixels."""

SHOWN = "Which savoury dish travels well?"
"""The job whose conversation is shown: it is held in a call of a tool."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """The tree while it is held.

    Args:
        made: Where the engine runs.
        root_id: Its id.
        job_id: Id of the job that is shown.
    """

    made: House
    root_id: str
    job_id: str


@contextmanager
def held_tree(cli: Path) -> Iterator[Held]:
    """Play the story until every job is over, held, or waits.

    Args:
        cli: The real binary.
    """
    settings = {"CLAUDE_JOBS_PERMISSION_REQUESTS": "person", "CLAUDE_JOBS_PERMISSION_SECONDS": "600"}
    with house(**settings) as made, ScriptedApi(held_story().slowed(SLOWER)) as api:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        with made.pump(environ={**client, "CLAUDE_JOBS_CLI": str(cli)}) as pump:
            write_files(made.work, 4 * SECONDS)
            asked = {"tasks": [*root_tasks(), invitation()], "outputFormat": "text", "allowedTools": ALLOWED_TOOLS}
            batch = pump.json("claude_run_batch_async", **asked, treeBudgetUsd=0.5)["batchId"]
            until_now(lambda: is_held(pump, batch), 4 * SECONDS, "the held tree")
            jobs = pump.json("claude_list_jobs", under=batch)
            shown = next(job["jobId"] for job in jobs if job["task"] == SHOWN)
            yield Held(made=made, root_id=batch, job_id=shown)
            pump.json("claude_kill_job", jobId=batch)


def shots(page: Page, held: Held) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the picture of each part of the page."""
    open_web(page, held.made, f"#/tree/{held.root_id}")
    page.locator("button:not([aria-disabled=true])", has_text="Allow once").wait_for()
    yield "tree", page.screenshot()
    go(page, f"#/tree/{held.root_id}/{held.job_id}")
    page.get_by_text("taste.sh").last.wait_for()
    page.locator("button:not([aria-disabled=true])", has_text="Allow once").wait_for()
    yield "job", page.screenshot()
    go(page, "#/costs")
    page.get_by_role("heading", name="By depth").wait_for()
    yield "costs", page.screenshot()


def main() -> None:
    """Draw all of them."""
    cli = find_cli()
    assert cli is not None, "install the extra `dev`: it brings a `claude`"
    with held_tree(cli) as held, sync_playwright() as playwright, launched(playwright) as browser:
        for dark in (False, True):
            with page_in(browser, width=WIDTH, height=HEIGHT, dark=dark) as page:
                for name, picture in shots(page, held):
                    (DIRECTORY / f"page-{name}-{'dark' if dark else 'light'}.png").write_bytes(picture)


if __name__ == "__main__":
    main()
