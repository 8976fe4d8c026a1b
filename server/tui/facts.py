"""What the view says about the selected node, above its transcript."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.cells import cell_len
from rich.text import Text

from jobs.activity import names_another_model
from jobs.model import LIVE
from jobs.util.text import strip_terminal_codes
from server.cli.doing import state_of
from server.cli.lines import one_line, wrapped
from server.cli.times import told
from server.cli.tree_view import counted
from server.tui.cells import brief_span, doing, dollars, in_words, label_of, mark_of, silence, waits
from server.tui.model import Node, Row

_NAME_WIDTH: Final = 10
_LEAST_WIDTH: Final = 20
_TASK_LINES: Final = 3
_ATTEMPTS: Final = 4

Details = Mapping[str, Any]
"""As `JobDetails.of` returns them."""


def facts_of(node: Node, details: Details | None, width: int, now: float) -> Text:
    """Return the lines about a node.

    Args:
        node: The node.
        details: Everything about its job, or None while that is not there.
        width: Columns.
        now: Seconds since the epoch.
    """
    mark, style = mark_of(node)
    head = Text.assemble((f"{mark} ", style), (one_line(label_of(node), max(1, width - 2)), "bold"))
    lines = [head]
    for name, value, value_style in _rows(node, details or {}, now):
        shown = _end_of(value, width - _NAME_WIDTH) if name == "Directory" else value
        lines += _lines(name, shown, value_style, width)
    return Text("\n").join(lines)


def _lines(name: str, value: str, style: str, width: int) -> Iterator[Text]:
    room = max(_LEAST_WIDTH, width - _NAME_WIDTH)
    parts = list(wrapped(" ".join(strip_terminal_codes(value).split()), room))
    if len(parts) > _TASK_LINES:
        parts = [*parts[: _TASK_LINES - 1], one_line(" ".join(parts[_TASK_LINES - 1 :]), room)]
    for index, part in enumerate(parts):
        yield Text.assemble((f"{'' if index else name:<{_NAME_WIDTH}}", "dim"), (part, style))


def _end_of(path: str, width: int) -> str:
    """Return a path in one line; where it is too long, its end, which tells more than its beginning."""
    while cell_len(path) > max(_LEAST_WIDTH, width):
        path = f"…{path.removeprefix('…')[1:]}"
    return path


def _rows(node: Node, details: Details, now: float) -> Iterator[tuple[str, str, str]]:
    row = node.row
    if row is None:
        yield "Now", counted(node.counts), ""
    else:
        yield "Status", _status(row), ""
        yield from _present(node, row, now)
    if node.children:
        below = {**node.counts}
        if row is not None:
            below[state_of(row)] -= 1
            yield "Below", f"{counted(below)}", ""
    yield "Cost", _cost(node), ""
    began, ended = node.times()
    if began is not None:
        yield "Time", f"{brief_span((ended or now) - began)}, began {told(began, now, brief=True)}", ""
    yield from _how(node, details, now)


def _status(row: Row) -> str:
    words = [row["status"]]
    if (reason := row.get("reason")) not in (None, "completed", row["status"]):
        words.append(in_words(reason))
    if (attempt := row.get("attempt", 0)) > 1:
        words.append(f"attempt {attempt}")
    return " · ".join(words)


def _present(node: Node, row: Row, now: float) -> Iterator[tuple[str, str, str]]:
    if row["status"] not in LIVE:
        if row["status"] not in ("completed", "cancelled") or row.get("error"):
            said, style = doing(node, now) if not node.is_folded else (row.get("error", ""), "red")
            yield "Error", row.get("error") or said, style
        return
    what = row.get("waitingFor")
    if node.is_paused and what != "pause":
        yield "Paused", "what runs goes on to its end; then nothing more starts (p resumes)", "yellow"
    if what:
        said = waits(node, row, what, now).removeprefix("waits ")
        yield "Waits", said, "bold yellow" if what == "permission" else "yellow"
    if row["status"] == "running":
        silent = f"{brief_span(silence(row, now))} ago" if row.get("lastOutputAt") is not None else ""
        yield "Now", " · ".join(filter(None, [row.get("activity"), silent])) or "running", ""


def _cost(node: Node) -> str:
    own, row = node.own_cost(), node.row or {}
    parts = [dollars(node.cost) or "nothing yet"]
    if node.children and own:
        parts.append(f"{dollars(own)} itself")
    tokens = row.get("inputTokens", 0) + row.get("outputTokens", 0)
    if tokens:
        parts.append(f"{_thousands(tokens)} tokens")
    budget = row.get("maxBudgetUsd") or (node.tree or {}).get("maxBudgetUsd")
    if budget:
        parts.append(f"budget {dollars(budget)}")
    return " · ".join(parts)


def _thousands(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


def _how(node: Node, details: Details, now: float) -> Iterator[tuple[str, str, str]]:
    attempts: Sequence[Mapping[str, Any]] = details.get("attempts", ())
    row = node.row or {}
    last = attempts[-1] if attempts else {}
    model = row.get("answeringModel") or last.get("model") or row.get("model")
    asked = row.get("model")
    if model:
        other = f" (asked for {asked})" if names_another_model(asked, model) else ""
        version = row.get("cliVersion") or last.get("cliVersion")
        yield "Model", f"{model}{other}{f' · CLI {version}' if version else ''}", ""
    if rights := details.get("rights"):
        yield "Rights", _rights(rights), ""
    if cwd := details.get("cwd"):
        yield "Directory", _from_home(cwd), ""
    if len(attempts) > 1:
        yield "Attempts", "; ".join(_attempt(one, now) for one in attempts[-_ATTEMPTS:]), ""
    if depends := row.get("dependsOn"):
        yield "After", ", ".join(depends), ""
    yield "Id", node.id, "dim"
    if session := details.get("sessionId"):
        yield "Session", session, "dim"


def _rights(rights: Mapping[str, Any]) -> str:
    parts = [rights["permissionMode"], ", ".join(rights.get("allowedTools", ()))]
    parts += [f"without {', '.join(off)}" for off in [rights.get("disallowedTools")] if off]
    parts += [f"also in {', '.join(map(_from_home, more))}" for more in [rights.get("directories")] if more]
    parts += [f"servers {', '.join(servers)}" for servers in [rights.get("mcpServers")] if servers]
    return " · ".join(filter(None, parts))


def _attempt(attempt: Mapping[str, Any], now: float) -> str:
    began = attempt.get("startedAt", now)
    how = in_words(attempt.get("reason", "runs"))
    parts = [f"{attempt['number']} {how}", brief_span(attempt.get("endedAt", now) - began)]
    return " ".join(filter(None, [*parts, dollars(attempt.get("costUsd", 0.0))]))


def _from_home(path: str) -> str:
    home = os.path.expanduser("~")  # noqa: PTH111 - a text, not a path that is used
    return f"~{path[len(home) :]}" if path == home or path.startswith(f"{home}/") else path
