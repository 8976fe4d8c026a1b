"""Cuts and wraps lines and tables to the columns of a terminal."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console
from rich.text import Text

from jobs.util.text import strip_terminal_codes

_WIDER = re.compile("[\ufe0e\ufe0f]")
"""Characters that make the one before them wider in some terminals and not in others."""

_MARK = re.compile(r"\s*(?:[●✻▲✗>] |⎿  )?")
"""The mark at the start of a paragraph's first line; its other lines are aligned with the text after it."""


def is_screen(console: Console) -> bool:
    """Tell whether a drawing can be redrawn on a console: FORCE_COLOR alone makes no terminal of a pipe."""
    return console.file.isatty() and not console.is_dumb_terminal


def width_of(console: Console) -> int | None:
    """Return the columns of a console, or None where it is a file or a pipe, which has no columns."""
    return console.width if console.file.isatty() else None


def one_line(text: str, width: int) -> str:
    """Return the beginning of a text as one line that is safe to show and takes at most `width` columns."""
    line = " ".join(_WIDER.sub("", strip_terminal_codes(text)).split())
    if cell_len(line) <= width:
        return line
    return f"{set_cell_size(line, width - 1).rstrip()}…" if width > 0 else ""


def wrapped(text: str, width: int | None) -> Iterator[str]:
    """Yield the lines of a text, each of at most `width` columns, broken at blanks; None breaks none.

    Only the first part of a line keeps its beginning, blanks or a mark; the others are indented by its width.
    """
    for line in text.split("\n"):
        if width is None or cell_len(line) <= width:
            yield line.rstrip()
        else:
            yield from _wrapped(line, width)


def _wrapped(line: str, width: int) -> Iterator[str]:
    found = _MARK.match(line)
    head = found[0] if found else ""
    if cell_len(head) > width // 2:
        head = head[: width // 2]
    indent, current = " " * cell_len(head), head
    for word in line[len(head) :].split(" "):
        for index, part in enumerate(chop_cells(word, width - len(indent)) or [""]):
            joined = f"{current} {part}" if current.strip() and current != head and not index else f"{current}{part}"
            if index or cell_len(joined) > width:
                yield current.rstrip()
                joined = f"{indent}{part}"
            current = joined
    yield current.rstrip()


def show(console: Console, lines: Iterable[Text | str]) -> None:
    """Print lines as they are: rich does not break or pad them, or interpret their text."""
    for line in lines:
        text = Text(line) if isinstance(line, str) else line.copy()
        text.rstrip()
        console.print(text, soft_wrap=True)


_VALUE_WIDTH = 13


def setting_lines(rows: Sequence[Mapping[str, Any]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table of settings: name, value, source and scope.

    Args:
        rows: With `setting`, `value`, `source` and `scope`.
        width: Columns at most, or None for as many as a row takes.
    """
    cells = [
        (row["setting"], strip_terminal_codes(json.dumps(row["value"])), f"{row['source']} [{row['scope']}]")
        for row in rows
    ]
    names, values = (max((len(line[column]) for line in cells), default=0) for column in range(2))
    if width is not None:
        # One long path must not push every source into the next line.
        values = min(values, _VALUE_WIDTH)
    indent = " " * (names + 4)
    for name, value, source in cells:
        line = f"  {name:<{names}}  {value:<{values}}  {source}"
        if width is None or cell_len(line) <= width:
            yield line
            continue
        first, *others = wrapped(f"{indent}{value}", width)
        yield f"  {name:<{names}}  {first.strip()}"
        yield from others
        yield from wrapped(f"{indent}  {source}", width)


def spending_lines(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[str]:
    """Return what each account has spent, a line each.

    Args:
        rows: As replies have them.
        names: What is known of an account, by the beginning of its digest.
    """
    found = []
    for row in rows:
        name = names.get(row["account"])
        whose = "" if len(rows) == 1 else f"account {row['account']}{f' ({name})' if name else ''} "
        today = _of_budget(row["todayUsd"], row["dailyBudgetUsd"])
        month = _of_budget(row["monthUsd"], row["monthlyBudgetUsd"])
        found.append(f"{whose}spent {today} today, {month} this month")
    return found


def _of_budget(spent: float, budget: float | None) -> str:
    return f"${spent:.2f}" if budget is None else f"${spent:.2f} of ${budget:.2f}"
