"""Draws a node in one line: job, what it does or waits for, cost, time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from jobs.model import LIVE
from server.cli.doing import state_of
from server.cli.lines import one_line
from server.cli.times import clock, span
from server.cli.tree_view import counted
from server.cli.wording import for_a_person
from server.tui.marks import FOLDED, LEAF, MARKS, UNFOLDED
from server.tui.model import Node, Row

COST_WIDTH: Final = 7
TIME_WIDTH: Final = 7
_GAP: Final = 2
_LEAST_JOB: Final = 22

_WIDEST: Final = 1000
"""Columns of a row at most."""

SILENT_SECONDS: Final = 10
"""Seconds without output from which on a row says how many they are."""

_WAITS_FOR_NOBODY: Final = frozenset({"slot", "memory", "children", "siblings", "lead", "host"})
"""Waits that end by themselves when other jobs end; the others are told in yellow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Widths of the columns.

    Args:
        job: Of the job.
        now: Of what it does.
    """

    job: int
    now: int

    @classmethod
    def within(cls, width: int) -> "Columns":
        """Return the columns of a list that is so wide."""
        rest = max(0, width - COST_WIDTH - TIME_WIDTH - 3 * _GAP)
        job = max(min(_LEAST_JOB, rest), rest * 9 // 20)
        return cls(job=job, now=rest - job)


def heading(columns: Columns) -> str:
    """Return the line above the list."""
    gap = " " * _GAP
    now = _fitted("Now", columns.now)
    return f"{_fitted('Job', columns.job)}{gap}{now}{gap}{'Cost':>{COST_WIDTH}}{gap}{'Time':>{TIME_WIDTH}}"


def row_segments(node: Node, columns: Columns, now: float, *, is_selected: bool) -> Sequence[Segment]:
    """Return the line of a node.

    Args:
        node: The node.
        columns: The widths.
        now: Seconds since the epoch.
        is_selected: Show it in reverse, which needs no colour.
    """
    gap = Segment(" " * _GAP, Style())
    began, ended = node.times()
    time = "" if began is None else brief_span((now if ended is None else ended) - began)
    figures = f"{gap.text}{dollars(node.cost):>{COST_WIDTH}}{gap.text}{time:>{TIME_WIDTH}}"
    # A row without figures has their columns for what it says.
    room = columns.now if figures.strip() else columns.now + len(figures)
    said = _said(node, now)
    spare = 0 if _is_at_work(node) else max(0, room - cell_len(said[0]))
    job = _job_cell(node, columns.job, spare)
    taken = sum(segment.cell_length for segment in job) - columns.job
    cells = [
        *job,
        gap,
        *_now_cell(said, _silent(node, now), room - taken),
        Segment(figures if figures.strip() else "", Style()),
    ]
    if not is_selected:
        return cells
    # In one style: colours on a reversed line are hard to read.
    return [Segment("".join(cell.text for cell in cells), Style(reverse=True))]


def _is_at_work(node: Node) -> bool:
    """Tell whether what the row of a node says changes with each call of a tool."""
    row = node.row
    if row is None or (node.is_folded and node.children):
        return False
    return row["status"] == "running" and not row.get("waitingFor")


def _job_cell(node: Node, width: int, spare: int) -> Sequence[Segment]:
    """Return a node's place and name.

    Args:
        node: The node.
        width: Columns.
        spare: How many more it may take where its name is longer: none where they would come and go.
    """
    fold = LEAF if not node.children else FOLDED if node.is_folded else UNFOLDED
    mark, style = mark_of(node)
    head = f"{'  ' * min(node.depth, max(0, width // 2 - 4))}{fold}"
    tail = f" {_jobs(node.total)}" if node.is_folded and node.children and node.row is not None else ""
    room = max(0, width - cell_len(head) - 2)
    label = one_line(label_of(node), max(0, room + spare - len(tail)))
    rest = max(len(tail), room - cell_len(label))
    return [
        Segment(head, Style()),
        Segment(f"{mark} ", Style.parse(style)),
        Segment(label, Style(bold=node.row is None)),
        Segment(f"{tail:<{rest}}"[: max(0, room + spare - cell_len(label))], Style(dim=True)),
    ]


def _said(node: Node, now: float) -> tuple[str, str]:
    """Return what a node does, as `doing` does, in one line."""
    text, style = doing(node, now)
    return one_line(text, _WIDEST), style


def _now_cell(said: tuple[str, str], tail: str, width: int) -> Sequence[Segment]:
    text, style = said
    # Cut before it: how long a job is silent must not be lost.
    shown = set_cell_size(f"{one_line(text, max(0, width - cell_len(tail)))}{tail}", max(0, width))
    return [Segment(shown, Style.parse(style))]


def _silent(node: Node, now: float) -> str:
    row = node.row
    if row is None or not _is_at_work(node):
        return ""
    silent = silence(row, now)
    return f" · {brief_span(silent)}" if silent >= SILENT_SECONDS else ""


_FOR_A_BATCH: Final = ("running", "waiting", "queued", "failed", "timeout", "cancelled")
"""The states whose mark a batch has: the first of them that one of its jobs is in."""


def mark_of(node: Node) -> tuple[str, str]:
    """Return mark and style of a node's state."""
    if node.row is not None:
        return MARKS["asking" if node.row.get("waitingFor") == "permission" else state_of(node.row)]
    if node.asking:
        return MARKS["asking"]
    return MARKS[next((state for state in _FOR_A_BATCH if node.counts.get(state)), "completed")]


