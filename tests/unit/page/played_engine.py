"""The files of the page in a browser, before an engine that is played: it says what a test wants it to say."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, Page, Route

import server.web
from tests.support.browser import page_in

STATIC = Path(server.web.__file__).parent / "static"
URL = "http://127.0.0.1:1"
NOW = 1_800_000_000.0
"""What the engine's clock says, in seconds since the epoch."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PAGE_ROWS = 250


def job(
    identity: str, *, status: str = "completed", at: float = 0.0, lasted: float = 10.0, **fields: Any
) -> dict[str, Any]:
    """Return a row of a job that began `at` seconds after the tree and lasted so long."""
    began = NOW - 600 + at
    row = {
        "jobId": identity,
        "rootId": "jroot",
        "parentJobId": None if identity == "jroot" else "jroot",
        "depth": 0 if identity == "jroot" else 1,
        "status": status,
        "attempt": 1,
        "task": f"Task of {identity}",
        "createdAt": began,
        "startedAt": None if status == "queued" else began,
        "endedAt": None if status in {"queued", "running"} else began + lasted,
        **fields,
    }
    return {name: value for name, value in row.items() if value is not None}


def tree_of(rows: Iterable[Mapping[str, Any]], **fields: Any) -> dict[str, Any]:
    """Return the row of a tree of these jobs."""
    jobs = list(rows)
    counts: dict[str, int] = {}
    for row in jobs:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    live = counts.keys() & {"queued", "running"}
    tree = {
        "rootId": jobs[0]["rootId"],
        "title": jobs[0]["task"],
        "jobs": len(jobs),
        "children": sum("parentJobId" not in row or row["parentJobId"] == row["rootId"] for row in jobs),
        "counts": counts,
        "createdAt": jobs[0]["createdAt"],
        "endedAt": None if live else max(row["endedAt"] for row in jobs),
        "costUsd": sum(row.get("costUsd", 0.0) for row in jobs),
        "inputTokens": 1000,
        "outputTokens": 100,
        "cwd": "/srv/shop/src",
        **fields,
    }
    return {name: value for name, value in tree.items() if value is not None}


@dataclass
class PlayedEngine:
    """What the page is told.

    Attributes:
        rows: The jobs.
        trees: The trees.
        asked: The queries of the feed, in their order.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    trees: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    _version: int = 1

    def change(self, *rows: dict[str, Any], **fields: Any) -> None:
        """Put rows in the place of those with their ids, and count the tree again."""
        new = {row["jobId"]: row for row in rows}
        kept = [new.pop(row["jobId"], row) for row in self.rows]
        self.rows = [*kept, *new.values()]
        self.trees = [tree_of(self.rows, **fields)]
        self._version += 1

    def answer(self, route: Route) -> None:
        """Answer a request of the page."""
        url = urlsplit(route.request.url)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if url.path == "/api/feed":
            self.asked.append(query)
            route.fulfill(content_type="text/event-stream", body="".join(self._events(query)))
        elif url.path.startswith("/api/"):
            route.fulfill(json={"ok": True, "entries": [], "next": 0, "attempts": [], "requests": [], "rights": {}})
        else:
            name = Path(url.path).name or "index.html"
            headers = {"content-security-policy": POLICY, "content-type": _TYPES[Path(name).suffix]}
            route.fulfill(body=(STATIC / name).read_bytes(), headers=headers)

    def _events(self, query: Mapping[str, str]) -> Iterator[str]:
        # A stream that ends is opened again after half a second, so that each change is told soon.
        rows = [] if query.get("trees") else self.rows
        if "parents" in query:
            wanted = query["parents"].split(",")
            rows = [row for row in rows if row["jobId"] == row["rootId"] or row.get("parentJobId") in wanted]
        pages = [rows[at : at + _PAGE_ROWS] for at in range(0, len(rows), _PAGE_ROWS)] or [[]]
        for number, page in enumerate(pages):
            yield self._event(page, is_first=number == 0, more=number < len(pages) - 1)

    def _event(self, rows: list[dict[str, Any]], *, is_first: bool, more: bool) -> str:
        page = {
            "ok": True,
            "cursor": f"e.{self._version}",
            "reset": is_first,
            "more": more,
            "now": NOW,
            "jobs": rows,
            "trees": self.trees,
            "gone": [],
            "pauses": [],
            "allPaused": False,
        }
        return f"event: page\ndata: {json.dumps(page)}\n\n"


@contextmanager
def shown(
    browser: Browser, rows: Iterable[dict[str, Any]] = (), where: str = "#/tree/jroot", **how: Any
) -> Iterator[tuple[Page, PlayedEngine]]:
    """Show the page of a tree with these jobs.

    Args:
        browser: The browser.
        rows: The jobs.
        where: What of the page.
        how: As `page_in` takes it.
    """
    engine = PlayedEngine()
    if rows := list(rows):
        engine.rows = [{"order": number, **row} for number, row in enumerate(rows)]
        engine.trees = [tree_of(engine.rows)]
    with page_in(browser, **how) as page:
        page.route("**/*", engine.answer)
        page.goto(f"{URL}/{where}")
        yield page, engine
