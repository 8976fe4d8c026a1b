"""Follows jobs until they are over: draws them in a terminal, or waits."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import typer
from rich.console import Console

from server.cli.console import err, note
from server.cli.doing import COMMAND, state_of
from server.cli.live_wait import open_requests, wait_view_on
from server.cli.screen import live_view_on
from server.cli.times import here, moment
from server.cli.tree_view import LIVE, Picture
from server.client.tool_client import Client

REFRESHES_A_SECOND = 4
MOST_JOBS = 1000
_NEWEST = 50
_MOST_FOLLOWED = 200
"""Most jobs that are listed where no tree is named: the newest, which include those that run."""

LONGEST_PAUSE = 2.0
"""Most seconds between two drawings: one during which an engine started took seconds, but the next one will not."""

_LARGE = 200
"""A tree of more jobs is listed when a job began or ended, else after some seconds: 1,000 jobs take a dozen calls."""
_LISTING_SECONDS = 5.0

_ANOTHER_PAUSE = 300.0
"""A pause for the same cause that ends this many seconds later is a new one: a back-off takes a minute at most."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


class Listing(NamedTuple):
    """A reply of `claude_list_jobs`.

    Args:
        jobs: A line for each job.
        more: Whether there are older ones.
        paused: Until when jobs wait, why, and how many; or an empty text.
    """

    jobs: list[dict[str, Any]]
    more: bool = False
    paused: str = ""


def jobs_of(client: Client, identity: str | None) -> Listing:
    """Return everything below an id, or the newest jobs."""
    return listed(client, limit=MOST_JOBS if identity else _NEWEST, under=identity)


def listed(
    client: Client,
    *,
    limit: int,
    under: str | None = None,
    before: str | None = None,
    status: str | None = None,
) -> Listing:
    """Return the newest jobs, by several calls where needed: one reply is limited to what a model can take.

    Args:
        client: A client of the engine.
        limit: Most jobs.
        under: Only jobs at and below this one, or None.
        before: Only jobs that are older than this one, or None.
        status: Only jobs of this status, or None.
    """
    jobs: list[dict[str, Any]] = []
    paused = ""
    while True:
        asked = {"under": under, "status": status, "limit": min(limit - len(jobs), MOST_JOBS), "before": before}
        lines: list[dict[str, Any]] = client.call_json("claude_list_jobs", asked)
        page = [line for line in lines if "jobId" in line]
        jobs += page
        more = any("more" in line for line in lines)
        paused = next((line["paused"] for line in lines if "paused" in line and "jobId" not in line), paused)
        if not (more and page) or len(jobs) >= limit:
            return Listing(jobs, more, paused)
        before = page[-1]["jobId"]


def picture_of(
    client: Client,
    identity: str | None,
    title: str,
    totals: Mapping[str, Any] | None = None,
    command: str = COMMAND,
) -> Picture:
    """Return a picture of everything below an id, or of the newest jobs.

    Args:
        client: A client of the engine.
        identity: A job, a batch or a tree, or None.
        title: The first line.
        totals: A present reply of `claude_status`, or None to ask for one.
        command: How the reader calls this program.
    """
    listing = jobs_of(client, identity)
    jobs = listing.jobs[::-1]
    counts, cost = _sums(jobs)
    tokens = budget = None
    if identity is not None:
        status = totals or client.call_json("claude_status", {"jobId": identity})
        tokens, budget = _tokens_of(status), status.get("budgetUsd")
        if listing.more:
            # Where a tree is too large to be listed whole, the oldest jobs are missing here.
            counts, cost = _sums_of(status)
            counts = _with_waiting(counts, jobs)
    return Picture(
        title=title,
        jobs=jobs,
        counts=counts,
        cost=cost,
        budget=budget,
        tokens=tokens,
        seconds=_seconds(jobs) if identity else None,
        paused=listing.paused,
        requests=requests_of(client, jobs),
        whole=f"{command} tree {identity}" if identity else "",
        command=command,
    )


