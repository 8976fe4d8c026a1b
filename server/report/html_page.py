"""The page of a report: one file of HTML that shows a tree, its times, costs and answers, and runs and loads nothing.

Every text is a job's. It is escaped, and the page's own policy forbids scripts, styles but its own, and requests.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

from server.report.job_section import JobSections, cut_note, short_path, symbol
from server.report.prose import prose
from server.report.time_axis import TimeAxis, sample_bar
from server.report.wording import NOTHING, WORDS, clock, counted, duration, money, span, state_of, tokens

_CSS: Final = Path(__file__).with_name("report.css")
"""The styles; they go into the page."""

DEEPEST: Final = 40
"""Levels that are drawn inside each other; what is deeper is beside the last one. Browsers nest 512 elements."""

SHORT_ANSWER: Final = 2500
"""Characters up to which the answer of a tree is open."""

Row = Mapping[str, Any]

_CIRCLE: Final = "M8 2.75a5.25 5.25 0 1 0 0 10.5 5.25 5.25 0 0 0 0-10.5z"

_SHAPES: Final[Mapping[str, Sequence[str]]] = {
    "asking": ["M5.2 6.2a2.8 2.8 0 1 1 4.3 2.4c-1 .6-1.5 1.1-1.5 2.1M8 13v.01"],
    "running": [_CIRCLE, "M8 2.75a5.25 5.25 0 0 0 0 10.5z"],
    "waiting": [_CIRCLE],
    "paused": ["M5.75 3.75v8.5M10.25 3.75v8.5"],
    "queued": [_CIRCLE],
    "completed": ["M3.25 8.5l3.25 3.25 6.25-7.25"],
    "failed": ["M4 4l8 8M12 4l-8 8"],
    "timeout": ["M4.5 2.75h7M4.5 13.25h7M5.25 2.75c0 3.5 5.5 7 5.5 10.5M10.75 2.75c0 3.5-5.5 7-5.5 10.5"],
    "cancelled": [_CIRCLE, "M4.4 11.6l7.2-7.2"],
    "about": [_CIRCLE, "M8 7.4v3.4M8 5.2v.01"],
}
"""Strokes of the symbol of each state, in a square of 16."""

_LEGEND: Final[Mapping[str, str]] = {
    "completed": "worked, done",
    "running": "works",
    "failed": "worked, failed",
    "cancelled": "worked, ended early",
    "wait": "waited for its jobs or a permission",
    "queued": "queued",
    "paused": "paused",
}
"""Kind of bar to what it means."""


def html_page(document: Row, *, home: str = "", zone: tzinfo | None = None) -> Iterator[str]:
    """Yield the parts of the page.

    Args:
        document: What `document_of` returned.
        home: The person's home directory, which is written as "~"; empty where it is not known.
        zone: The time zone of its times, or None for that of this machine.
    """
    tree, jobs = document["tree"], document["jobs"]
    axis = TimeAxis.of(document)
    yield from _head(tree, axis)
    yield from _heading(tree, jobs, home, zone)
    yield "<main>\n"
    yield from _answer(_top(jobs))
    yield from _tree(document, axis, home, zone)
    yield from _costs(document)
    yield "</main>\n"
    made = f"Made by claude-jobs {escape(str(tree.get('version', '')))} on {clock(tree['now'], zone)}."
    yield f"<footer>{made} This page runs no script and loads nothing.</footer>\n</body>\n</html>\n"


def _head(tree: Row, axis: TimeAxis) -> Iterator[str]:
    # The space between two marks of the time is that of the tree.
    style = f"{_styles()}:root{{--step:{axis.step_percent:.4f}%}}\n"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
    yield f"<title>{escape(tree.get('title') or tree['id'])} · claude-jobs</title>\n"
    yield f"<style>{style}</style>\n</head>\n<body>\n"
    yield '<svg class="defs" aria-hidden="true"><defs>'
    yield '<pattern id="wait" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    yield '<rect class="stripe-back" width="6" height="6"/><rect class="stripe" width="3" height="6"/></pattern>'
    for state, strokes in _SHAPES.items():
        paths = "".join(f'<path d="{stroke}"/>' for stroke in strokes)
        yield f'<symbol id="{state}" viewBox="0 0 16 16">{paths}</symbol>'
    yield "</defs></svg>\n"


@cache
def _styles() -> str:
    return _CSS.read_text(encoding="utf-8")


def _heading(tree: Row, jobs: Sequence[Row], home: str, zone: tzinfo | None) -> Iterator[str]:
    yield f'<header>\n<h1 dir="auto">{escape(tree.get("title") or tree["id"])}</h1>\n<p class="sums">'
    counts: dict[str, int] = {}
    for row in jobs:
        counts[state_of(row)] = counts.get(state_of(row), 0) + 1
    states = [f"{symbol(state)} <b>{counts[state]:,}</b> {word}" for state, word in WORDS.items() if state in counts]
    facts = [f'<span class="fact is-state">{one}</span>' for one in states]
    facts.append(f'<span class="fact"><b>{duration(tree["elapsedSeconds"])}</b> elapsed</span>')
    facts.append(f'<span class="fact">{_cost(tree)}</span>')
    used = f"{tokens(tree['inputTokens'])} in, {tokens(tree['outputTokens'])} out"
    facts.append(
        f'<span class="fact"><b>{tokens(tree["inputTokens"] + tree["outputTokens"])}</b> tokens ({used})</span>'
    )
    yield "".join(facts)
    yield '</p>\n<p class="about-tree">'
    lasts = "" if "endedAt" in tree else ", not over yet"
    said = [f"{span(tree['createdAt'], tree.get('endedAt'), zone)}{lasts}", short_path(tree.get("cwd", ""), home)]
    said.append(f"a part of the tree {tree['rootId']}" if tree.get("isPart") else "")
    said.append(("batch " if tree.get("isBatch") else "job ") + tree["id"])
    yield "".join(f"<span>{escape(one)}</span>" for one in said if one)
    yield "</p>\n</header>\n"


def _cost(tree: Row) -> str:
    cost, budget = tree["costUsd"], tree.get("maxBudgetUsd")
    said = f"<b>{money(cost) or '$0'}</b>"
    if not budget:
        return said
    used = min(1.0, cost / budget)
    full = ' class="is-full"' if used >= 0.95 else ""
    shares = f'<rect width="100%" height="100%"/><rect{full} width="{used:.1%}" height="100%"/>'
    meter = f'<svg class="meter" aria-hidden="true">{shares}</svg>'
    return f"{said} of {money(budget)}{meter}"


def _top(jobs: Sequence[Row]) -> Row | None:
    """Return the one job at the top, or None where there are more."""
    top = [row for row in jobs if row.get("depth", 0) == jobs[0].get("depth", 0)] if jobs else []
    return top[0] if len(top) == 1 else None


def _answer(top: Row | None) -> Iterator[str]:
    """Yield the answer of the one job at the top, which is what a reader looks for first."""
    if top is None or "answer" not in top:
        return
    answer = top["answer"]
    is_open = " open" if len(answer) <= SHORT_ANSWER else ""
    yield f'<details class="answer"{is_open}><summary><h2>Answer</h2></summary>\n<div class="prose" dir="auto">'
    yield from prose(answer)
    yield cut_note(top)
    yield "</div></details>\n"


def _tree(document: Row, axis: TimeAxis, home: str, zone: tzinfo | None) -> Iterator[str]:
    jobs = document["jobs"]
    sections = JobSections(document, axis, home, zone)
    drawn = [*_jobs(jobs, sections)]
    yield f'<section class="tree" aria-label="Jobs">\n<div class="tree-head"><h2>{counted(len(jobs), "job")}</h2>'
    legend = (f"<span>{sample_bar(kind)}{words}</span>" for kind, words in _LEGEND.items() if kind in sections.kinds)
    yield f'<p class="legend">{"".join(legend)}</p></div>\n'
    yield '<div class="line head" aria-hidden="true"><span class="name">Job</span><span class="now">Outcome</span>'
    yield '<span class="num">Cost</span><span class="num">Time</span>'
    yield f'<svg class="axis">{"".join(axis.marks())}</svg></div>\n'
    yield from drawn
    yield "</section>\n"


def _jobs(jobs: Sequence[Row], sections: JobSections) -> Iterator[str]:
    top = _top(jobs)
    lowest = min((row.get("depth", 0) for row in jobs), default=0)
    depth = -1
    for row in jobs:
        below = min(row.get("depth", 0) - lowest, DEEPEST, depth + 1)
        yield from _up(depth, below)
        yield from sections.begin(row, below, has_answer=row is not top)
        depth = below
    yield from _up(depth, -1)


def _up(depth: int, to: int) -> Iterator[str]:
    """Yield what closes the jobs that are open at one depth, up to another one, or opens a list one deeper."""
    if to > depth:
        yield '<ol class="jobs">\n'
    elif depth >= 0:
        yield "</details></li>\n"
        yield "</ol></details></li>\n" * (depth - max(to, 0))
        yield "" if to >= 0 else "</ol>\n"


def _costs(document: Row) -> Iterator[str]:
    depths, models = document["depths"], document["models"]
    yield '<section class="costs" aria-label="Costs">\n<h2>Costs</h2>\n<div class="tables">\n'
    yield from _cost_table("Depth", "Jobs", [(str(row["depth"]), row["jobs"], row) for row in depths])
    yield from _cost_table("Model", "Attempts", [(row["model"] or "not known", row["attempts"], row) for row in models])
    yield "</div>\n</section>\n"


def _cost_table(name: str, counts: str, rows: Sequence[tuple[str, int, Row]]) -> Iterator[str]:
    most = max((row["costUsd"] for _, _, row in rows), default=0.0) or 1.0
    yield f'<table><thead><tr><th scope="col">{name}</th><th scope="col" class="num">{counts}</th>'
    yield '<th scope="col" class="num">Tokens</th><th scope="col" class="num">Cost</th><td></td></tr></thead><tbody>\n'
    for label, count, row in rows:
        share = row["costUsd"] / most
        yield f'<tr><th scope="row" dir="auto">{escape(label)}</th><td class="num">{count:,}</td>'
        yield f'<td class="num">{tokens(row["inputTokens"] + row["outputTokens"])}</td>'
        yield f'<td class="num">{money(row["costUsd"]) or NOTHING}</td>'
        yield f'<td class="share"><svg aria-hidden="true"><rect width="{share:.1%}" height="100%" rx="2"/></svg></td>'
        yield "</tr>\n"
    yield "</tbody></table>\n"
