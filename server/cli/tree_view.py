"""Draws jobs in a terminal: a tree of limited height, a line of a list, a status."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from jobs.util.text import strip_terminal_codes
from jobs.waiting_for import FOR_JOBS, WaitingFor
from server.cli.lines import one_line, wrapped
from server.cli.times import clock, here, moment, span, told
from server.cli.wording import for_a_person

STYLES: Mapping[str, tuple[str, str]] = {
    "queued": ("○", "dim"),
    "running": ("◐", "cyan"),
    "completed": ("●", "green"),
    "failed": ("✗", "red"),
    "timeout": ("⧗", "yellow"),
    "cancelled": ("⊘", "magenta"),
}
"""Mark and style of each status."""

FAILED = frozenset(("failed", "timeout"))
LIVE = frozenset(("queued", "running"))

_KNOWN_WAITS = frozenset(WaitingFor)
_FOR_SOMEBODY = FOR_JOBS | {WaitingFor.PERMISSION}

_COUNTED = ("running", "queued", "completed", "failed", "timeout", "cancelled")
"""The order in which statuses are counted."""

_TASK_WIDTH = 48
_LEAST_TASK_WIDTH = 16
_ANSWER_WIDTH = 72
_PHRASE_WIDTH = 500
_WIDEST = 200
"""Most columns of a task or an answer in a file; a list's reply holds no more of either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Jobs at one moment.

    Args:
        title: The first line.
        jobs: Lines of `claude_list_jobs`, in order of their admission: `jobId`, `parentJobId`, `status`, `task`, and
            optional fields.
        counts: How many jobs have each status; of a large tree more than `jobs` names.
        cost: What all of them cost, in US dollars.
        seconds: Seconds from the first start until now or the end, or None where that has no meaning.
        paused: Why some of them wait, or an empty text.
        whole: The command that draws all of them, or an empty text.
    """

    title: str
    jobs: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    cost: float = 0.0
    seconds: float | None = None
    paused: str = ""
    whole: str = ""

    @property
    def is_over(self) -> bool:
        """Whether every job is over."""
        return LIVE.isdisjoint(self.counts)


@dataclass(slots=True)
class _Node:
    job: Mapping[str, Any]
    below: list["_Node"] = field(default_factory=list)


def draw(picture: Picture, *, width: int | None = None, height: int | None = None) -> list[Text]:
    """Return the lines of a drawing.

    Where there is no room for all, answers are left out first, then errors. Where there is no room for a line per job,
    running jobs are drawn, then failed ones, each below its parents, and the others are counted.

    Args:
        picture: The jobs.
        width: Columns at most, or None for as many as a line takes.
        height: Lines at most, or None for as many as there are.
    """
    head = _head(picture, width)
    for told_of in (frozenset(_COUNTED), FAILED, frozenset[str]()):
        lines = [*head, *_rows(_forest(picture.jobs), width, told_of)]
        if height is None or (len(lines) <= height and sum(picture.counts.values()) <= len(picture.jobs)):
            return lines
    room = height or 1
    return [*head, *_part(picture, width, room - len(head))][:room]


def job_line(job: Mapping[str, Any], *, width: int | None = None, now: float | None = None) -> Text:
    """Return one line of `claude_list_jobs` for a person: mark, id, status, cost, start time and task.

    Args:
        job: The line.
        width: Columns at most, or None for as many as it takes.
        now: The present, in seconds since the epoch, or None for the clock's.
    """
    mark, style = STYLES.get(job["status"], ("?", ""))
    began = _begin(job)
    when = "" if began is None else told(began, time.time() if now is None else now, brief=True)
    line = Text.assemble(
        (f"{mark} ", style),
        (strip_terminal_codes(job["jobId"]), "bold"),
        (f"  {'waiting' if _is_for_jobs(job) else job['status']:<9}", style),
        f"  {_dollars(job.get('costUsd')):>7}  {when:<14}  ",
    )
    return _with_task(line, job["task"], Text.assemble(*_waits(job)), width)


def description(status: Mapping[str, Any], *, width: int | None = None, now: float | None = None) -> list[Text]:
    """Return a reply of `claude_status` for a person: a line for each field.

    Args:
        status: The reply.
        width: Columns at most, or None for as many as a line takes.
        now: The present, in seconds since the epoch, or None for the clock's.
    """
    now = time.time() if now is None else now
    said = {
        _words(key): _phrase(value) for key, value in _in_words(status, now).items() if value not in (None, "", {}, [])
    }
    column = max(map(len, said), default=0) + 2
    lines = []
    for name, phrase in said.items():
        room = None if width is None else max(_LEAST_TASK_WIDTH, width - column)
        for index, part in enumerate(wrapped(here(phrase, now), room)):
            lines.append(Text.assemble((f"{'' if index else name:<{column}}", "dim"), part))
    return lines


def _in_words(status: Mapping[str, Any], now: float) -> Mapping[str, Any]:
    """Rewrite a status for a person: times in this terminal's zone, commands for tools, no name twice."""
    shown = dict(status)
    if moment(shown.get("createdAt")) is not None:
        # The older server's key is in the engine's time zone, and mixes two times.
        shown.pop("startTime", None)
        shown.pop("endTime", None)
    for key in ("createdAt", "startedAt", "endedAt"):
        if (then := moment(shown.pop(key, None))) is not None:
            shown[key.removesuffix("At")] = told(then, now)
    if (seconds := shown.pop("durationSeconds", None)) is not None:
        shown["duration"] = span(seconds)
    shown |= _status_in_words(shown.pop("waitingFor", None), shown.pop("liveChildren", 0), status)
    if paused := shown.get("paused"):
        shown["paused"] = str(paused).removeprefix("paused ")
    for key in ("error", "note"):
        if said := shown.get(key):
            shown[key] = for_a_person(said)
    return shown