def requests_of(client: Client, jobs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the ids of open permission requests by job; nothing is asked where no job waits for one."""
    if all(job.get("waitingFor") != "permission" for job in jobs):
        return {}
    return {one["jobId"]: one["requestId"] for one in open_requests(client)}


def watch(
    client: Client, identity: str, title: str, console: Console, command: str = COMMAND
) -> Sequence[Mapping[str, Any]]:
    """Draw everything below an id until all of it is over, and return its last lines; a file gets a line per change.

    Args:
        client: A client of the engine.
        identity: A job, a batch or a tree.
        title: The first line.
        console: Where to draw.
        command: How the reader calls this program.
    """
    return _follow(_TreePoll(client, identity, title, command), console).jobs


class _TreePoll:
    """Polls a tree; a large one in which no job began or ended is not listed each time.

    Args:
        client: A client of the engine.
        identity: A job, a batch or a tree.
        title: The first line.
        command: How the reader calls this program.
    """

    def __init__(self, client: Client, identity: str, title: str, command: str) -> None:
        self._command = command
        self._client = client
        self._identity = identity
        self._title = title
        self._known: Picture | None = None
        self._counts: Mapping[str, int] = {}
        self._listed_at = 0.0

    def __call__(self) -> Picture:
        """Return the tree as it is now; the costs of a large one may be some seconds old."""
        known, before, totals = self._known, self._counts, None
        if known is not None and len(known.jobs) > _LARGE:
            totals = self._client.call_json("claude_status", {"jobId": self._identity})
            self._counts, _ = _sums_of(totals)
            if self._counts == before and time.monotonic() - self._listed_at < _LISTING_SECONDS:
                return replace(known, seconds=_seconds(known.jobs))
        self._listed_at = time.monotonic()
        self._known = picture_of(self._client, self._identity, self._title, totals, self._command)
        return self._known


def watch_any(client: Client, console: Console) -> None:
    """Draw every job that runs or waits until none does; where there is none, wait for the next one first."""
    # Times in replies are in whole seconds.
    began, newest = int(time.time()), listed(client, limit=1).jobs
    read = partial(_picture_of_live, client, since=began)
    if read().is_over:
        note("No job runs or waits; waiting for the next one. Ctrl-C ends this.")
        while listed(client, limit=1).jobs == newest:
            time.sleep(pause_after(0))
    _follow(read, console)


def _picture_of_live(client: Client, *, since: float) -> Picture:
    listing = listed(client, limit=_MOST_FOLLOWED)
    jobs = [job for job in listing.jobs[::-1] if job["status"] in LIVE or (_ended(job) or 0.0) >= since]
    counts, cost = _sums(jobs)
    requests = requests_of(client, jobs)
    return Picture(title="live jobs", jobs=jobs, counts=counts, cost=cost, paused=listing.paused, requests=requests)


def _follow(read: Callable[[], Picture], console: Console) -> Picture:
    view = live_view_on(console, pause_reporter())
    while True:
        begin = time.monotonic()
        picture = read()
        took = time.monotonic() - begin
        if picture.is_over:
            view.close(picture)
            return picture
        view.show(picture)
        time.sleep(pause_after(took))


@contextmanager
def until_interrupted() -> Iterator[None]:
    """End the command in silence on Ctrl-C: it only watches."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def pause_reporter() -> Callable[[str], None]:
    """Return a function that reports why jobs wait: once for each cause, even where the API backs off repeatedly."""
    known: dict[str, float] = {}

    def tell(paused: str) -> None:
        cause = paused.partition(";")[0].partition(" because ")[2]
        until = _until(paused)
        if cause and (cause not in known or until > known[cause] + _ANOTHER_PAUSE):
            note(here(paused, time.time()))
            known[cause] = until

    return tell


def pause_after(took: float) -> float:
    """Return the seconds from one drawing to the next, after one that took `took` seconds."""
    # A tree of a thousand jobs is many calls: no more than a fourth of the engine's time is for the drawing.
    return min(max(1 / REFRESHES_A_SECOND, 3 * took), LONGEST_PAUSE)


def _sums(jobs: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], float]:
    counts: dict[str, int] = {}
    for job in jobs:
        counts[state_of(job)] = counts.get(state_of(job), 0) + 1
    return counts, sum(job.get("costUsd") or 0.0 for job in jobs)


