"""The command `search`: words in tasks, answers and transcripts of all trees."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.cells import cell_len
from rich.text import Text

from server.cli.console import AsJson, client, fail, note, out, say_json
from server.cli.engine import ask
from server.cli.lines import one_line, show, width_of
from server.cli.times import age, age_seconds

_LEAST_WIDTH = 20
"""Columns of an excerpt on the narrowest terminal."""


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else age_seconds(value)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error


def search(
    words: Annotated[list[str], typer.Argument(help="Words, all of which must be there.", metavar="TEXT")],
    *,
    status: Annotated[
        Literal["queued", "running", "completed", "failed", "timeout", "cancelled"] | None,
        typer.Option(metavar="STATUS", help="Only jobs of this status.", show_default=False),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only jobs that are newer: 30m, 2h, 3d.", show_default=False)
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="AGE", help="Only jobs that are older.", show_default=False)
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only jobs that work in it or below it.", show_default=False),
    ] = None,
    transcripts: Annotated[
        bool, typer.Option("--transcripts", help="Also read what the jobs said and did; this takes seconds.")
    ] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="Most lines.", min=1, max=200)] = 20,
    as_json: AsJson = False,
) -> None:
    """Find jobs by words in their tasks and answers, the newest first; status 1 where there is none."""
    newer, older = _seconds(since), _seconds(before)
    now = time.time()
    wanted = {
        "status": status,
        "directory": None if directory is None else str(directory.expanduser().resolve()),
        **({} if newer is None else {"since": now - newer}),
        **({} if older is None else {"before": now - older}),
    }
    request = {"text": " ".join(words), "jobs": wanted, "limit": limit, "transcripts": transcripts}
    with client():
        answer = _asked({"do": "search", "search": request})
    if as_json:
        say_json({name: value for name, value in answer.items() if name != "ok"})
    else:
        show(out, (_line(hit, now, width_of(out)) for hit in answer["hits"]))
        for remark in _remarks(answer, limit, transcripts=transcripts):
            note(remark)
    if not answer["hits"]:
        raise typer.Exit(1)


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    told = False
    while True:
        answer = ask(request)
        if answer is None:
            fail("The engine stopped meanwhile. Try again.")
        if not (left := answer.get("catchingUp")):
            return answer
        if not told:
            note(f"{left} jobs are new since the last search: they are taken into the index first.")
            told = True


def _line(hit: Mapping[str, Any], now: float, width: int | None) -> Text:
    head = f"{hit['jobId']}  {hit['status']:<9}  {age(hit['submittedAt'], now):<8}  {hit['where']:<10}  "
    line = Text(head)
    excerpt, matches = hit["excerpt"], hit["matches"]
    if width is not None:
        excerpt, matches = fitted(excerpt, matches, max(_LEAST_WIDTH, width - cell_len(head)))
    at = 0
    for start, end in matches:
        line.append(excerpt[at:start]).append(excerpt[start:end], style="bold")
        at = end
    return line.append(excerpt[at:])


def fitted(excerpt: str, matches: Sequence[Sequence[int]], room: int) -> tuple[str, Sequence[Sequence[int]]]:
    """Return as much of an excerpt as fits, with the first match in it."""
    first = matches[0][0] if matches else 0
    begin = max(0, first - room // 3) if cell_len(excerpt) > room else 0
    kept, mark = excerpt[begin:].lstrip(), "…" if begin else ""
    shown = one_line(mark + kept, room)
    # What was cut at the beginning moves every match.
    moved = len(excerpt) - len(kept) - len(mark)
    found = [(max(0, start - moved), min(end - moved, len(shown))) for start, end in matches]
    return shown, [(start, end) for start, end in found if start < end]


def _remarks(answer: Mapping[str, Any], limit: int, *, transcripts: bool) -> Iterator[str]:
    hits, scan = answer["hits"], answer.get("transcripts")
    if not hits:
        where = "task, answer or transcript" if transcripts else "task or answer; --transcripts searches what they said"
        yield f"No job has these words in its {where}."
    elif len(hits) >= limit:
        yield f"There may be more than {limit}: --limit shows more, --since, --before and --status fewer."
    if scan and scan["notSearched"]:
        size = scan["bytes"] / 2**20
        yield (
            f"Transcripts: the newest {scan['searched']} were searched ({size:.0f} MiB), {scan['notSearched']} older "
            "ones were not. --since, --before, --directory and --status narrow the search."
        )
