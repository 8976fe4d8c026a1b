"""Follows a tree in a terminal until every job in it is over."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live

from server.client import Client
from server.drawing import draw

REFRESHES_A_SECOND = 4
_MOST_JOBS = 1000
_NEWEST = 50


def jobs_of(client: Client, identity: str | None) -> list[dict[str, Any]]:
    """Return the lines of `claude_list_jobs` for everything below an id, or for the newest jobs."""
    limit = _MOST_JOBS if identity else _NEWEST
    lines: list[dict[str, Any]] = client.call_json("claude_list_jobs", {"under": identity, "limit": limit})
    return [line for line in lines if "jobId" in line]


def watch(client: Client, identity: str | None, title: str, console: Console) -> list[dict[str, Any]]:
    """Draw jobs until every one of them is over, and return their last lines."""
    jobs = jobs_of(client, identity)
    with Live(draw(title, jobs), console=console, refresh_per_second=REFRESHES_A_SECOND) as live:
        while any(job["status"] in {"queued", "running"} for job in jobs):
            time.sleep(1 / REFRESHES_A_SECOND)
            jobs = jobs_of(client, identity)
            live.update(draw(title, jobs))
    if not console.is_terminal:
        # Where nothing is redrawn, the drawing's last line is left open.
        console.print()
    return jobs
