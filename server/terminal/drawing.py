"""Draws a tree of jobs in a terminal."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text
from rich.tree import Tree

from jobs.safe_text import safe

STYLES: Mapping[str, tuple[str, str]] = {
    "queued": ("○", "dim"),
    "running": ("◐", "cyan"),
    "completed": ("●", "green"),
    "failed": ("✗", "red"),
    "timeout": ("⧗", "yellow"),
    "cancelled": ("⊘", "magenta"),
}
"""Mark and style of each status."""

_TASK_WIDTH = 48
_ANSWER_WIDTH = 72
_PHRASE_WIDTH = 500


def one_line(text: str, width: int) -> str:
    """Return the beginning of a text in one line that is safe to show."""
    line = " ".join(safe(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def draw(title: str, jobs: Sequence[Mapping[str, Any]], paused: str = "") -> Tree:
    """Return a drawing of jobs below a title.

    Args:
        title: What stands at the top.
        jobs: Lines of `claude_list_jobs`, the newest first: `jobId`, `parentJobId`, `status`, `task`, and what else is
            there.
        paused: Why some of them wait, or an empty text.
    """
    tree = Tree(Text.assemble((title, "bold"), (f"  {safe(paused)}" if paused else "", "yellow")))
    branches: dict[str, Tree] = {}
    # Those of one time stand in the order of their admission.
    oldest_first = jobs[::-1]
    for job in sorted(oldest_first, key=lambda job: (job["recursionDepth"], job["startTime"] or "")):
        above = branches.get(job["parentJobId"] or "", tree)
        branches[job["jobId"]] = above.add(_label(job))
    return tree


def job_line(job: Mapping[str, Any]) -> Text:
    """Return one line of `claude_list_jobs` as a person reads it: mark, id, status, cost, begin and task."""
    mark, style = STYLES.get(job["status"], ("?", ""))
    began = (job.get("startTime") or "")[:19].replace("T", " ")
    cost = f"${job['costUsd']:.4f}" if job.get("costUsd") else ""
    return Text.assemble(
        (f"{mark} ", style),
        (safe(job["jobId"]), "bold"),
        (f"  {job['status']:<9}", style),
        f"  {cost:>8}  {safe(began):<19}  ",
        one_line(job["task"], _TASK_WIDTH),
        *_waits(job),
    )


def description(status: Mapping[str, Any]) -> Text:
    """Return a reply of `claude_status` as a person reads it: a line for each thing that it says."""
    said = {_words(key): _phrase(value) for key, value in status.items() if value not in (None, "", {}, [])}
    width = max(map(len, said), default=0)
    lines = [Text.assemble((f"{name:<{width}}  ", "dim"), phrase) for name, phrase in said.items()]
    return Text("\n").join(lines)


def _words(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", safe(key)).lower()


def _phrase(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(key))} {_phrase(inner)}" for key, inner in value.items() if inner is not None)
    return one_line(str(value), _PHRASE_WIDTH)


def _waits(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f"  waiting for {job['waitingFor']}", "yellow")] if job.get("waitingFor") else []


def _label(job: Mapping[str, Any]) -> Text:
    mark, style = STYLES.get(job["status"], ("?", ""))
    label = Text.assemble((mark, style), " ", (job["jobId"], "bold"), " ", one_line(job["task"], _TASK_WIDTH))
    if job.get("costUsd"):
        label.append(f"  ${job['costUsd']:.4f}", style="dim")
    for part in _waits(job):
        label.append(*part)
    if job.get("reason") not in (None, "completed"):
        label.append(f"  {job['reason']}", style=style)
    if job.get("excerpt"):
        label.append(f"\n  {one_line(job['excerpt'], _ANSWER_WIDTH)}", style="italic")
    return label
