"""Draws `.github/tree.svg`, the picture in README.md: `poe picture`.

The real `claude` plays the demo's story, one child is held in a call of a tool, another one asks for a permission, and
`claude-jobs tree` prints what is there then in a terminal. What differs from run to run, ids and seconds, is replaced.
The picture needs no font and no other file.
"""

import hashlib
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, groupby, islice
from pathlib import Path
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from server.demo.environment import isolated_environment
from server.demo.messages_api import ScriptedApi
from server.demo.picnic import ALLOWED_TOOLS, invitation, root_tasks, story, write_files
from server.demo.script import Story, ToolCall, Turn
from tests.e2e.support import SYSTEM_PATH, find_cli
from tests.support.engines import House, Pump, house
from tests.support.seat import seated
from tests.support.waiting import until_now

FILE = Path(__file__).parents[1] / ".github" / "tree.svg"
COLUMNS = 90
"""Width of the terminal, in characters."""
SECONDS = 60.0
MOST_DRAWINGS = 30

_ASKING = "rain"
_CALL = "curl -s wttr.in/orchard"
_WAITS = {"children": 2, "permission": 1, None: 1}
_THERE = {"completed": 5, "running": 4, "queued": 1}

_WIDTH, _HEIGHT, _MARGIN = 8.4, 20, 20
"""Pixels of a character, of a line, and around the lines."""

