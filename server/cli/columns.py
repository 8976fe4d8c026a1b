"""Lays out lines of jobs in the columns of a terminal: task, what is done now, cost and time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from server.cli.lines import one_line

_GAP = 2
_LEAST_TASK = 8
_WIDEST_TASK = 48
"""Most columns of a task in a terminal."""

_WIDEST = 200
"""Most columns of a task in a file; a list's reply holds no more of it."""

_LEAST_WIDTH = 60
"""Columns of a terminal below which cost and time are left out."""

_LEAST_FIGURES = (len("$0.0123"), len("1m 05s"))
"""Columns of a cost and of a time at least: what is drawn repeatedly must not move with each figure."""

_STEP = 8
"""The columns do not move for a change of fewer columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line about a job.

    Args:
        head: What comes before the task, with a blank at its end.
        task: The task.
        now: What the job does, waits for, or why it ended; may be empty.
        cost: What it cost, or an empty text.
        time: How long it took, or an empty text.
    """

    head: Text
    task: str
    now: Text
    cost: str = ""
    time: str = ""


def laid_out(rows: Sequence[Row | Text], width: int | None) -> Iterator[Text]:
    """Yield the line of each row; a text is a line as it is.

    Args:
        rows: The rows.
        width: Columns at most, or None where there are none: then nothing is cut or aligned.
    """
    only = [row for row in rows if isinstance(row, Row)]
    if width is None:
        yield from (_unaligned(row) if isinstance(row, Row) else row for row in rows)
        return
    figures = [
        max(least, *map(cell_len, column)) if any(column) else 0
        for least, column in zip(_LEAST_FIGURES, _figures(only), strict=True)
    ]
    room = width - sum(_GAP + each for each in figures if each) if width >= _LEAST_WIDTH else width
    begin = _second_column([row for row in only if row.now], room)
    for row in rows:
        has_figures = isinstance(row, Row) and bool(row.cost or row.time)
        line = row.copy() if isinstance(row, Text) else _row(row, begin, room if has_figures else width)
        if isinstance(row, Row) and has_figures and room < width:
            line.truncate(room, overflow="ellipsis")
            line.pad_right(room - line.cell_len)
            cells = zip((row.cost, row.time), figures, strict=True)
            line.append("".join(f"{figure:>{columns + _GAP}}" for figure, columns in cells if columns), "dim")
        line.truncate(width, overflow="ellipsis")
        line.rstrip()
        yield line


def _figures(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    return [row.cost for row in rows], [row.time for row in rows]


def _unaligned(row: Row) -> Text:
    figures = "".join(f"  {each}" for each in (row.cost, row.time) if each)
    now = Text.assemble("  ", row.now) if row.now else ""
    return Text.assemble(row.head, one_line(row.task, _WIDEST), (figures, "dim"), now)


def _second_column(rows: Sequence[Row], room: int) -> int:
    """Return where the second column begins: as far left as the tasks allow, and no further right than is fair."""
    tasks = max((row.head.cell_len + cell_len(_task(row)) for row in rows), default=0) + _GAP
    now = -(-max((row.now.cell_len for row in rows), default=0) // _STEP) * _STEP
    return min(tasks, max(room - now, room // 2))


def _row(row: Row, begin: int, room: int) -> Text:
    left = row.head.cell_len
    if not row.now:
        return Text.assemble(row.head, one_line(_task(row), max(_LEAST_TASK, room - left)))
    # A task that is longer may have the columns that this row does not need.
    begin = max(begin, min(left + cell_len(_task(row)) + _GAP, room - row.now.cell_len))
    task = one_line(_task(row), max(_LEAST_TASK, begin - left - _GAP))
    line = Text.assemble(row.head, task)
    line.pad_right(max(0, begin - _GAP - line.cell_len))
    line.append(" " * _GAP)
    now = row.now.copy()
    now.truncate(max(0, room - line.cell_len), overflow="ellipsis")
    return line.append_text(now)


def _task(row: Row) -> str:
    return one_line(row.task, _WIDEST_TASK)
