"""Draws a tree of jobs in a terminal, of limited height: what each does now, what it waits for, cost and time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from jobs.util.text import strip_terminal_codes
from server.cli.columns import Row, laid_out
from server.cli.doing import COMMAND, Surroundings, doing, ids_apart, state_of
from server.cli.lines import one_line, wrapped
from server.cli.times import clock, here, moment, span
from server.cli.wording import for_a_person

STYLES: Mapping[str, tuple[str, str]] = {
    "queued": ("○", "dim"),
    "running": ("◐", "cyan"),
    "waiting": ("◌", "yellow"),
    "completed": ("●", "green"),
    "failed": ("✗", "red"),
    "timeout": ("⧗", "yellow"),
    "cancelled": ("⊘", "magenta"),
}
"""Mark and style of each state."""

FAILED = frozenset(("failed", "timeout"))
LIVE = frozenset(("queued", "running"))

STATES = ("running", "waiting", "queued", "completed", "failed", "timeout", "cancelled")
"""What a job is in for a person, in the order of counts."""

LIVE_STATES = STATES[:3]

_MOST_ASKED = 3
"""Most permission requests above a drawing."""

_ANSWER_WIDTH = 72
_WIDEST = 200
"""Most columns of an answer in a file; a list's reply holds no more of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Jobs at one moment.

    Args:
        title: The first line.
        jobs: Lines of `claude_list_jobs`, in order of their admission: `jobId`, `parentJobId`, `status`, `task`, and
            optional fields.
        counts: How many jobs are in each state; of a large tree more than `jobs` names.
        cost: What all of them cost, in US dollars.
        budget: What all of them may cost, in US dollars, or None.
        tokens: Tokens that all of them read and wrote, or None where that is not known.
        seconds: Seconds from the first start until now or the end, or None where that has no meaning.
        paused: Why some of them wait, or an empty text.
        requests: Ids of open permission requests by the job that waits for the answer.
        whole: The command that draws all of them, or an empty text.
        command: How the reader calls this program.
    """

    title: str
    jobs: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]
    cost: float = 0.0
    budget: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    paused: str = ""
    requests: Mapping[str, str] = field(default_factory=dict)
    whole: str = ""
    command: str = COMMAND

    @property
    def is_over(self) -> bool:
        """Whether every job is over."""
        return not any(map(self.counts.get, LIVE_STATES))


@dataclass(slots=True)
class _Node:
    job: Mapping[str, Any]
    below: list["_Node"] = field(default_factory=list)


@dataclass(slots=True)
class _Sums:
    """What is known of a job and all below it: its cost in US dollars, and how many children it has and are live."""

    cost: float = 0.0
    children: int = 0
    live_children: int = 0


def draw(picture: Picture, *, width: int | None = None, height: int | None = None) -> list[Text]:
    """Return the lines of a drawing.

    Where there is no room for all, answers are left out first, then errors. Where there is no room for a line per job,
    running jobs are drawn, then failed ones, each below its parents, and the others are counted.

    Args:
        picture: The jobs.
        width: Columns at most, or None for as many as a line takes.
        height: Lines at most, or None for as many as there are.
    """
    return _Drawing(picture, width).lines(height)


class _Drawing:
    """One drawing of a picture.

    Args:
        picture: The jobs.
        width: Columns at most, or None for as many as a line takes.
    """

    def __init__(self, picture: Picture, width: int | None) -> None:
        self._picture = picture
        self._width = width
        self._now = time.time()
        self._sums = _sums(picture.jobs)
        # A file has room for whole ids, and its reader may be a program.
        self._brief: Callable[[str], str] = str if width is None else ids_apart(job["jobId"] for job in picture.jobs)

    def lines(self, height: int | None) -> list[Text]:
        """Return at most `height` lines, or as many as there are."""
        picture, head = self._picture, [*_head(self._picture, self._width), *self._asks()]
        if height is None or len(head) + sum(picture.counts.values()) <= height:
            forest = _forest(picture.jobs)
            for told_of in (frozenset(STATES), FAILED, frozenset[str]()):
                rows = list(self._rows(forest, told_of))
                if height is None or len(head) + len(rows) <= height:
                    return [*head, *laid_out(rows, self._width)]
        room = height or 1
        return [*head, *laid_out(list(self._part(room - len(head))), self._width)][:room]

    def _asks(self) -> Iterator[Text]:
        """Yield a line for each of the first open requests, with the command that answers it."""
        jobs = [job for job in self._picture.jobs if job["jobId"] in self._picture.requests]
        for job in jobs[:_MOST_ASKED]:
            name, call = self._brief(job["jobId"]), str(job.get("waitingBecause") or "a permission")
            answer = f" · {self._picture.command} approve {self._picture.requests[job['jobId']]}"
            room = _WIDEST if self._width is None else self._width - 2 - len(answer)
            line = Text(f"  {one_line(f'{name} asks: {call}', max(0, room))}{answer}", "yellow")
            if self._width is not None:
                line.truncate(self._width, overflow="ellipsis")
            yield line
        if (left := len(jobs) - _MOST_ASKED) > 0:
            yield Text(f"  {left} more ask · {self._picture.command} approve", "yellow")

    def _rows(self, nodes: Sequence[_Node], told_of: frozenset[str], indent: str = "") -> Iterator[Row | Text]:
        """Yield the rows of nodes and all below them; for a status in `told_of`, a separate line with answer or error.

        Args:
            nodes: Siblings.
            told_of: Statuses whose answer or error has a line; where there is none, it is in the row.
            indent: The text before each line.
        """
        for node in nodes:
            last = node is nodes[-1]
            said = _said(node.job)
            apart = node.job["status"] in told_of
            yield self._row(f"{indent}{'└── ' if last else '├── '}", node.job, "" if apart else said)
            below = f"{indent}{'    ' if last else '│   '}"
            if said and apart:
                room = _WIDEST if self._width is None else min(_ANSWER_WIDTH, self._width - cell_len(below) - 2)
                yield Text.assemble(f"{below}  ", (one_line(said, room), "italic"))
            yield from self._rows(node.below, told_of, below)

    def _row(self, indent: str, job: Mapping[str, Any], said: str) -> Row:
        mark, style = STYLES.get(state_of(job), ("?", ""))
        sums = self._sums[job["jobId"]]
        where = Surroundings(
            now=self._now,
            live_children=sums.live_children,
            children=sums.children,
            brief=self._brief,
        )
        now = Text(*doing(job, where)) if job["status"] in LIVE else _end(job, said, style)
        return Row(
            head=Text.assemble(
                indent, (mark, style), " ", (strip_terminal_codes(self._brief(job["jobId"])), "bold"), " "
            ),
            task=job["task"],
            now=now,
            cost=dollars(sums.cost, cents=self._picture.cost >= 1),
            time=took(job, self._now),
        )

    def _part(self, height: int) -> Iterator[Row | Text]:
        """Yield at most `height` rows: running jobs, then failed ones, below their parents, and a count of the rest."""
        picture = self._picture
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
        drawn = sorted(
            (job for job in picture.jobs if job["jobId"] in chosen), key=lambda job: job["jobId"] not in active
        )
        yield from self._rows(_forest(drawn), told_of)
        left = dict(picture.counts)
        for job in drawn:
            left[state_of(job)] = left.get(state_of(job), 0) - 1
        rest = f"… {counted({state: count for state, count in left.items() if count > 0})}"
        if picture.is_over and picture.whole:
            rest += f". `{picture.whole}` draws all."
        yield Text(rest, "dim")


def counted(counts: Mapping[str, int]) -> str:
    """Return counts of states in words: "10 running, 152 queued, 38 completed"."""
    known = [state for state in STATES if counts.get(state)]
    return ", ".join(f"{counts[state]} {state}" for state in [*known, *sorted(counts.keys() - set(STATES))])


def dollars(amount: float | None, *, cents: bool = False) -> str:
    """Return an amount of US dollars, or an empty text for none.

    Args:
        amount: The amount.
        cents: Round it to cents where it is below a dollar, too: it is shown with amounts that are not.
    """
    if not amount:
        return ""
    return f"${amount:.2f}" if cents or amount >= 1 else f"${amount:.4f}"


def tokens(count: int) -> str:
    """Return a number of tokens in three digits: "950 tokens", "31k tokens", "1.2M tokens"."""
    if count < 1000:
        return f"{count} tokens"
    return f"{count / 1000:.0f}k tokens" if count < 999_500 else f"{count / 1_000_000:.1f}M tokens"


def took(job: Mapping[str, Any], now: float) -> str:
    """Return how long a job has run, or an empty text before its start."""
    then = moment(job.get("startedAt"))
    if then is None:
        return ""
    end = now if job["status"] in LIVE else moment(job.get("endedAt"))
    # Rows have times in whole seconds; one that is live would change its width ten times a second.
    return "" if end is None else span(int(max(0.0, end - then)))


def _head(picture: Picture, width: int | None) -> list[Text]:
    total = sum(picture.counts.values())
    parts = [f"{total} job{'' if total == 1 else 's'}: {counted(picture.counts)}".removesuffix(": ")]
    if picture.cost or picture.budget is not None:
        of = "" if picture.budget is None else f" of {dollars(picture.budget)}"
        parts.append(f"{dollars(picture.cost) or '$0'}{of}")
    if picture.tokens:
        parts.append(tokens(picture.tokens))
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


def _sums(jobs: Sequence[Mapping[str, Any]]) -> dict[str, _Sums]:
    sums = {job["jobId"]: _Sums(cost=job.get("costUsd") or 0.0) for job in jobs}
    parents = {job["jobId"]: job["parentJobId"] for job in jobs}
    for job in jobs:
        if (parent := sums.get(job["parentJobId"] or "")) is not None:
            parent.children += 1
            parent.live_children += job["status"] in LIVE
        above = parents[job["jobId"]]
        while cost := job.get("costUsd"):
            if above not in sums:
                break
            sums[above].cost += cost
            above = parents[above]
    return sums


def _forest(jobs: Sequence[Mapping[str, Any]]) -> list[_Node]:
    nodes = {job["jobId"]: _Node(job) for job in jobs}
    roots: list[_Node] = []
    for node in nodes.values():
        above = nodes.get(node.job["parentJobId"] or "")
        (roots if above is None else above.below).append(node)
    return roots


def _end(job: Mapping[str, Any], said: str, style: str) -> Text:
    """Return why a job ended, where that is not plain, and its answer or error."""
    reason = job.get("reason")
    why = "" if reason in (None, "completed") else strip_terminal_codes(str(reason))
    # An answer is set apart from what a live job says.
    return Text(": ".join(filter(None, (why, one_line(said, _WIDEST)))), "dim italic" if not why else style)


def _lineage(job: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    line = [job]
    while (above := by_id.get(line[-1]["parentJobId"] or "")) is not None:
        line.append(above)
    return line


def _said(job: Mapping[str, Any]) -> str:
    return job.get("excerpt") or for_a_person(job.get("error") or "")


def began(job: Mapping[str, Any]) -> float | None:
    """Return when a job was started, or admitted where it was not, in seconds since the epoch."""
    return moment(job.get("startedAt") or job.get("createdAt") or job.get("startTime"))


def change_line(job: Mapping[str, Any], now: float) -> Text:
    """Return a line for a job that began or ended: time, id, status, cost, task and error."""
    then = began(job) if job["status"] in LIVE else moment(job.get("endedAt") or job.get("endTime"))
    mark, style = STYLES.get(job["status"], ("?", ""))
    parts = [
        clock(now if then is None else then, now),
        strip_terminal_codes(job["jobId"]),
        job["status"],
        dollars(job.get("costUsd")),
    ]
    line = Text(" ".join(filter(None, parts)), style)
    line.append(f" {one_line(job['task'], _WIDEST)}", style="")
    if job["status"] in FAILED and _said(job):
        line.append(f"  {job.get('reason') or mark}: {one_line(_said(job), _WIDEST)}", style="")
    return line
