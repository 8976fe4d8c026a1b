"""What a waiting command says on stderr: what its jobs do now, why they wait, and which ask for a permission."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from rich.console import Console
from rich.text import Text

from server.cli.columns import Row, laid_out
from server.cli.console import note
from server.cli.doing import Surroundings, asks, doing, ids_apart
from server.cli.lines import is_screen, one_line
from server.cli.screen import Redrawn
from server.cli.times import here
from server.cli.tree_view import LIVE, STYLES, dollars, took
from server.client.tool_client import Client

_LIVE_SECONDS: Final = 1.0
_TOLD_SECONDS: Final = 5.0
"""Seconds from one look at the jobs to the next: on a terminal, and where only requests and pauses are told."""

_MANY: Final = 200
"""More jobs than these are looked at as seldom as without a terminal: each look is a read of all of them."""

_MOST_ROWS: Final = 5


class WaitView(Protocol):
    """Says what the jobs of a wait do."""

    seconds: float
    """Seconds until the next look."""

    def look(self, client: Client, scope: Mapping[str, Any], reply: Mapping[str, Any], over: Collection[str]) -> None:
        """Look at the jobs that are not over, and say what is new.

        Args:
            client: A client of the engine.
            scope: What `claude_wait` waits for.
            reply: Its last reply.
            over: Ids of the jobs that have ended.
        """

    def close(self) -> None:
        """Leave the terminal as it was."""


def wait_view_on(console: Console, tell: Callable[[str], None]) -> WaitView:
    """Return what says on a console what the jobs of a wait do: live lines on a terminal, elsewhere each event once.

    Args:
        console: The console, that of stderr: stdout is for the answer.
        tell: Reports why jobs wait.
    """
    return _Live(console, tell) if is_screen(console) else _Told(tell)


class _Told:
    """Tells requests and pauses, each once."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._known: set[str] = set()
        self.seconds = _TOLD_SECONDS

    def look(self, client: Client, scope: Mapping[str, Any], reply: Mapping[str, Any], over: Collection[str]) -> None:
        self._tell(str(reply.get("paused") or ""))
        for request in self._new_requests(client, scope):
            self._say(request)

    def close(self) -> None:
        pass

    def _new_requests(self, client: Client, scope: Mapping[str, Any]) -> list[Mapping[str, str]]:
        new = [one for one in open_requests(client) if one["requestId"] not in self._known]
        found = [one for one in new if _concerns(client, scope, one["jobId"])] if new else []
        self._known.update(one["requestId"] for one in new)
        return found

    def _say(self, request: Mapping[str, str]) -> None:
        note(asks(request["jobId"], request["requestId"], f"{request['tool']} {request['input']}"))


class _Live(_Told):
    """Shows a line for each of some jobs, redrawn in place."""

    def __init__(self, console: Console, tell: Callable[[str], None]) -> None:
        super().__init__(tell)
        self._console = console
        self._lines = Redrawn(console)
        self.seconds = 0.0

    def look(self, client: Client, scope: Mapping[str, Any], reply: Mapping[str, Any], over: Collection[str]) -> None:
        self.seconds = _LIVE_SECONDS if reply["pending"] <= _MANY else _TOLD_SECONDS
        if new := self._new_requests(client, scope):
            self._lines.clear()
            for request in new:
                self._say(request)
        width = self._console.width
        rows = list(laid_out(list(_rows(client, scope, reply, over)), width))
        if paused := str(reply.get("paused") or ""):
            rows.append(Text(one_line(here(paused, time.time()), width), "yellow"))
        self._lines.put(rows[: max(1, self._console.height - 1)])

    def close(self) -> None:
        self._lines.clear()


def open_requests(client: Client) -> list[Mapping[str, str]]:
    """Return the permission requests that are open: `requestId`, `jobId`, `tool` and `input` of each."""
    return [one for one in client.call_json("claude_approve", {}) if "requestId" in one]


def _concerns(client: Client, scope: Mapping[str, Any], job_id: str) -> bool:
    """Tell whether a job is one of a scope, or below one."""
    roots = scope.get("jobIds") or [scope.get("batchId") or scope["subtreeOf"]]
    line: list[str] = []
    above: str | None = job_id
    while above:
        job = client.call_json("claude_status", {"jobId": above})
        line += [above, job["batchId"], job["rootId"]]
        above = job["parentJobId"]
    return not set(roots).isdisjoint(line)


def _rows(
    client: Client, scope: Mapping[str, Any], reply: Mapping[str, Any], over: Collection[str]
) -> Iterator[Row | Text]:
    jobs = _pending(client, scope, over)
    now = time.time()
    brief = ids_apart(job["jobId"] for job in jobs)
    for job in jobs:
        mark, style = STYLES.get(job["status"], ("?", ""))
        where = Surroundings(now=now, live_children=job.get("liveChildren", 0), brief=brief)
        yield Row(
            head=Text.assemble((mark, style), " ", (brief(job["jobId"]), "bold"), " "),
            task=job["task"],
            now=Text(*doing(job, where)),
            cost=dollars(job.get("costUsd")),
            time=took(job, now),
        )
    if len(scope.get("jobIds", ())) == 1:
        yield from (_below(job) for job in jobs if "descendants" in job)
    else:
        ended = len(over)
        yield Text(f"{ended} of {ended + reply['pending']} over", "dim")


def _pending(client: Client, scope: Mapping[str, Any], over: Collection[str]) -> Sequence[Mapping[str, Any]]:
    """Return some of the jobs that are not over, those that run before the others."""
    if ids := scope.get("jobIds"):
        waiting = [one for one in ids if one not in over][:_MOST_ROWS]
        return [client.call_json("claude_status", {"jobId": one}) for one in waiting]
    under = scope.get("batchId") or scope["subtreeOf"]
    for status in ("running", "queued"):
        asked = {"under": under, "status": status, "limit": _MOST_ROWS}
        if jobs := [job for job in client.call_json("claude_list_jobs", asked) if "jobId" in job]:
            return jobs[::-1]
    return ()


def _below(job: Mapping[str, Any]) -> Text:
    below = job["descendants"]
    ended = below["total"] - sum(count for status, count in below["counts"].items() if status in LIVE)
    what = "children" if below.get("deepest", 0) == job["recursionDepth"] + 1 else "jobs below it"
    cost = dollars(below.get("costUsd"))
    return Text(f"  {ended} of {below['total']} {what} over{f' · {cost}' if cost else ''}", "dim")