def _words(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", strip_terminal_codes(key)).lower()


def _phrase(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(key))} {_phrase(inner)}" for key, inner in value.items() if inner is not None)
    return one_line(str(value), _PHRASE_WIDTH)


def counted(counts: Mapping[str, int]) -> str:
    """Return counts of statuses in words: "10 running, 152 queued, 38 completed"."""
    known = [status for status in _COUNTED if counts.get(status)]
    return ", ".join(f"{counts[status]} {status}" for status in [*known, *sorted(counts.keys() - set(_COUNTED))])


def _head(picture: Picture, width: int | None) -> list[Text]:
    total = sum(picture.counts.values())
    parts = [f"{total} job{'' if total == 1 else 's'}: {counted(picture.counts)}"]
    if picture.cost:
        parts.append(_dollars(picture.cost))
    if picture.seconds is not None:
        # A list has times in whole seconds.
        parts.append(span(int(picture.seconds)))
    first = Text.assemble((strip_terminal_codes(picture.title), "bold"), *(f" · {part}" for part in parts))
    if width is not None and cell_len(first.plain) > width:
        # The figures change, and the title does not: in a separate line they move nothing else.
        first = Text(strip_terminal_codes(picture.title), "bold")
        lines = [first, *map(Text, wrapped(f"  {' · '.join(parts)}", width))]
    else:
        lines = [first]
    paused = (
        Text(line, "yellow") for line in wrapped(f"  {strip_terminal_codes(here(picture.paused, time.time()))}", width)
    )
    return [*lines, *(paused if picture.paused else ())]


def _forest(jobs: Sequence[Mapping[str, Any]]) -> list[_Node]:
    nodes = {job["jobId"]: _Node(job) for job in jobs}
    roots: list[_Node] = []
    for node in nodes.values():
        above = nodes.get(node.job["parentJobId"] or "")
        (roots if above is None else above.below).append(node)
    return roots


def _rows(
    nodes: Sequence[_Node], width: int | None, told_of: frozenset[str], *, inline: bool = False, indent: str = ""
) -> Iterator[Text]:
    """Yield the lines of nodes and all below them; for a status in `told_of`, a separate line with the answer or error.

    Args:
        nodes: Siblings.
        width: Columns at most, or None.
        told_of: Statuses whose answer or error is shown.
        inline: Put errors after the task instead.
        indent: The text before each line.
    """
    for node in nodes:
        last = node is nodes[-1]
        yield _label(f"{indent}{'└── ' if last else '├── '}", node, width, inline=inline)
        below = f"{indent}{'    ' if last else '│   '}"
        said = _said(node.job) if node.job["status"] in told_of else ""
        if said:
            room = _WIDEST if width is None else min(_ANSWER_WIDTH, width - cell_len(below) - 2)
            yield Text.assemble(f"{below}  ", (one_line(said, room), "italic"))
        yield from _rows(node.below, width, told_of, inline=inline, indent=below)


def _label(indent: str, node: _Node, width: int | None, *, inline: bool) -> Text:
    job = node.job
    live_children = sum(one.job["status"] in LIVE for one in node.below)
    mark, style = STYLES.get(job["status"], ("?", ""))
    label = Text.assemble(indent, (mark, style), " ", (strip_terminal_codes(job["jobId"]), "bold"), " ")
    tail = Text.assemble(
        (f"  {_dollars(job['costUsd'])}" if job.get("costUsd") else "", "dim"), *_waits(job, live_children)
    )
    reason = job.get("reason")
    if reason not in (None, "completed"):
        tail.append(f"  {strip_terminal_codes(str(reason))}", style=style)
    label = _with_task(label, job["task"], tail, width)
    if inline and width is not None and job["status"] in FAILED and (said := _said(job)):
        label.append(f": {one_line(said, max(0, width - label.cell_len - 2))}".rstrip(": "), style=style)
    return label