def label_of(node: Node) -> str:
    """Return a node's name for a person: the key of its task, else the task itself."""
    if node.row is None:
        return f"batch {node.id[:6]}, {_jobs(node.total)}"
    return str(node.row.get("key") or node.row.get("task") or node.id)


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def doing(node: Node, now: float) -> tuple[str, str]:
    """Return what a node does or waits for, or how it ended, and the style of that.

    Args:
        node: The node.
        now: Seconds since the epoch.
    """
    row = node.row
    if row is None or (node.is_folded and node.children):
        paused = "paused; " if node.live and node.is_paused else ""
        return f"{paused}{counted(node.counts)}", "" if node.live else "dim"
    if row["status"] in LIVE:
        return _live(node, row, now)
    if row["status"] == "cancelled":
        # What it waited for did not complete; nobody has cancelled it itself.
        reason = row.get("reason")
        return in_words(reason) if reason == "dependency_failed" else "cancelled", "dim"
    if row["status"] == "completed":
        reason = row.get("reason", "completed")
        said = row.get("excerpt", "")
        return (said, "dim") if reason == "completed" else (f"{in_words(reason)}: {said}", "yellow")
    return for_a_person(row.get("error", "")) or in_words(row.get("reason", row["status"])), "red"


def _live(node: Node, row: Row, now: float) -> tuple[str, str]:
    if row.get("cancelling"):
        return "is being ended", "magenta"
    if what := row.get("waitingFor"):
        return waits(node, row, what, now), "bold yellow" if what == "permission" else _style_of_wait(what)
    if row["status"] == "queued":
        return "queued", "dim"
    # It goes on to its end; then nothing more starts there.
    return f"{'(paused) ' if node.is_paused else ''}{row.get('activity') or 'running'}", ""


def _style_of_wait(what: str) -> str:
    return "dim" if what in _WAITS_FOR_NOBODY else "yellow"


def silence(row: Row, now: float) -> float:
    """Return for how many seconds a running job has written nothing; 0 where that is not known."""
    last = row.get("lastOutputAt")
    return 0.0 if last is None else max(0.0, now - last)


def waits(node: Node, row: Row, what: str, now: float) -> str:
    """Return what a live job waits for, in a few words.

    Args:
        node: The node.
        row: Its row.
        what: `waitingFor` of the row.
        now: Seconds since the epoch.
    """
    because, until = row.get("waitingBecause", ""), row.get("waitingUntil")
    when = "" if until is None else f" until {clock(until, now, brief=True)}"
    match what:
        case "permission":
            return f"asks: {because}" if because else "asks for a permission"
        case "children" if node.children:
            live = sum(child.live > 0 for child in node.children)
            return f"waits for {live} of {_jobs(len(node.children))}"
        case "siblings":
            return f"waits for {_siblings(node, row) or 'other tasks'}"
        case "limit":
            return f"{because or 'usage limit'}{when}"
        case "pause":
            return because or "paused"
        case _:
            return f"{_WAITS.get(what, f'waits for {what}')}{when}"


def _siblings(node: Node, row: Row) -> str:
    """Return the names of the jobs that a job waits for."""
    wanted = set(row.get("dependsOn", ()))
    siblings = [] if node.parent is None else node.parent.children
    return ", ".join(label_of(one) for one in siblings if one.id in wanted and one.row and one.row["status"] in LIVE)


_WAITS: Final = {
    "children": "waits for its jobs",
    "slot": "waits for a slot",
    "memory": "waits for free memory",
    "back_off": "waits after an error",
}


def in_words(word: str) -> str:
    """Return a status or a reason for a person."""
    return str(word).replace("_", " ")


def dollars(amount: float) -> str:
    """Return US dollars in at most `COST_WIDTH` columns; an empty text for nothing."""
    if amount <= 0:
        return ""
    return f"${amount:.4f}" if amount < 0.01 else f"${amount:.2f}" if amount < 1000 else f"${amount:.0f}"


def brief_span(seconds: float) -> str:
    """Return a length of time in at most `TIME_WIDTH` columns: "4s", "4:12", "1:04:12", "3d 02h"."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole >= 86_400:
        return span(whole)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _fitted(text: str, width: int) -> str:
    return set_cell_size(one_line(text, width), width) if width > 0 else ""
