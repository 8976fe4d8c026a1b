"""The picture in README.md is what the command that draws it draws now."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from tests import picture, picture_top


def without_amounts(drawn: str) -> str:
    """Return a picture without what Claude Code charges and counts: that changes with its version."""
    return re.sub(r"\$\d+\.\d+|\d+k tokens", "$", drawn)


def test_the_picture_is_what_a_terminal_shows_of_the_demos_story(claude_cli: Path):
    drawn = picture.picture(claude_cli)
    kept = picture.FILE.read_text(encoding="utf-8")
    assert without_amounts(drawn) == without_amounts(kept), "The drawing of a tree has changed: run `poe picture`."


def test_the_picture_shows_each_line_and_fetches_nothing():
    kept = picture.FILE.read_text(encoding="utf-8")
    assert re.findall(r"\w+://[^\"]+", kept) == ["http://www.w3.org/2000/svg"]
    texts = [element.text for element in ET.fromstring(kept).iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:2] == ["$", "claude-jobs tree b5fece"]
    assert "Which dessert does not melt?" in texts


def test_what_differs_from_run_to_run_is_replaced_and_nothing_else():
    one, two = (
        picture.settled(f"tree {batch[:6]}\r\n\x1b[1m{batch}\x1b[0m · 1 job: 1 running · {seconds}s\r\n└── Go.")
        for batch, seconds in (("b0123456789abcdef", 9), ("bzyxwvtsrqpnmkjhg", 123))
    )
    assert one == two
    assert one.endswith(" · 1 job: 1 running · 6s\n└── Go.")


def test_a_heading_that_has_two_lines_on_a_busy_machine_is_drawn_in_one():
    batch = "\x1b[1mb0123456789abcdef\x1b[0m"
    broken = picture.settled(f"{batch}\r\n  10 jobs: 1 running · 1m 12s")
    assert broken == picture.settled(f"{batch} · 10 jobs: 1 running · 6s")


def test_the_picture_of_the_view_is_what_a_terminal_shows_of_the_review():
    kept = picture_top.FILE.read_text(encoding="utf-8")
    assert picture_top.picture() == kept, "The view has changed: run `poe picture`."
    assert re.findall(r"\w+://[^\"]+", kept) == ["http://www.w3.org/2000/svg"]