def _with_task(line: Text, task: str, tail: Text, width: int | None) -> Text:
    """Put a task between line and tail, as much of it as fits, and cut the whole if it is still too long."""
    room = _WIDEST
    if width is not None:
        room = max(_LEAST_TASK_WIDTH, min(_TASK_WIDTH, width - line.cell_len - tail.cell_len))
    line = Text.assemble(line, one_line(task, room), tail)
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _part(picture: Picture, width: int | None, height: int) -> Iterator[Text]:
    """Yield at most `height` lines: running jobs, then failed ones, each below its parents, and a count of the rest."""
    by_id = {job["jobId"]: job for job in picture.jobs}
    chosen: dict[str, Mapping[str, Any]] = {}
    active: set[str] = set()
    # A finished picture has room for errors in separate lines.
    errors = sum(job["status"] in FAILED for job in picture.jobs) if picture.is_over else 0
    told_of = FAILED if errors and 2 * errors < height else frozenset[str]()
    for statuses in ({"running"}, FAILED):
        for job in (job for job in picture.jobs if job["status"] in statuses):
            lineage = _lineage(job, by_id)
            more = [each for each in lineage if each["jobId"] not in chosen]
            if (1 + bool(told_of)) * (len(chosen) + len(more)) < height:
                chosen |= {each["jobId"]: each for each in more}
                active.update(each["jobId"] for each in lineage if "running" in statuses)
    # In order of admission, but running jobs and their ancestors first.
    drawn = sorted((job for job in picture.jobs if job["jobId"] in chosen), key=lambda job: job["jobId"] not in active)
    yield from _rows(_forest(drawn), width, told_of, inline=not told_of)
    left = dict(picture.counts)
    for job in drawn:
        left[job["status"]] = left.get(job["status"], 0) - 1
    rest = f"… {counted({status: count for status, count in left.items() if count > 0})}"
    if picture.is_over and picture.whole:
        rest += f". `{picture.whole}` draws all."
    line = Text(rest, "dim")
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    yield line


def _lineage(job: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    line = [job]
    while (above := by_id.get(line[-1]["parentJobId"] or "")) is not None:
        line.append(above)
    return line


def _said(job: Mapping[str, Any]) -> str:
    return job.get("excerpt") or for_a_person(job.get("error") or "")


def _waits(job: Mapping[str, Any], live_children: int = 0) -> list[tuple[str, str]]:
    """Return the text after a job's task: what it waits for. Why queued jobs wait is in the head."""
    what = job.get("waitingFor")
    return [(f"  {_waiting(what, live_children)}", "yellow")] if what in _FOR_SOMEBODY else []


def _status_in_words(what: str | None, live_children: int, job: Mapping[str, Any]) -> dict[str, str]:
    if what is None:
        return {}
    waiting = _waiting(what, live_children)
    # A job that waits for other jobs is not queued.
    return {"status": waiting if _is_for_jobs(job) else f"{job['status']}, {waiting}"}


def _is_for_jobs(job: Mapping[str, Any]) -> bool:
    return job["status"] == "queued" and job.get("waitingFor") in FOR_JOBS


def _waiting(what: str, live_children: int = 0) -> str:
    if what == WaitingFor.CHILDREN and live_children:
        return f"waiting for its {live_children} children" if live_children > 1 else "waiting for its child"
    return f"waiting for {WaitingFor(what).words if what in _KNOWN_WAITS else strip_terminal_codes(what)}"


def _dollars(amount: float | None) -> str:
    if not amount:
        return ""
    return f"${amount:.4f}" if amount < 1 else f"${amount:.2f}"


def _begin(job: Mapping[str, Any]) -> float | None:
    return moment(job.get("startedAt") or job.get("createdAt") or job.get("startTime"))


def change_line(job: Mapping[str, Any], now: float) -> Text:
    """Return a line for a job that began or ended: time, id, status, cost, task and error."""
    then = _begin(job) if job["status"] in LIVE else moment(job.get("endedAt") or job.get("endTime"))
    mark, style = STYLES.get(job["status"], ("?", ""))
    parts = [
        clock(now if then is None else then, now),
        strip_terminal_codes(job["jobId"]),
        job["status"],
        _dollars(job.get("costUsd")),
    ]
    line = Text(" ".join(filter(None, parts)), style)
    line.append(f" {one_line(job['task'], _WIDEST)}", style="")
    if job["status"] in FAILED and _said(job):
        line.append(f"  {job.get('reason') or mark}: {one_line(_said(job), _WIDEST)}", style="")
    return line
