"""Follows jobs until they are over: a tree drawn in a terminal, or a wait."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live

from server.front_door.client import Client
from server.terminal.drawing import draw
from server.terminal.speech import note

REFRESHES_A_SECOND = 4
_MOST_JOBS = 1000
_NEWEST = 50
LONGEST_PAUSE = 2.0
"""Seconds between two drawings at most: one during which the next engine started took seconds, and says nothing of how
long the next drawing takes."""
_LIVE = frozenset(("queued", "running"))


class Listing(NamedTuple):
    """What `claude_list_jobs` tells.

    Args:
        jobs: A line for each job.
        more: Whether there are older ones.
        paused: Until when some of them wait, why, and how many jobs do; or an empty text.
    """

    jobs: list[dict[str, Any]]
    more: bool = False
    paused: str = ""


def jobs_of(client: Client, identity: str | None) -> Listing:
    """Return everything below an id, or the newest jobs."""
    return listed(client, limit=_MOST_JOBS if identity else _NEWEST, under=identity)


def listed(
    client: Client,
    *,
    limit: int,
    under: str | None = None,
    before: str | None = None,
    status: str | None = None,
) -> Listing:
    """Return the newest jobs; one reply holds what a model can take, and we ask again.

    Args:
        client: The way to the engine.
        limit: Most jobs.
        under: Only jobs at and below this one, or None.
        before: Only jobs that are older than this one, or None.
        status: Only jobs of this status, or None.
    """
    jobs: list[dict[str, Any]] = []
    paused = ""
    while True:
        asked = {"under": under, "status": status, "limit": min(limit - len(jobs), _MOST_JOBS), "before": before}
        lines: list[dict[str, Any]] = client.call_json("claude_list_jobs", asked)
        page = [line for line in lines if "jobId" in line]
        jobs += page
        more = any("more" in line for line in lines)
        paused = next((line["paused"] for line in lines if "paused" in line and "jobId" not in line), paused)
        if not (more and page) or len(jobs) >= limit:
            return Listing(jobs, more, paused)
        before = page[-1]["jobId"]


def watch(client: Client, identity: str | None, title: str, console: Console) -> list[dict[str, Any]]:
    """Draw jobs until every one of them is over, and return their last lines."""
    jobs, _, paused = jobs_of(client, identity)
    tell = teller()
    with Live(draw(title, jobs, paused), console=console, refresh_per_second=REFRESHES_A_SECOND) as live:
        took = 0.0
        while not _over(client, identity, jobs):
            if not console.is_terminal:
                # Nothing is drawn there before the end.
                tell(paused)
            time.sleep(pause_after(took))
            begin = time.monotonic()
            jobs, _, paused = jobs_of(client, identity)
            took = time.monotonic() - begin
            live.update(draw(title, jobs, paused))
    if not console.is_terminal:
        # Where nothing is redrawn, the drawing's last line is left open.
        console.print()
    return jobs


def teller() -> Callable[[str], None]:
    """Return what tells a person why jobs wait: once for each pause, however many jobs join it."""
    told = [""]

    def tell(paused: str) -> None:
        pause = paused.partition(";")[0]
        if pause != told[0]:
            told[0] = pause
            if paused:
                note(paused)

    return tell


def pause_after(took: float) -> float:
    """Return the seconds from one drawing to the next, after one that took so many seconds."""
    # A tree of a thousand jobs is many calls: no more than a fourth of the engine's time is for the drawing.
    return min(max(1 / REFRESHES_A_SECOND, 3 * took), LONGEST_PAUSE)


def _over(client: Client, identity: str | None, jobs: Sequence[Mapping[str, Any]]) -> bool:
    if any(job["status"] in _LIVE for job in jobs):
        return False
    # Of a tree that is too large to be drawn whole, the oldest jobs are not among these.
    return identity is None or not _live_below(client, identity)


def _live_below(client: Client, identity: str) -> bool:
    status = client.call_json("claude_status", {"jobId": identity})
    counts = status.get("descendants", status).get("counts", {status.get("status"): 1})
    return not _LIVE.isdisjoint(counts)


class Waited(NamedTuple):
    """What a wait came to.

    Args:
        lines: A line for each job that ended.
        pending: How many are not over.
    """

    lines: list[dict[str, Any]]
    pending: int


def wait_for(client: Client, scope: Mapping[str, Any], mode: str = "all") -> list[dict[str, Any]]:
    """Wait until a mode is met and return the lines of those that ended; arguments as of `waited`."""
    return waited(client, scope, mode).lines


def waited(client: Client, scope: Mapping[str, Any], mode: str = "all", *, seconds: float | None = None) -> Waited:
    """Wait until a mode is met, or for so long.

    Args:
        client: The way to the engine.
        scope: What `claude_wait` is told to wait for: `jobIds`, a `batchId` or `subtreeOf`.
        mode: "all", "any" or "first_success".
        seconds: Longest wait, or None.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    lines: list[dict[str, Any]] = []
    cursor: str | None = None
    tell = teller()

    def on_progress(message: str) -> None:
        tell(message.partition("; ")[2])

    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        asked = {**scope, "mode": mode, "cursor": cursor, "timeoutSeconds": left}
        reply = client.call_json("claude_wait", asked, on_progress)
        lines += reply["done"]
        cursor = reply["cursor"]
        if reply.get("left"):
            continue
        if not reply["pending"] or _enough(mode, reply["done"]) or left == 0.0:
            return Waited(lines, reply["pending"])


def _enough(mode: str, done: Sequence[Mapping[str, Any]]) -> bool:
    # A wait that ends at its own longest time reports failures too, and those are no success.
    if mode == "first_success":
        return any(line["status"] == "completed" for line in done)
    return mode == "any" and bool(done)
