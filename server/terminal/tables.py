"""Tables that fit: a cell in a row where there is room, and below it where there is none."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from jobs.safe_text import safe
from server.terminal.lines import wrapped

_VALUE_WIDTH = 13


def setting_lines(rows: Sequence[Mapping[str, Any]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table of settings: name, value, and where that came from and holds.

    Args:
        rows: With `setting`, `value`, `source` and `scope`.
        width: Columns at most, or None for as many as a row takes.
    """
    cells = [(row["setting"], safe(json.dumps(row["value"])), f"{row['source']} [{row['scope']}]") for row in rows]
    names, values = (max((len(line[column]) for line in cells), default=0) for column in range(2))
    if width is not None:
        # One long path must not push where each value came from into a line of its own.
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
