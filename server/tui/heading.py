"""The lines around the list: what there is, what needs the person, and the keys."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.style import Style
from rich.text import Text

from server.cli.lines import one_line
from server.cli.times import clock
from server.tui.cells import dollars, label_of, waits
from server.tui.marks import MARKS
from server.tui.model import Node, Row, added_up

LOADING: Final = "Reading the jobs …"

EMPTY: Final = """\
No jobs here yet.

Start one in another terminal:

  claude-jobs run "Say what this project does"
  claude-jobs batch "Review a.py" "Review b.py"

Or say to Claude Code: use claude-jobs to …

`claude-jobs demo --slow` plays a tree without an account, and says how to look at it."""

_KEYS: Final = (
    ("enter", "open", "open", 3),
    ("/", "filter", "filter", 3),
    ("k", "kill", "kill", 2),
    ("r", "retry", "retry", 5),
    ("s", "send", "send", 6),
    ("a", "answer", "allow", 3),
    ("p", "pause", "pause", 4),
    ("y", "copy", "copy", 7),
    ("?", "help", "help", 1),
    ("q", "leave_program", "quit", 1),
)
"""Key, action and words of the bar at the bottom; where not all fit, those with the highest number are left out."""

_BACK: Final = ("esc", "leave", "back", 1)

_MOST_ALERT: Final = 200


def head_line(tops: Iterable[Node], filtered: str, width: int) -> Text:
    """Return what there is: how many jobs are in each state, and what they cost.

    Args:
        tops: The subtrees that are shown.
        filtered: The filter, or an empty text.
        width: Columns; where there are too few, the name of the program is left out, and then the words.
    """
    counts, cost = added_up(tops)
    end = Text(dollars(cost), "bold")
    if filtered:
        end.append(f"{'  ' if cost else ''}filter: {filtered} (esc clears)", "not bold yellow")
    for title, has_words in ((True, True), (False, True), (False, False)):
        parts = [Text("claude-jobs", "bold")] if title else []
        for state, count in counts.items():
            part = Text.assemble((f"{MARKS[state][0]} {count}", MARKS[state][1]))
            parts.append(part.append(f" {state}") if has_words else part)
        line = Text("  ").join([*parts, end])
        if line.cell_len <= width:
            break
    return line


def alert_line(asking: Node | None, pauses: Sequence[Row], *, all_paused: bool, now: float) -> Text | None:
    """Return what needs the person or holds jobs back, or None.

    Args:
        asking: A job that asks for a permission, or None.
        pauses: Until when accounts are paused, and why.
        all_paused: Whether somebody has paused everything.
        now: Seconds since the epoch.
    """
    if asking is not None and asking.row is not None:
        said = f"? {label_of(asking)} {waits(asking, asking.row, 'permission', now)}"
        return Text.assemble((one_line(said, _MOST_ALERT), "bold yellow"), "  ", ("a", "bold"), " answers")
    if all_paused:
        return Text("Everything is paused: no job starts before `claude-jobs resume`.", "yellow")
    # One for which no job waits holds back none: a person may have paused them all.
    if holding := [pause for pause in pauses if pause["waiting"]]:
        parts = [f"until {clock(pause['until'], now, brief=True)}: {pause['because']}" for pause in holding[:3]]
        count = sum(pause["waiting"] for pause in holding)
        waiting = f"; {count} job{' waits' if count == 1 else 's wait'}"
        return Text(one_line(f"Paused {', '.join(parts)}{waiting}", _MOST_ALERT), "yellow")
    return None


def key_bar(width: int, *, opened: bool = False) -> Text:
    """Return the keys and what they do, as many as fit; a click does the same.

    Args:
        width: Columns.
        opened: Whether the details are in the place of the list, so that escape leads back.
    """
    shown = [_BACK, *_KEYS[1:]] if opened else list(_KEYS)
    while sum(len(key) + len(words) + 3 for key, _, words, _ in shown) - 2 > width:
        shown.remove(max(shown, key=lambda each: each[3]))
    parts = []
    for key, action, words, _ in shown:
        part = Text(f"{key} {words}", Style.from_meta({"@click": f"app.{action}"}))
        part.stylize("bold", 0, len(key))
        parts.append(part)
    return Text("  ").join(parts)