def _with_waiting(counts: Mapping[str, int], jobs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count waiting jobs apart in counts by status, as far as they are listed."""
    waits = [job["status"] for job in jobs if state_of(job) == "waiting"]
    apart = {status: max(0, count - waits.count(status)) for status, count in counts.items()}
    return apart | ({"waiting": len(waits)} if waits else {})


def _sums_of(status: Mapping[str, Any]) -> tuple[dict[str, int], float]:
    """Return the counts and the cost of a batch, or of a job together with everything below it."""
    if "counts" in status:
        return status["counts"], status["costUsd"]
    below = status.get("descendants", {"counts": {}, "costUsd": 0.0})
    own = status["status"]
    return {**below["counts"], own: below["counts"].get(own, 0) + 1}, below["costUsd"] + status["costUsd"]


def _tokens_of(status: Mapping[str, Any]) -> int:
    """Return the tokens of a batch, or of a job together with everything below it, as far as known."""
    parts = (status, status.get("descendants", {}))
    return sum(part.get(key) or 0 for part in parts for key in ("inputTokens", "outputTokens"))


def _seconds(jobs: Sequence[Mapping[str, Any]]) -> float | None:
    created = [then for job in jobs if (then := moment(job.get("createdAt"))) is not None]
    if not created:
        return None
    ends = [_ended(job) for job in jobs]
    last = max((end for end in ends if end is not None), default=time.time())
    return (time.time() if any(job["status"] in LIVE for job in jobs) else last) - min(created)


def _ended(job: Mapping[str, Any]) -> float | None:
    return moment(job.get("endedAt") or job.get("endTime"))


def _until(paused: str) -> float:
    return moment(paused.removeprefix("paused until ").partition(" ")[0]) or 0.0


class Waited(NamedTuple):
    """The result of a wait.

    Args:
        lines: A line for each job that ended.
        pending: How many are not over.
    """

    lines: list[dict[str, Any]]
    pending: int


def wait_for(client: Client, scope: Mapping[str, Any], mode: str = "all") -> list[dict[str, Any]]:
    """Wait until the mode is met and return the lines of the jobs that ended; arguments as for `waited`."""
    return waited(client, scope, mode).lines


def waited(client: Client, scope: Mapping[str, Any], mode: str = "all", *, seconds: float | None = None) -> Waited:
    """Wait until the mode is met, or for `seconds`.

    Args:
        client: A client of the engine.
        scope: What `claude_wait` waits for: `jobIds`, a `batchId` or `subtreeOf`.
        mode: "all", "any" or "first_success".
        seconds: Longest wait, or None.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    lines: list[dict[str, Any]] = []
    cursor: str | None = None
    view = wait_view_on(err, pause_reporter())
    with closing(view):
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            step = view.seconds if left is None else min(left, view.seconds)
            reply = client.call_json("claude_wait", {**scope, "mode": mode, "cursor": cursor, "timeoutSeconds": step})
            lines += reply["done"]
            cursor = reply["cursor"]
            if reply.get("left"):
                continue
            if not reply["pending"] or _enough(mode, reply["done"]) or left == 0.0:
                return Waited(lines, reply["pending"])
            view.look(client, scope, reply, {line["jobId"] for line in lines})


def _enough(mode: str, done: Sequence[Mapping[str, Any]]) -> bool:
    # A wait that times out reports failures too, and those are no success.
    if mode == "first_success":
        return any(line["status"] == "completed" for line in done)
    return mode == "any" and bool(done)
