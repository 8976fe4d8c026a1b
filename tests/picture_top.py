"""Draws `.github/top.svg`, the picture of `claude-jobs top` in README.md; `poe picture` draws both.

A stub plays the review of a source tree in a whole engine, and the command shows it in a terminal. What differs from
run to run, ids and times, is replaced. The picture needs no font and no other file.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.picture import svg
from tests.support.review_scene import Scene, review_scene
from tests.support.seat import top

FILE = Path(__file__).parents[1] / ".github" / "top.svg"
LINES, COLUMNS = 20, 134
"""Size of the terminal, in characters."""

_TIMES = ("4:12", "3:40", "1:31", "52s", "2:05", "41s", "3:02", "44s", "1:10")
"""How long each job takes in the picture, from top to bottom."""

_CODES = r"(?:\x1b\[[\d;]*m)*"
_SPAN = r"(?:\d+s|\d+:\d\d)"


def shown(scene: Scene) -> str:
    """Return what the command shows, with its colours, once a running job is selected."""
    with top(scene.made, lines=LINES, columns=COLUMNS) as view:
        view.shows("Grep: redirect_uri", "Read: web/upload.py", "waits for a slot", "waits for 4 of 6 jobs")
        view.type("\x1b[B" * 4)
        view.shows("I look where the", "Id  ", "● Grep(redirect_uri)", "◐ auth/oauth.py")
        return view.grid.styled


def settled(screen: str) -> str:
    """Replace what differs from run to run by what might have been."""
    times: Iterator[str] = iter(_TIMES)

    def time(found: re.Match[str]) -> str:
        return f"{next(times):>{len(found[1])}}{found[2]}"

    screen = re.sub(rf"( +{_SPAN})({_CODES}│)", time, screen)
    screen = re.sub(rf"· {_SPAN} ago", "· 4s ago", screen)
    # How long a job is silent, which a row says after ten seconds.
    screen = re.sub(rf" · {_SPAN}(?= *{_CODES} )(?! ago)", lambda found: " " * len(found[0]), screen)
    screen = re.sub(rf"{_SPAN}, began [\d:]+, \w+ ago", "2:05, began 14:03, 2m ago", screen)
    screen = re.sub(r"[…/][\w/…-]+/work\b", "~/shop", screen)
    screen = re.sub(r"\b[jb][0-9a-z]{16}\b", "jq3m5v8kx2t7w9ch4", screen)
    screen = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "3d6f0a52-7c1e-4b8a-9f24-60b1d2c7e815", screen)
    return "\n".join(line for line in screen.split("\n") if re.sub(rf"{_CODES}|[ │]", "", line))


def picture() -> str:
    """Play the scene and return its picture."""
    with review_scene() as scene:
        return svg(settled(shown(scene)), "claude-jobs top: ten jobs, what each does or waits for, and what it cost")


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8")
