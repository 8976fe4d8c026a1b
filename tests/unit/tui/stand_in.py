"""The view without an engine: pages made by hand, actions that are only noted, and the screen as text."""

import re
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from html import unescape
from typing import Any, cast

import anyio
from rich.cells import cell_len
from textual.filter import LineFilter
from textual.pilot import Pilot

from server.client.state_dir import StatePaths
from server.tui.actions import Actions
from server.tui.app import TopApp
from server.tui.engine_link import EngineLink, FeedRefusedError
from server.tui.model import JobTable

NOW = 1_800_000_000.0
_CELL = 12.2
"""Width of a character in the pictures that Textual exports."""

_TEXT = re.compile(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>')


def row(number: int, status: str = "running", *, parent: int | None = None, **more: Any) -> dict[str, Any]:
    """A row of the feed; without a parent its job is a root."""
    job_id = f"j{number}"
    return {
        "jobId": job_id,
        "rootId": "j0",
        "batchId": "b0",
        "order": number,
        "status": status,
        "attempt": 0 if status == "queued" else 1,
        "task": f"task {number}",
        "createdAt": NOW - 100,
        **({} if parent is None else {"parentJobId": f"j{parent}"}),
        **({} if status == "queued" else {"startedAt": NOW - 90}),
        **({"endedAt": NOW - 30} if status not in ("queued", "running") else {}),
        **more,
    }


def page(*rows: Mapping[str, Any], more: bool = False, **fields: Any) -> dict[str, Any]:
    """A page of the feed."""
    return {
        "reset": False,
        "more": more,
        "jobs": list(rows),
        "trees": [],
        "gone": [],
        "pauses": [],
        "allPaused": False,
        **fields,
    }


REVIEW = (
    row(0, task="Review src/", waitingFor="children", costUsd=0.4),
    row(1, parent=0, key="auth", waitingFor="children", costUsd=0.1),
    row(2, "completed", parent=1, task="auth/tokens.py", excerpt="2 findings", costUsd=0.19),
    row(3, parent=1, task="auth/oauth.py", activity="Grep: redirect_uri", lastOutputAt=NOW - 1, costUsd=0.24),
    row(4, parent=1, task="auth/session.py", waitingFor="permission", waitingBecause="Bash: git log -p", costUsd=0.08),
    row(5, "failed", parent=0, task="db/migrate.py", error="prompt too long", reason="prompt_too_long", costUsd=0.31),
    row(6, "queued", parent=0, task="web/templates", waitingFor="slot"),
    row(7, "queued", parent=0, task="summary", waitingFor="siblings", dependsOn=["j6", "j3"]),
)
"""A tree in which a job is in each state that matters."""


class NotedActions:
    """Notes what it is asked to do."""

    def __init__(self, paths: StatePaths | None = None) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.paths = paths

    def __getattr__(self, name: str) -> Any:
        def note(*given: Any, **named: Any) -> tuple[str, bool]:
            self.done.append((name, *given, *named.values()))
            return f"did {name}", True

        return note


class StandInLink:
    """A connection that the test plays.

    Attributes:
        known: Everything about each job; one that is missing cannot be had.
        asked: The jobs that were asked for.
        starts: How many times an engine was asked for.
        answers: Whether it answers now; where it is cleared, what is asked waits.
    """

    def __init__(self, **known: Mapping[str, Any]) -> None:
        self.known = known
        self.asked: list[str] = []
        self.starts = 0
        self.answers = threading.Event()
        self.answers.set()
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def start_engine(self) -> None:
        self.starts += 1

    def details(self, identity: str) -> Mapping[str, Any]:
        self.asked.append(identity)
        self.answers.wait(60)
        if identity not in self.known:
            raise FeedRefusedError("No engine.")
        return self.known[identity]


class View:
    """A view that is driven by keys."""

    def __init__(self, app: TopApp, pilot: Pilot[None], actions: NotedActions) -> None:
        self.app = app
        self.pilot = pilot
        self.done = actions.done

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def take(self, *rows: Mapping[str, Any], **fields: Any) -> None:
        self.app.take(page(*rows, **fields))
        await self.pilot.pause()

    async def shows(self, *wanted: str) -> None:
        """Wait until all of these texts are on the screen."""
        with anyio.fail_after(60):
            while not all(words in self.text for words in wanted):
                await self.pilot.pause(0.01)

    async def has_read(self) -> None:
        """Wait until nothing is asked any more, and what was answered is shown."""
        with anyio.fail_after(60):
            while any(thread.name == "work of the view" for thread in threading.enumerate()):
                await self.pilot.pause(0.01)
        await self.pilot.pause()

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without blanks at the ends of lines."""
        return lines_of(self.app.export_screenshot(simplify=True), self.app.size.height)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def selected(self) -> str | None:
        return self.app.jobs.selected_id


def lines_of(svg: str, height: int) -> list[str]:
    """Return the lines of a picture of a screen."""
    parts = [(float(x), float(y), unescape(words).replace("\u00a0", " ")) for x, y, words in _TEXT.findall(svg)]
    rows = sorted({y for _, y, _ in parts})
    lines = []
    for top in rows:
        line = ""
        for x, _, words in sorted(part for part in parts if part[1] == top):
            line += " " * (round(x / _CELL) - cell_len(line)) + words
        lines.append(line.rstrip())
    return lines[:height]


@asynccontextmanager
async def view(
    rows: Iterable[Mapping[str, Any]] = REVIEW,
    *,
    size: tuple[int, int] = (80, 24),
    filters: Sequence[LineFilter] = (),
    under: str | None = None,
    link: StandInLink | None = None,
    paths: StatePaths | None = None,
) -> AsyncIterator[View]:
    """Show rows until the block ends; the time stands still."""
    actions = NotedActions(paths)
    app = TopApp(JobTable(under), cast("Actions", actions), filters, clock=lambda: NOW)
    app.link = cast("EngineLink | None", link)
    async with app.run_test(size=size) as pilot:
        shown = View(app, pilot, actions)
        await shown.take(*rows)
        yield shown