_X, _Y, _R = _WIDTH / 2, _HEIGHT // 2, 4.1
_CIRCLE = f"m{-_R} 0a{_R} {_R} 0 1 0 {2 * _R} 0a{_R} {_R} 0 1 0 {-2 * _R} 0"
_SHAPES: Mapping[str, str] = {
    "│": f'<path class="guide" d="M{{x}} {{top}}v{_HEIGHT}"/>',
    "├": f'<path class="guide" d="M{{x}} {{top}}v{_HEIGHT}m0 {-_Y}h{_X:g}"/>',
    "└": f'<path class="guide" d="M{{x}} {{top}}v{_Y}h{_X:g}"/>',
    "─": f'<path class="guide" d="M{{left}} {{y}}h{_WIDTH}"/>',
    "○": f'<path class="{{style}} ring" d="M{{x}} {{y}}{_CIRCLE}"/>',
    "●": f'<path class="{{style}}" d="M{{x}} {{y}}{_CIRCLE}"/>',
    "◐": f'<path class="{{style}} ring" d="M{{x}} {{y}}{_CIRCLE}"/>'
    f'<path class="{{style}}" d="M{{x}} {{y}}m0 {-_R}a{_R} {_R} 0 0 0 0 {2 * _R}z"/>',
    "◌": f'<path class="{{style}} ring waits" d="M{{x}} {{y}}{_CIRCLE}"/>',
    "▾": '<path class="{style}" d="M{x} {y}m-4 -2h8l-4 5z"/>',
}
"""Characters that are drawn: fonts differ in their size, and leave gaps between lines."""

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">
<title>{title}</title>
<style>
svg {{ --page: #fff; --edge: #d0d7de; --text: #1f2328; --dim: #656d76; --guide: #afb8c1;
  --red: #cf222e; --green: #1a7f37; --yellow: #9a6700; --blue: #0969da; --magenta: #8250df; --cyan: #0a7ea4 }}
@media (prefers-color-scheme: dark) {{
  svg {{ --page: #0d1117; --edge: #30363d; --text: #e6edf3; --dim: #8d96a0; --guide: #484f58;
    --red: #f85149; --green: #3fb950; --yellow: #d29922; --blue: #4493f8; --magenta: #a371f7; --cyan: #39c5cf }}
}}
svg {{ color: var(--text) }}
rect {{ fill: var(--page); stroke: var(--edge) }}
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }}
text, path {{ fill: currentColor }}
.guide, .ring {{ fill: none; stroke: currentColor; stroke-width: 1.5 }}
.guide {{ color: var(--guide); stroke-width: 1 }}
.selected {{ fill: var(--edge) }}
.waits {{ stroke-dasharray: 2.1 2.2 }}
.bold {{ font-weight: 600 }}
.italic {{ font-style: italic; color: var(--dim) }}
{colours}
</style>
<rect x=".5" y=".5" width="{inner_width}" height="{inner_height}" rx="8"/>
"""
_COLOURS = ("dim", "red", "green", "yellow", "blue", "magenta", "cyan")
"""The colours of a terminal, in their order; its black is not used, and `dim` has the place."""


def held_story() -> Story:
    """Return the demo's story, with a helper that calls what needs a permission."""
    told = story()
    call = ToolCall(name="Bash", input={"command": _CALL})
    return told.model_copy(update={"roles": {**told.roles, _ASKING: (Turn(tool_calls=(call,)),)}})


def printed(made: House, cli: Path) -> str:
    """Return what `claude-jobs tree` prints, with its colours, once all but the held jobs are over.

    Args:
        made: Where the engine runs.
        cli: The real binary.

    Raises:
        TimeoutError: The jobs do not come to that within a minute.
    """
    with ScriptedApi(held_story()) as api:
        client = isolated_environment(made.base / "home", api.url, path=SYSTEM_PATH)
        with made.pump(environ={**client, "CLAUDE_JOBS_CLI": str(cli)}) as pump:
            # The command of the other held helper does not end.
            write_files(made.work, SECONDS)
            asked = {"tasks": [*root_tasks(), invitation()], "outputFormat": "text", "allowedTools": ALLOWED_TOOLS}
            batch = pump.json("claude_run_batch_async", **asked)["batchId"]
            until_now(lambda: is_held(pump, batch), SECONDS, "the held tree")
            drawings = (_drawn(made, batch) for _ in count())
            # The real one says something every few seconds, so that it is silent for that long in some drawings.
            drawing = next(each for each in islice(drawings, MOST_DRAWINGS) if not re.search(r" · \d+s\x1b", each))
            pump.json("claude_kill_job", jobId=batch)
            return f"\x1b[2m$\x1b[0m claude-jobs tree {batch[:6]}\n{drawing}"


def _drawn(made: House, batch: str) -> str:
    with seated(made, "tree", batch, columns=COLUMNS) as seat:
        seat.end()
    return seat.written


def is_held(pump: Pump, batch: str) -> bool:
    """Whether all is over that will be, and the other jobs are in the calls that they stay in."""
    jobs = pump.json("claude_list_jobs", under=batch)
    waits = Counter(job.get("waitingFor") for job in jobs if job["status"] == "running")
    calling = any(job.get("activity", "").startswith("Bash") and "waitingFor" not in job for job in jobs)
    return calling and waits == _WAITS and Counter(job["status"] for job in jobs) == _THERE


def settled(shown: str) -> str:
    """Replace what differs from run to run by what might have been."""
    shown = shown.replace("\r\n", "\n")
    # Where a job waits for others, their ids are plain; each is bold in its own line.
    for number, identity in enumerate(dict.fromkeys(re.findall(r"\x1b\[1m([bj][0-9a-z]{5,16})\x1b", shown))):
        digest = hashlib.sha256(str(number).encode()).hexdigest()[: len(identity) - 1]
        shown = shown.replace(identity, identity[0] + digest).replace(identity[:6], identity[0] + digest[:5])
    shown = re.sub(r"(?<=claude-jobs approve )p\w+", lambda found: "p3f7k2"[: len(found[0])], shown)
    shown = re.sub(r"· (?:\d+m )?\d+s$", "· 6s", shown, flags=re.MULTILINE)
    # On a busy machine the time is longer, and the heading has a second line.
    shown = re.sub(r"^(\x1b\[1m\w+\x1b\[0m)\n +(?=\d+ jobs?: )", r"\1 · ", shown, flags=re.MULTILINE)
    return "\n".join(map(_with_its_time, shown.split("\n")))


def _with_its_time(line: str) -> str:
    """Replace the time of a job: that of a child that is over is the shortest."""
    seconds = 2 if "●" in line and ("│   " in line or line.startswith("    ")) else 5
    return re.sub(r"\b(\d+m )?\d+s(?=\x1b\[0m$)", lambda found: f"{seconds}s".rjust(len(found[0])), line)


def svg(shown: str, title: str = "") -> str:
    """Return a picture of what a command printed, colours included; its title is the second line if none is given."""
    lines = [Text.from_ansi(line) for line in shown.splitlines()]
    width = round(max(cell_len(line.plain) for line in lines) * _WIDTH) + 2 * _MARGIN
    height = len(lines) * _HEIGHT + 2 * _MARGIN
    head = _HEAD.format(
        title=escape(title or lines[1].plain),
        width=width,
        height=height,
        inner_width=width - 1,
        inner_height=height - 1,
        colours="\n".join(f".{each} {{ color: var(--{each}) }}" for each in _COLOURS),
    )
    body = (part for row, line in enumerate(lines) for part in _line(line, _MARGIN + row * _HEIGHT))
    return "\n".join([head.rstrip("\n"), *body, "</svg>", ""])


def _line(line: Text, top: int) -> Iterator[str]:
    column = 0
    for segment in line.render(Console(file=io.StringIO())):
        for drawn, characters in groupby(segment.text.rstrip("\n"), key=_SHAPES.__contains__):
            text = "".join(characters)
            if segment.style and segment.style.reverse:
                yield _selected(_MARGIN + column * _WIDTH, top, cell_len(text) * _WIDTH)
            for piece in text if drawn else [text]:
                if piece.strip():
                    yield _piece(piece, _classes(segment.style), _MARGIN + column * _WIDTH, top)
                column += cell_len(piece)


def _selected(left: float, top: int, width: float) -> str:
    return f'<path class="selected" d="M{left:g} {top}h{width:g}v{_HEIGHT}h{-width:g}z"/>'


def _piece(piece: str, style: str, left: float, top: int) -> str:
    if shape := _SHAPES.get(piece):
        return shape.format(x=f"{left + _X:g}", y=top + _Y, left=f"{left:g}", top=top, style=style)
    blank = len(piece) - len(piece.lstrip())
    text = piece.strip()
    place = f'x="{left + blank * _WIDTH:g}" y="{top + 15}" textLength="{cell_len(text) * _WIDTH:g}"'
    named = f'class="{style}" ' if style else ""
    return f"<text {named}{place}>{escape(text)}</text>"


def _classes(style: Style | None) -> str:
    return " ".join(_named(style)) if style else ""


def _named(style: Style) -> Iterable[str]:
    if style.color and style.color.number is not None:
        yield _COLOURS[style.color.number % 8]
    yield from (name for name in ("bold", "dim", "italic") if getattr(style, name))


def picture(cli: Path) -> str:
    """Play the story and return its picture.

    Args:
        cli: The real binary.
    """
    with house(CLAUDE_JOBS_PERMISSION_REQUESTS="person") as made:
        return svg(settled(printed(made, cli)))


if __name__ == "__main__":
    binary = find_cli()
    if binary is None:
        sys.exit("No claude binary. Run `pip install -e '.[cli]'`.")
    FILE.write_text(picture(binary), encoding="utf-8")
